# SPDX-License-Identifier: Apache-2.0
"""Whatever dies while a job is stopped, saved or restored: the previous checkpoint stays whole, and the job ends with its digest.

The matrix: what is being done x the phase that it is in x who is killed.  FAULTS_SEED says what is drawn; FAULTS=n runs all cells n
times, SOAK=1 once; without them FAULTS_CELLS of them (default 3), drawn by the seed; FAULTS_ONLY=REGEX picks some ("migrate x fetch x criu").
"""
import contextlib
import functools
import json
import os
import pathlib
import random
import re
import signal
import time

from fleet import Fleet, check, main
from stops import (FAST, RETRIES, can_image, check_blameless, check_cuts, check_same, examples, read_digests, result, set_backs, started,
                   undisturbed)

ROUNDS = int(os.environ.get("FAULTS", "1" if os.environ.get("SOAK") else "0"))
PATIENT = dict(FAST, suspect=2000, lease=10000)  # what restarts it is the kill, not a slow machine
CELLS = int(os.environ.get("FAULTS_CELLS", "3"))
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


# ---- who is killed ----

def some_node(f, rng, job):
    nodes = sorted({r["node"] for r in f.show(job)["ranks"]})
    return rng.choice(nodes) if nodes else None


def kill_rank(f, rng, job):
    node = some_node(f, rng, job)
    pids = f.ranks(node) if node else []
    kill(rng.choice(pids) if pids else None)


def kill_host_of(role):
    def victim(f, rng, job):
        host = {"node": lambda: some_node(f, rng, job), "cluster": lambda: f.show(job)["row"]["cluster"], "region": lambda: "r1"}[role]()
        kill(f.host_pid(host) if host else None)
    return victim


def kill_criu(f, rng, job):
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        pids = processes_named(f, "criu")
        if pids:
            return kill(rng.choice(pids))
        time.sleep(0.005)


def helpers(f, of):
    """Of these nodes: what their hosts have started; criu comes and goes by itself."""
    hosts = {f.host_pid(n) for n in of}
    return [pid for pid in f.processes() if f._parent(pid) in hosts]


