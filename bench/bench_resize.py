# SPDX-License-Identifier: Apache-2.0
"""What a resize stops a job for: the 8-rank digits example, 8 -> 4 -> 2 -> 8 devices on two nodes, on real processes; JSON lines.

    bench_resize.py [ROUNDS]        default 5

    value      the longest time in which a rank ends no step, from the order until the job has run on for a while: as the program sees it,
               with a step of its own in it; median of the rounds
    limit      3 s + bytes / rate out + bytes / rate in: device memory of all ranks, at what one device copied in this job's stops, all devices
               side by side (`orrery show`: resize_cost)
    estimated  what `show` said before the order that it would be, where it had said something
"""
import json
import os
import pathlib
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/integration"))
from fleet import Fleet, check, wait_for  # noqa: E402
from stops import examples  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
AFTER_S, FIXED_MS = 0.5, 3000
PATIENT = dict(heartbeat=100, suspect=10000, lease=30000)  # what is measured is no outage


class Gap(threading.Thread):
    """The longest time in which a file does not grow."""

    def __init__(self, path):
        super().__init__()
        self.path, self.longest_ms, self.is_over = path, 0.0, False

    def run(self):
        size, at = self.path.stat().st_size, time.monotonic()
        while not self.is_over:
            now, n = time.monotonic(), self.path.stat().st_size
            self.longest_ms = max(self.longest_ms, (now - at) * 1000)
            if n != size:
                size, at = n, now
            time.sleep(0.001)


def steps_of(prefix):
    """Steps that every rank has written; lines that are missing in one, and lines too many."""
    least, lost, twice = None, 0, 0
    for path in prefix.parent.glob(f"{prefix.name}*"):
        lines = path.read_text().splitlines(keepends=True)
        steps = [int(line.split(" ", 1)[0].split("=")[1]) for line in lines if line.endswith("\n")]
        lost, twice = lost + max(steps) - len(set(steps)), twice + len(steps) - len(set(steps))
        least = min(max(steps), least or max(steps))
    return least, lost, twice


def copies_ms(cost, before, after):
    times = [(cost["out_bytes_per_s"], before), (cost["in_bytes_per_s"], after)]
    return sum(cost["bytes"] * 1000 / rate / devices for rate, devices in times if rate)


def resize(f, job, mine, n):
    """(the pause, what `show` had expected or None, its limit), in ms."""
    cost = f.show(job)["resize_cost"]
    expected = {cost["fewer"]: cost["fewer_us"], cost["more"]: cost["more_us"]}.get(n) if cost["stops"] else None
    before, gap = f.show(job)["row"]["gpus"], Gap(mine)
    gap.start()
    try:
        f.cli("resize", job, str(n), expect=0, timeout=120)
        time.sleep(AFTER_S)
    finally:
        gap.is_over = True
        gap.join()
    detail = f.show(job)
    check(detail["row"]["gpus"] == n and detail["row"]["generation"] == 1, json.dumps(detail["row"]))
    return gap.longest_ms, expected and expected / 1000, FIXED_MS + copies_ms(detail["resize_cost"], before, n), detail["resize_cost"]["bytes"]


def tell(before, n, found, steps, lost, twice):
    pause, limit = statistics.median(p for p, *_ in found), statistics.median(limit for _, _, limit, _ in found)
    expected = [e for _, e, *_ in found if e]
    print(json.dumps({"bench": f"resize_{before}_{n}", "value": round(pause, 3), "unit": "ms", "peer": "3 s + bytes / copy rate",
                      "peer_value": round(limit, 3), "ratio": round(pause / limit, 3), "max": round(max(p for p, *_ in found), 3),
                      "estimated_ms": round(statistics.median(expected), 3) if expected else None, "bytes": found[-1][3],
                      "rounds": len(found), "steps": steps, "steps_lost": lost, "steps_twice": twice, "load": round(os.getloadavg()[0], 1)}), flush=True)


def main():
    example, found = examples(10**6)[0], {}
    example.gpus, example.least = 8, 1
    with Fleet(nodes=2, gpus=4, **PATIENT) as f:
        wait_for("both nodes are there", lambda: sum(n["gpus_free"] for n in f.cli("tree", "-o", "json", expect=0).json()["nodes"]) == 8, 30)
        prefix = f.top / f"{example.name}."
        job = f.submit(example.spec(prefix))
        f.wait_phase(job, "running", seconds=90)
        check(f.show(job)["row"]["gpus"] == 8, "it did not get all devices")
        wait_for("all ranks take steps", lambda: len(list(f.top.glob(f"{prefix.name}*"))) == example.world, 90)
        mine = next(f.top.glob(f"{prefix.name}*.0"))
        for _ in range(ROUNDS):
            for before, n in ((8, 4), (4, 2), (2, 8)):
                found.setdefault((before, n), []).append(resize(f, job, mine, n))
        f.cli("cancel", job, expect=0)
        f.wait_phase(job, "cancelled", seconds=60)
        steps = steps_of(prefix)
    for (before, n), of in found.items():
        tell(before, n, of, *steps)


main()
