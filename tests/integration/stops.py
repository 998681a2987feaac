# SPDX-License-Identifier: Apache-2.0
"""stops.py - jobs that are stopped and go on, for the tests and bench: the examples, how they are run, and what must be equal.

An example started with --digests writes a line for every K steps and rank: the step and a digest of each buffer of its state.
A run that was never disturbed gives the truth; a job that was stopped, moved and restored must agree with it in every line that
it writes, and must write each line once unless it was set back to a checkpoint (a node died).

Its libraries write a digest of all of its device memory at each cut, and again after the resume (ORRERY_RANK_DIGESTS, see
gateways/rank/cuda/digest.h): read by the program's addresses, so a stop is compared where it was, in the middle of a step.
"""
import glob
import os
import pathlib
import re
import time

from fleet import ROOT, WORKLOADS, check, wait_for

DATA = ROOT / "examples/digits/data/digits.csv"
FAST = dict(heartbeat=100, suspect=1500, lease=6000)  # on a busy machine a host may be away for a second or two

# A restart that is charged to the program is a fault of ours that was taken for its: the job goes on, so that all is seen, and
# check_blameless fails.
RETRIES = "retries: {infra: unlimited, user: 5, backoff: 100ms..200ms}\n"


def check_blameless(f, detail, killed=0):
    """killed: ranks that the test itself has killed, which nobody can tell from one that dies by itself."""
    if detail["user_restarts"] <= killed:
        return
    events = f.cli("events", detail["row"]["job"], "-o", "json", expect=0).json()
    said = [f"{e['type']} {e['to']}: {e['cause']}" for e in events if e.get("cause")]
    check(False, f"{detail['user_restarts']} of {detail['restarts']} restarts were charged to the program: {said[-12:]}")


def cuts_of(prefix):
    prefix = pathlib.Path(prefix)
    return prefix.parent / f"cuts.{prefix.name}"


class Example:
    """How to submit one of the examples with digests, and how to read its result."""

    def __init__(self, name, world, gpus, steps, every, options=()):
        self.name, self.world, self.gpus, self.steps, self.every, self.options = name, world, gpus, steps, every, options
        self.least = None  # devices: as many as it has; fewer: it may be resized
        self.shards = 0  # as its communicators show; 1: any ranks may share a device

    def command(self, prefix):
        return ["/usr/bin/env", f"ORRERY_RANK_DIGESTS={cuts_of(prefix)}", str(WORKLOADS / "bin" / self.name), *self.options, "--steps", str(self.steps), "--digests", str(prefix),
                "--digest-every", str(self.every)]

    def spec(self, prefix, mode="auto", every="15m", extra=""):
        words = ", ".join(f'"{w}"' for w in self.command(prefix))
        least = self.gpus if self.least is None else self.least
        gpus = f"gpus: {{min: {least}, max: {self.gpus}}}\n" if self.gpus else ""
        gpus += f"shards: {self.shards}\n" if self.shards else ""
        return (f"name: {self.name}\ncommand: [{words}]\nworld: {self.world}\n{gpus}"
                f"checkpoint: {{mode: {mode}, every: {every}}}\n{extra}")


def examples(steps):
    """Those of the acceptance lists, each for about as many steps."""
    data = ("--data", str(DATA))
    return [Example("digits", 8, 4, steps, 1, data),
            Example("mlp", 8, 4, steps, 1, data),
            Example("pipeline", 8, 4, steps, 1, data),
            Example("tcp", 4, 0, 30 * steps, 50),
            Example("adam", 8, 4, steps, 1, data)]


def result(f, job):
    lines = [l for l in f.log(job).splitlines() if "digest=" in l]
    check(len(lines) == 1, f"one line with the digest expected, got {lines}")
    return lines[0].split("digest=")[1].split()[0]