def words_of(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def kill_device_helper(f, rng, job):
    node = some_node(f, rng, job)
    for pid in helpers(f, [node] if node else []):
        if b"device-helper" in words_of(pid):
            kill(pid)


def kill_keeper(f, rng, job):
    """Of one rank: with it all of the rank's processes end, and nobody writes down how."""
    node = some_node(f, rng, job)
    if not node:
        return
    spawners = [p for p in helpers(f, [node]) if b"--spawner" in words_of(p)]
    keepers = [p for p in f.processes() if f._parent(p) in spawners]
    kill(rng.choice(keepers) if keepers else None)


VICTIMS = {"rank": kill_rank, "keeper": kill_keeper, "device helper": kill_device_helper, "criu": kill_criu,
           "node host": kill_host_of("node"), "cluster host": kill_host_of("cluster"), "region host": kill_host_of("region")}
# The store is a part of the node's host.  Nothing of criu's is there in the other phases.
ORDERS = {"suspend": ["suspend"], "resume": ["resume"], "checkpoint": ["checkpoint"], "migrate": ["migrate", "--to", "cluster:c2"]}


# ---- when ----

def images(job):
    """Of all fleets of this machine that have such a job: another one's only makes a moment come too early."""
    return [p for p in pathlib.Path("/dev/shm").glob(f"orrery-images-*/*{job}-*")]


def cutting(f, job):
    return f.phase(job) in ("stopping", "suspended", "queued", "restoring")


def quiesced(f, job):
    return any(p.name.startswith("arena-") for p in images(job))


def dumping(f, job):
    return processes_named(f, "criu")


def saved(f, job):
    return any((p / "rank").exists() for p in images(job) if p.is_dir())


def fetching(f, job):
    return f.phase(job) in ("placing", "launching", "restoring")


def restoring(f, job):
    return any(b"restore" in words_of(p) for p in processes_named(f, "criu"))


def resuming(f, job):
    return f.phase(job) == "restoring"


def at_once(f, job):
    return True


PHASES = {"suspend": {"begin": at_once, "cut": cutting, "quiesce": quiesced},
          "resume": {"begin": at_once, "resume": resuming},
          "checkpoint": {"begin": at_once, "quiesce": quiesced, "image": dumping, "store": saved},
          "migrate": {"begin": at_once, "quiesce": quiesced, "image": dumping, "store": saved, "fetch": fetching, "restore": restoring,
                      "resume": resuming}}
WITH_CRIU = {("checkpoint", "image"), ("checkpoint", "store"), ("migrate", "image"), ("migrate", "store"), ("migrate", "restore")}
MATRIX = [(order, phase, victim) for order in ORDERS for phase in PHASES[order] for victim in VICTIMS
          if victim != "criu" or (order, phase) in WITH_CRIU]


def reach(f, job, order, phase, running):
    """The phase, or the order's end, or a while: whether it was seen is said, not demanded."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and running.poll() is None:
        if PHASES[order][phase](f, job):
            return True
        time.sleep(0.002)
    return False


def survives(f, rng, truth, example, order, phase, victim):
    """One cell of the matrix.  Whether its phase was seen."""
    job, prefix = started(f, example, example.name, extra=RETRIES)
    f.cli("checkpoint", job, expect=0, timeout=90)
    words = ORDERS[order]
    if order == "resume":
        f.cli("suspend", job, expect=0, timeout=90)
    running = f.start_cli(words[0], job, *words[1:])
    was_seen = reach(f, job, order, phase, running)
    time.sleep(rng.uniform(0, 0.02))  # the moment within the phase is what is random here
    VICTIMS[victim](f, rng, job)
    with contextlib.suppress(Exception):
        running.wait(timeout=90)
    kill(running.pid)
    f.restart()
    verified = f.cli("checkpoint", "verify", job, timeout=90)  # those of a job that has ended are gone
    check(verified.code == 0 or f.phase(job) == "done", f"the checkpoint is not whole: {verified}")
    if f.wait_phase(job, "running", "suspended", "done", seconds=120)["row"]["phase"] == "suspended":
        f.cli("resume", job, expect=0, timeout=120)
    detail = f.wait_phase(job, "done", seconds=240)
    check_blameless(f, detail, killed=victim == "rank")
    check(result(f, job) == truth[0], f"{result(f, job)} is not {truth[0]}: {json.dumps(detail['row'])}")
    check_same(truth[1], read_digests(prefix), once=False)
    check_cuts(prefix, example.world)
    most = max(len(b) for b in set_backs(prefix, example.every).values())
    check(most <= detail["restarts"] <= 2, f"set back {most} times, {detail['restarts']} restarts")
    refused = [l for l in f.cli("events", expect=0).out.splitlines() if "not restored" in l]
    check(not refused, f"a whole checkpoint was given up: {refused}")
    return was_seen


def cells(rng):
    if ROUNDS:
        return MATRIX * ROUNDS
    return MATRIX if ONLY else rng.sample(MATRIX, min(CELLS, len(MATRIX)))


def nothing_is_lost_whoever_dies_in_between():
    """Each cell has a fleet of its own, so that one that fails says nothing about the others."""
    rng, failed, truth, n, seen = random.Random(SEED), [], None, 0, 0
    example = examples(int(os.environ.get("FAULTS_STEPS", "400")))[0]
    for cell in cells(rng):
        name, began, seed = " x ".join(cell), time.monotonic(), rng.randrange(1 << 31)
        if ONLY and not re.search(ONLY, name):
            continue
        try:
            with Fleet(clusters=2, nodes=2, gpus=4, **PATIENT) as f:
                if not truth and not can_image(f):
                    return
                truth = truth or undisturbed(f, example, example.name)
                was_seen = survives(f, random.Random(seed), truth, example, *cell)
            n, seen = n + 1, seen + was_seen
            print(f"     {name}{'' if was_seen else ' (phase not seen)'}: {time.monotonic() - began:.1f} s", flush=True)
        except Exception as e:  # the others are to be seen, too
            failed.append(name)
            print(f"     {name}: FAILED after {time.monotonic() - began:.1f} s: {type(e).__name__}: {e}", flush=True)
    print(f"     {n} cells held, in {seen} the phase was seen", flush=True)
    check(not failed, f"cells that failed: {', '.join(failed)}")


# ---- the store ----

def chunks(f):
    """Of all stores: name -> path.  A small one is a link that says PACK:OFFSET:LENGTH."""
    return {p.parent.name + p.name: p for p in f.state.glob("*/store/chunks/*/*")}


def where(path):
    """The file that a chunk's bytes are in, its first byte there, and how many."""
    if path.is_symlink():
        pack, offset, length = os.readlink(path).rsplit(":", 2)
        return path.parents[2] / "packs" / os.path.basename(pack), int(offset), int(length)
    return path, 0, path.stat().st_size


def flip(path):
    name, offset, length = where(path)
    with open(name, "r+b") as file:
        file.seek(offset + length // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


def tear(path):
    name, offset, length = where(path)
    os.truncate(name, offset + length // 2)


@functools.cache
def example_and_truth():
    """One that is still at it when all has been done to it, on a slow machine and on a fast one."""
    example = examples(1000)[0]
    with Fleet(clusters=1, nodes=2, gpus=4, **FAST) as f:
        return example, undisturbed(f, example, example.name)


def goes_on_from_the_one_before(damage):
    example, truth = example_and_truth()
    with Fleet(clusters=1, nodes=2, gpus=4, **FAST) as f:
        if not can_image(f):
            return
        job, prefix = started(f, example, example.name, extra=RETRIES)
        f.cli("checkpoint", job, expect=0, timeout=90)
        before = chunks(f).keys()
        f.cli("checkpoint", job, expect=0, timeout=90)
        fresh = sorted(name for name in chunks(f) if name not in before)
        check(fresh, "the second checkpoint has no chunk of its own")
        damage(chunks(f)[random.Random(SEED).choice(fresh)])
        f.kill_node(f.show(job)["ranks"][0]["node"])
        f.restart()
        detail = f.wait_phase(job, "done", seconds=240)
        check_blameless(f, detail)
        check(detail["row"]["generation"] >= 3, f"it did not notice: {json.dumps(detail['row'])}")
        check(result(f, job) == truth[0], f"{result(f, job)} is not {truth[0]}")
        check_same(truth[1], read_digests(prefix), once=False)


def flipped_bit_is_noticed_and_the_checkpoint_before_is_used():
    goes_on_from_the_one_before(flip)


def torn_chunk_is_noticed_and_the_checkpoint_before_is_used():
    goes_on_from_the_one_before(tear)


def full_store_fails_the_checkpoint_and_not_the_job():
    """Full is a quota that the second checkpoint does not fit into, and the first one stays whole."""
    example, truth = example_and_truth()
    with Fleet(clusters=1, nodes=2, gpus=4, **FAST) as f:
        if not can_image(f):
            return
        job, prefix = started(f, example, example.name, extra=RETRIES)
        f.cli("checkpoint", job, expect=0, timeout=90)
        for config in f.state.glob("n*/host.yaml"):
            config.write_text(config.read_text().replace('/store"}', '/store", quota: 1MiB}'))
            f.kill_host(config.parent.name)
        f.restart()
        f.wait_phase(job, "running")
        refused = f.cli("checkpoint", job, timeout=90)
        check(refused.code != 0 and "quota" in refused.err, str(refused))
        f.cli("checkpoint", "verify", job, expect=0, timeout=90)
        check_blameless(f, f.wait_phase(job, "done", seconds=240))
        check(result(f, job) == truth[0], f"{result(f, job)} is not {truth[0]}")
        check_same(truth[1], read_digests(prefix), once=False)


if __name__ == "__main__":
    print(f"FAULTS_SEED={SEED} FAULTS={ROUNDS}", flush=True)
    main(nothing_is_lost_whoever_dies_in_between,
         flipped_bit_is_noticed_and_the_checkpoint_before_is_used,
         torn_chunk_is_noticed_and_the_checkpoint_before_is_used,
         full_store_fails_the_checkpoint_and_not_the_job)
