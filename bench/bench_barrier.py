# SPDX-License-Identifier: Apache-2.0
"""Barriers at random moments of the three parallel examples, 8 ranks on 4 nodes, on real processes; JSON lines.

    bench_barrier.py [BARRIERS [EXAMPLE...]]        BARRIERS of each example (default 100); BARRIERS_SEED repeats a run

Time and limit are of the same run, and the load of everything else is in both (docs/barrier.md, "Cost"):
    barrier      from the first `begin` of the job's actor to the cut, as `orrery show` says
    round trip   its `begin`: job's actor -> nodes -> libraries of all ranks -> back
    collective   a step of the example while nobody stops it: it issues all of a step's collectives at once and waits for them together
"""
import json
import os
import pathlib
import random
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/integration"))
from barriers import Orders, barrier, cut_us, steps_are_whole  # noqa: E402
from fleet import Fleet, wait_for  # noqa: E402
from stops import examples  # noqa: E402

BARRIERS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
SEED = int(os.environ.get("BARRIERS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
WINDOW_S, WINDOWS, MOMENT_S = 2.0, 10, 0.1
PATIENT = dict(heartbeat=100, suspect=10000, lease=30000)  # what is measured is no outage


def report(bench, value, unit, peer=None, peer_value=None, **more):
    print(json.dumps({"bench": bench, "value": round(value, 3), "unit": unit, "peer": peer,
                      "peer_value": peer_value and round(peer_value, 3),
                      "ratio": peer_value and round(value / peer_value, 3), **more}), flush=True)


def p50(values):
    return statistics.median(values)


def p99(values):
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def step_times(path, seconds=WINDOW_S):
    """Milliseconds of each step that a rank ends in that time, by the growth of what it writes at the end of each."""
    found, size, at = [], path.stat().st_size, None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now, n = time.monotonic(), path.stat().st_size
        if n != size:
            if at is not None:
                found.append((now - at) * 1000)
            size, at = n, now
        time.sleep(0.001)
    return found


def one_example(f, example, rng):
    prefix = f.top / f"{example.name}."
    job = f.submit(example.spec(prefix, mode="inplace"))
    f.wait_phase(job, "running", seconds=90)
    wait_for("all ranks take steps", lambda: len(list(f.top.glob(f"{prefix.name}*"))) == example.world, 90)
    mine = next(f.top.glob(f"{prefix.name}*.0"))
    orders, stops, collective = Orders(f, job), [], []
    every = max(1, BARRIERS // WINDOWS)
    for n in range(BARRIERS):
        if n % every == 0:
            collective += step_times(mine)
        time.sleep(rng.uniform(0, MOMENT_S))
        stops.append(barrier(f, orders))
    nodes = {rank["node"] for rank in f.show(job)["ranks"]}
    f.cli("cancel", job, expect=0)
    f.wait_phase(job, "cancelled", seconds=60)
    orders.close()
    return stops, collective, dict(barriers=len(stops), failed=0, ranks=example.world, nodes=len(nodes), seed=SEED,
                                   steps=steps_are_whole(prefix))


def tell(name, stops, collective, more):
    begin = [stop["barrier_begin"]["took_us"] / 1000 for stop in stops]
    cuts = [cut_us(stop) / 1000 for stop in stops]
    rounds = [stop["barrier_targets"]["rounds"] for stop in stops]
    load = round(os.getloadavg()[0], 1)
    for q, of in (("p50", p50), ("p99", p99)):
        limit = of(collective) + 3 * of(begin)
        report(f"barrier_{name}_{q}", of(cuts), "ms", f"one collective + 3 round trips, {q}", limit, collective_ms=round(of(collective), 3),
               round_trip_ms=round(of(begin), 3), load=load, **more)
    report(f"barrier_{name}_max", max(cuts), "ms", rounds_max=max(rounds), rounds_mean=round(statistics.mean(rounds), 2))


def main():
    rng, wanted = random.Random(SEED), sys.argv[2:]
    with Fleet(clusters=1, nodes=4, gpus=1, **PATIENT) as f:
        for example in examples(10**6)[:3]:
            if not wanted or example.name in wanted:
                try:
                    tell(example.name, *one_example(f, example, rng))
                except AssertionError as error:
                    print(json.dumps({"bench": f"barrier_{example.name}", "value": None, "why": str(error)[:400]}), flush=True)
                    raise


main()