def read_digests(prefix):
    """{(rank file, line's step): [the rest, once for each time it was written]}"""
    found = {}
    for path in sorted(glob.glob(f"{prefix}*")):
        for line in pathlib.Path(path).read_text().splitlines():
            step, _, rest = line.partition(" ")
            found.setdefault((os.path.basename(path).removeprefix(os.path.basename(str(prefix))), step), []).append(rest)
    check(found, f"no digests at {prefix}*")
    return found


def check_same(truth, got, once=True):
    check(truth.keys() == got.keys(), f"lines differ: {sorted(truth.keys() ^ got.keys())[:5]}")
    for key, values in got.items():
        check(set(values) == set(truth[key]), f"{key}: {values} is not {truth[key]}")
        check(not once or len(values) == 1, f"{key}: written {len(values)} times, so steps were repeated")


def step_of(at):
    return int(at[1].split("=")[1])


def reached(digests):
    """The newest step that all ranks have done; they are killed in different ones."""
    return min(max(step_of(at) for at in digests if at[0] == rank) for rank in {rank for rank, _ in digests})


def up_to(last, digests):
    return {at: lines for at, lines in digests.items() if step_of(at) <= last}


def set_backs(prefix, every):
    """How often each rank file's steps go back; a step left out is an error.  {file: [(from, to)]}"""
    found = {}
    for path in sorted(glob.glob(f"{prefix}*")):
        last, back = 0, found.setdefault(os.path.basename(path), [])
        for line in pathlib.Path(path).read_text().splitlines():
            step = int(line.split(" ", 1)[0].split("=")[1])
            if step <= last:
                back.append((last, step))
            else:
                check(step == last + every, f"{path}: step {step} after step {last}")
            last = step
    return found


CUT = re.compile(r"(out|in)=(\d+) buffers=(\d+) bytes=(\d+) digest=(\w+)(?: was=(\w+))?$")


def check_cuts(prefix, world=None):
    """What was on the devices at each stop was there after each resume.  How many resumes of how many buffers were compared."""
    resumes, buffers = 0, set()
    paths = sorted(glob.glob(f"{cuts_of(prefix)}*"))
    for path in paths:
        for line in pathlib.Path(path).read_text().splitlines():
            found = CUT.match(line)
            check(found, f"{path}: {line}")
            buffers.add(int(found[3]))
            if found[1] == "in":
                check(found[5] == found[6], f"{path}: its memory is another after the resume: {line}")
                resumes += 1
    check(not world or len(paths) in (0, world), f"digests at cuts of {len(paths)} ranks of {world}")
    return resumes, max(buffers, default=0)


# ---- the usual order of things ----

def undisturbed(f, example, name, seconds=240, extra=""):
    prefix = f.top / f"{name}.truth."
    job = f.submit(example.spec(prefix, mode="none", extra=extra))
    f.wait_phase(job, "done", seconds=seconds)
    return result(f, job), read_digests(prefix)


def started(f, example, name, **spec):
    prefix = f.top / f"{name}.{time.monotonic_ns()}."
    job = f.submit(example.spec(prefix, **spec))
    f.wait_phase(job, "running")
    wait_for(f"{name} has taken a step", lambda: list(f.top.glob(f"{prefix.name}*")), 60)
    return job, prefix


def finished(f, job, prefix, truth, once=True, has_cuts=True):
    detail = f.wait_phase(job, "done", seconds=240)
    check_blameless(f, detail)
    check(result(f, job) == truth[0], f"digest {result(f, job)} is not {truth[0]}")
    check_same(truth[1], read_digests(prefix), once)
    check(not has_cuts or check_cuts(prefix)[0] > 0, "no resume was compared")
    return detail


def can_image(f):
    def known():
        return re.search(r"^.*images .*(work on|cannot).*$", f.cli("doctor", timeout=60).out, re.M)
    line = wait_for("the machine has tried to make an image", known, 60).group(0)
    if "cannot" in line:
        print(f"     (skipped: {line.strip()})", flush=True)
    return "cannot" not in line
