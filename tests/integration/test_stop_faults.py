# SPDX-License-Identifier: Apache-2.0
"""Whatever dies while a job is stopped, saved or restored: the previous checkpoint stays whole, and the job ends with its digest.

The matrix: what is being done x who is killed, at a moment that the seed draws.  FAULTS=n repeats it; FAULTS_SEED says which; FAULTS_ONLY=REGEX picks cells ("migrate x criu").
"""
import contextlib
import json
import os
import pathlib
import random
import re
import signal
import time

from fleet import Fleet, check, main
from stops import check_same, examples, read_digests, result
from test_stops import FAST, can_image, started, undisturbed

ROUNDS = int(os.environ.get("FAULTS", "1"))
SEED = int(os.environ.get("FAULTS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
ONLY = os.environ.get("FAULTS_ONLY", "")


def processes_named(f, name):
    """Of this fleet: criu and helpers have its folder on their command line, or the host as their parent."""
    found = []
    for pid in f.processes():
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
    return found


def kill(pid):
    with contextlib.suppress(ProcessLookupError, TypeError):
        os.kill(pid, signal.SIGKILL)


def kill_rank(f, rng, job):
    node = rng.choice(f.show(job)["ranks"])["node"]
    pids = f.ranks(node)
    kill(rng.choice(pids) if pids else None)


def kill_host_of(role):
    def victim(f, rng, job):
        host = {"node": lambda: rng.choice(f.show(job)["ranks"])["node"], "cluster": lambda: "c1", "region": lambda: "r1"}[role]()
        kill(f.host_pid(host))
    return victim


def kill_criu(f, rng, job):
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        pids = processes_named(f, "criu")
        if pids:
            return kill(rng.choice(pids))
        time.sleep(0.005)


VICTIMS = {"rank": kill_rank, "node host": kill_host_of("node"), "cluster host": kill_host_of("cluster"),
           "region host": kill_host_of("region"), "criu": kill_criu}
ORDERS = {"suspend": ["suspend"], "checkpoint": ["checkpoint"], "migrate": ["migrate", "--to", "cluster:c2"]}


def survives(f, rng, truth, example, order, victim):
    """One cell of the matrix."""
    job, prefix = started(f, example, example.name, extra="retries: {infra: unlimited, user: 5, backoff: 100ms..200ms}\n")
    f.cli("checkpoint", job, expect=0, timeout=90)
    words = ORDERS[order]
    running = f.start_cli(words[0], job, *words[1:])
    time.sleep(rng.uniform(0, rng.choice([0.3, 3])))
    VICTIMS[victim](f, rng, job)
    with contextlib.suppress(Exception):
        running.wait(timeout=60)
    kill(running.pid)
    f.restart()
    verified = f.cli("checkpoint", "verify", job, timeout=90)
    check(verified.code == 0, f"{order} x {victim}: {verified}")
    if f.phase(job) == "suspended":
        f.cli("resume", job, timeout=60)
    detail = f.wait_phase(job, "done", seconds=240)
    check(result(f, job) == truth[0], f"{order} x {victim}: {result(f, job)} is not {truth[0]}: {json.dumps(detail['row'])}")
    check_same(truth[1], read_digests(prefix), once=False)


def nothing_is_lost_whoever_dies_in_between():
    """Each cell has a fleet of its own, so that one that fails says nothing about the others."""
    rng, failed, truth = random.Random(SEED), [], None
    example = examples(int(os.environ.get("FAULTS_STEPS", "120")))[0]
    for cell in [(order, victim) for _ in range(ROUNDS) for order in ORDERS for victim in VICTIMS]:
        name, began, seed = " x ".join(cell), time.monotonic(), rng.randrange(1 << 31)
        if ONLY and not re.search(ONLY, name):
            continue
        try:
            with Fleet(clusters=2, nodes=2, gpus=4, **FAST) as f:
                if not truth and not can_image(f):
                    return
                truth = truth or undisturbed(f, example, example.name)
                survives(f, random.Random(seed), truth, example, *cell)
            print(f"     {name}: {time.monotonic() - began:.1f} s", flush=True)
        except Exception as e:  # the others are to be seen, too
            failed.append(name)
            print(f"     {name}: FAILED after {time.monotonic() - began:.1f} s: {type(e).__name__}: {e}", flush=True)
    check(not failed, f"cells that failed: {', '.join(failed)}")


if __name__ == "__main__":
    print(f"FAULTS_SEED={SEED} FAULTS={ROUNDS}", flush=True)
    main(nothing_is_lost_whoever_dies_in_between)
