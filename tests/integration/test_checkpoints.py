# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as their keeper sees them: periodic ones, damage, room that is freed, a full store, and nodes that are emptied.

The fleets of all tests run at the same time: they mostly wait.
"""
import contextlib
import json
import os
import re
import time

from fleet import Fleet, check, main, shell, wait_for

CALM = dict(heartbeat=200, suspect=2000, lease=5000)
COUNT = 'i=0; while [ ! -e stop ]; do i=$((i+1)); echo "$i"; sleep 0.05; done'
GROW = """i=0; x=; while [ ! -e stop ]; do i=$((i+1)); echo "$i"; sleep 0.05
if [ -e grow ] && [ ! -e grown ]; then x=$(head -c 3000000 /dev/urandom | base64); : > grown; fi; done"""


def configure(f, host, old, new):
    """Another configuration for a host, which starts anew with it."""
    path = f.state / host / "host.yaml"
    text = path.read_text()
    check(old in text, f"{path} has no {old}: {text}")
    path.write_text(text.replace(old, new))
    f.kill_host(host)
    f.restart()


def rows(f, job):
    return f.cli("checkpoint", "ls", job, "-o", "json", expect=0).json()


def numbers(f, job):
    return [r["number"] for r in rows(f, job)]


def counting(f, extra="", script=COUNT):
    job = f.submit(shell(script, f"gpus: 0\n{extra}"))
    f.wait_phase(job, "running")
    wait_for("it has counted", lambda: f.log(job))
    return job


def events(f, job, kind):
    return [e for e in f.cli("events", job, "-o", "json", expect=0).json() if e["type"] == kind]


def stop(f, *jobs):
    """They end by themselves, and have counted without a gap or a repeat."""
    (f.top / "stop").touch()
    for job in jobs:
        f.wait_phase(job, "done")
        counted = [int(line) for line in f.log(job).split()]
        check(counted == list(range(1, len(counted) + 1)), f"{job}: {counted}")


def is_able(f, host="n1"):
    """Whether its nodes can make images; they know a moment after they have started."""
    def known():
        job = f.submit(shell("exit 0", "gpus: 0\ncheckpoint: {mode: image}\n"))
        detail = f.wait_phase(job, "done", "failed")
        return detail if detail["level"] == "image" or detail["why_level"] else None
    detail = wait_for("the nodes know whether they can make images", known)
    if detail["level"] != "image":
        print(f"     (skipped: {detail['why_level']})", flush=True)
    return detail["level"] == "image"


def store_of(f):
    return f.state / "c1" / "store"


def parts(f, job, number):
    return [p["hash"] for p in f.cli("checkpoint", "show", job, number, "-o", "json", expect=0).json()["parts"]]


def periodic_checkpoints_come_and_old_ones_go():
    with Fleet(nodes=1, gpus=0, slots=4, **CALM) as f:
        if not is_able(f):
            return
        job = counting(f, "checkpoint: {every: 10s, keep: 2}\n")
        never = counting(f, "checkpoint: {mode: none, every: 10s}\n")
        check(f.cli("checkpoint", job, expect=0).out.strip() == "1", "the first one is not number 1")
        seen = set()

        def two_more():
            seen.update((r["job"], r["phase"]) for r in f.cli("ps", "-o", "json", expect=0).json())
            return numbers(f, job) == [2, 3]
        wait_for("two periodic checkpoints, and the first one is gone", two_more, 40)
        check({r["cause"] for r in rows(f, job)} == {"periodic"}, json.dumps(rows(f, job)))
        paused = min(r["paused_ms"] for r in rows(f, job))  # nobody waits for a library that is not there
        check(paused < 2800, f"it stood still for {paused} ms: 3 s are what a silent library is waited for")
        check(f.show(job)["row"]["generation"] == 1, f.cli("show", job).out)
        check({p for j, p in seen if j == job} <= {"running", "stopping"}, str(seen))
        check(not numbers(f, never), "a checkpoint of a job that wants none")
        f.cli("checkpoint", "verify", job, expect=0)
        stop(f, job, never)


def job_that_cannot_be_saved_says_so_once():
    with Fleet(nodes=1, gpus=0, slots=4, **CALM) as f:
        f.env["ORRERY_CRIU"] = "/nonexistent"
        f.kill_host("n1")
        f.restart()
        job = counting(f, "checkpoint: {every: 10s}\n")
        detail = wait_for("it says why", lambda: unable(f, job), 40)
        check("criu" in detail["row"]["reason"], json.dumps(detail["row"]))
        check(not numbers(f, job), "a checkpoint that nobody can make")
        stop(f, job)


def unable(f, job):
    detail = f.show(job)
    return detail if "no periodic checkpoints" in detail["row"]["reason"] else None


def damage_is_named_and_the_one_before_it_is_restored():
    with Fleet(nodes=2, gpus=0, slots=4, **CALM) as f:
        if not is_able(f):
            return
        job = counting(f)
        f.cli("checkpoint", job, expect=0)
        before = chunks(f)
        f.cli("checkpoint", job, expect=0)
        newest = max(chunks(f) - before, key=lambda c: c.stat().st_size)
        flip(newest)
        text = f.cli("checkpoint", "verify", job, expect=7).err
        check(re.search(r"rank 0 on n[12]: .*chunk \d+.*(offset|at) \d+", text), text)
        f.cli("checkpoint", "verify", job, 1, expect=0)
        f.kill_node(f.show(job)["ranks"][0]["node"])
        detail = wait_for("it runs again", lambda: again(f, job), 60)
        said = events(f, job, "job.checkpoint")
        check(any(e["to"] == "not restored" and e["from"] == "2" for e in said), json.dumps(said))
        why = next(e["cause"] for e in said if e["to"] == "not restored")
        check("goes on from checkpoint 1" in why and "chunk" in why, why)
        stop_again(f, job)


def stop_again(f, job):
    """As stop, but it went back: what it counted since the checkpoint is there twice."""
    (f.top / "stop").touch()
    f.wait_phase(job, "done")
    counted = [int(line) for line in f.log(job).split()]
    check(counted[-1] == max(counted) and set(counted) >= set(range(counted[0], counted[-1] + 1)), str(counted))


def again(f, job):
    detail = f.show(job)
    return detail if detail["row"]["phase"] == "running" and detail["row"]["generation"] > 1 else None


def chunks(f):
    """Files with content: chunks of their own, and packs of small ones."""
    store = store_of(f)
    return {p for d in ("chunks", "packs") for p in (store / d).rglob("*") if p.is_file() and not p.is_symlink()}


def flip(path):
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def drained_node_is_empty_and_no_step_was_repeated():
    with Fleet(nodes=2, gpus=0, slots=6, **CALM) as f:
        if not is_able(f):
            return
        moving = [counting(f), counting(f)]
        staying = counting(f, "checkpoint: {mode: none}\n")
        homes = {j: f.show(j)["ranks"][0]["node"] for j in [*moving, staying]}
        node = homes[staying]
        out = f.cli("drain", node, "--timeout", "15s", expect=6)
        check(staying in out.err and "cannot move" in out.err, str(out))
        for job in moving:
            wait_for(f"{job} has moved", lambda: runs_elsewhere(f, job, node), 60)
        check(f.phase(staying) == "running", "it was stopped, and could not move")
        f.cli("drain", node, "--undo", expect=0)
        wait_for(f"{node} is up again in the region's eyes", lambda: state_of(f, node) == "up")
        f.cli("cancel", staying, expect=0)
        f.wait_phase(staying, "cancelled")
        f.cli("drain", node, "--timeout", "80s", expect=0, timeout=120)
        f.kill_host(node)
        stop(f, *moving)


def state_of(f, node):
    return next(n["state"] for n in f.cli("tree", "-o", "json", expect=0).json()["nodes"] if n["node"] == node)


def runs_elsewhere(f, job, node):
    detail = f.show(job)
    return detail["row"]["phase"] == "running" and detail["ranks"][0]["node"] != node


def full_store_leaves_the_job_and_its_checkpoint_alone():
    with Fleet(nodes=1, gpus=0, slots=4, **CALM) as f:
        configure(f, "n1", f'{store_of(f)}"', f'{store_of(f)}", quota: 1MiB')
        if not is_able(f):
            return
        job = counting(f, script=GROW)
        f.cli("checkpoint", job, expect=0)
        (f.top / "grow").touch()
        wait_for("it has grown", lambda: (f.top / "grown").exists())
        refused = f.cli("checkpoint", job)
        check(refused.code in (5, 7) and "quota of 1 MiB" in refused.err and "orrery checkpoint rm" in refused.err, str(refused))
        check(numbers(f, job) == [1], json.dumps(rows(f, job)))
        f.cli("checkpoint", "verify", job, expect=0)
        check(f.show(job)["row"]["generation"] == 1 and f.phase(job) == "running", f.cli("show", job).out)
        stop(f, job)


def removed_checkpoint_frees_its_room():
    with Fleet(nodes=2, gpus=0, slots=4, **CALM) as f:
        configure(f, "r1", "region: {}", "region: {collect: {every: 2s, grace: 1m}}")
        if not is_able(f):
            return
        job = counting(f)
        for _ in range(3):
            f.cli("checkpoint", job, expect=0)
        gone, kept = parts(f, job, 2), parts(f, job, 1) + parts(f, job, 3)
        age(f)
        f.cli("checkpoint", "rm", job, 2, expect=0)
        there = store_of(f) / "parts"
        wait_for("the part of the removed one is gone", lambda: not any((there / p).exists() for p in gone), 20)
        check(all((there / p).exists() for p in kept), "a part that is needed went too")
        for number in (1, 3):
            f.cli("checkpoint", "verify", job, number, expect=0)
        before = names(f)
        f.cli("checkpoint", "rm", job, 1, expect=0)
        wait_for("its chunks are gone", lambda: before - names(f), 20)
        f.cli("checkpoint", "verify", job, 3, expect=0)
        stop(f, job)
        age(f)
        wait_for("a job that is done keeps nothing", lambda: not chunks(f), 20)


def age(f):
    """All that is there now is older than any grace."""
    past = time.time() - 3600
    for d in ("chunks", "packs", "parts"):
        for path in (store_of(f) / d).rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (past, past), follow_symlinks=False)


def names(f):
    """All chunks: most are names that lead into a pack, which goes with the last of its own."""
    return {p.parent.name + p.name for p in (store_of(f) / "chunks").glob("*/*")}


if __name__ == "__main__":
    main(periodic_checkpoints_come_and_old_ones_go,
         job_that_cannot_be_saved_says_so_once,
         damage_is_named_and_the_one_before_it_is_restored,
         drained_node_is_empty_and_no_step_was_repeated,
         full_store_leaves_the_job_and_its_checkpoint_alone,
         removed_checkpoint_frees_its_room,
         at_once=6)
