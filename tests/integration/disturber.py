# SPDX-License-Identifier: Apache-2.0
"""disturber.py - random orders to a job and kill -9 between and in them; what a job that had them must have in common with one that had not.

For test_stops.py (many orders, one job) and test_sequences.py (a few orders each, many jobs).
"""
import json
import os
import subprocess
import time

from fleet import check, wait_for
from stops import check_blameless, check_cuts, check_same, read_digests, result, set_backs

LINE_MAX = 8192  # DIGESTS_LINE_MAX of examples/common/digests.h


class Disturber:
    """Gives a job random orders, and kills hosts and nodes; says what must not be noticed and what may set it back."""

    KINDS = ["suspend", "suspend", "resize", "checkpoint", "migrate", "away", "kill node", "kill host", "kill host in"]

    def __init__(self, f, rng, example, job, prefix):
        self.f, self.rng, self.example, self.job, self.prefix = f, rng, example, job, prefix
        self.kinds = [k for k in self.KINDS if k != "resize" or example.gpus]
        self.may_set_back, self.given, self.failed, self.told = 0, {}, [], []

    def order(self, *words, must=True):
        """One that comes when the job has taken its last step may be refused: a rank may have ended."""
        done = self.f.cli(words[0], self.job, *words[1:], timeout=120)
        if done.code != 0:
            self.failed.append(f"{' '.join(words)}: {done.err.strip()}")
            is_over = self.steps() >= self.example.steps or self.f.phase(self.job) == "done"
            check(not must or is_over, f"{done}{json.dumps(self.f.show(self.job))[:1500]}")
        return done.code == 0

    def nodes(self):
        return sorted({r["node"] for r in self.f.show(self.job)["ranks"]})

    def elsewhere(self):
        row = self.f.show(self.job)["row"]
        free = sorted({n["node"] for n in self.f.cli("tree", "-o", "json", expect=0).json()["nodes"]} - set(self.nodes()))
        other = "c2" if row["cluster"] == "c1" else "c1"
        return f"node:{self.rng.choice(free)}" if free else f"cluster:{other}"

    def words(self, kind):
        if kind == "migrate":
            return ["migrate", "--to", self.elsewhere()]
        if kind == "away":
            other = "c2" if self.f.show(self.job)["row"]["cluster"] == "c1" else "c1"
            return ["migrate", "--to", f"cluster:{other}"]
        if kind == "resize":
            return ["resize", str(self.rng.randint(1, self.example.gpus))]
        return [kind]

    def some_host(self):
        row = self.f.show(self.job)["row"]
        return self.rng.choice([*self.nodes(), row["cluster"], "r1"])

    def settle(self):
        """It runs, or has ended."""
        phase = self.f.wait_phase(self.job, "running", "suspended", "done", seconds=120)["row"]["phase"]
        if phase == "suspended":
            self.order("resume")
            self.f.wait_phase(self.job, "running", "done", seconds=120)

    def kill_node(self):
        """It comes back at once, or when the job has long been given up there."""
        if self.rng.random() < 0.5:
            self.order("checkpoint")
        is_late, nodes = self.rng.random() < 0.3, self.nodes()
        if not nodes:
            return "none: it is over"
        node, before = self.rng.choice(nodes), self.f.show(self.job)["restarts"]
        self.f.kill_node(node)
        self.may_set_back += 1
        if not is_late:
            self.f.restart()
        wait_for(f"the death of {node} is noticed", lambda: self.f.show(self.job)["restarts"] > before or self.f.phase(self.job) == "done", 60, late=0.1)
        if is_late:
            self.f.restart()
        return f"{node}{' for long' * is_late}"

    def kill_host(self, *words):
        """Between orders nothing may be noticed; in one, CRIU may die with its host and hurt a rank."""
        host = self.some_host()
        running = self.f.start_cli(words[0], self.job, *words[1:]) if words else None
        if running:
            self.may_set_back += 1
            time.sleep(self.rng.uniform(0, self.rng.choice([0.3, 2])))  # the moment is what is random here
        self.f.kill_host(host)
        self.f.restart()
        if running:
            try:
                running.wait(timeout=120)
            except subprocess.TimeoutExpired:
                running.kill()
        return f"{host} {' '.join(words)}"

    def give(self, kind):
        """What to say of it besides."""
        if kind == "suspend":
            if self.order("suspend"):
                self.order("resume")
            return ""
        if kind == "kill node":
            return self.kill_node()
        if kind == "kill host":
            return self.kill_host()
        if kind == "kill host in":
            orders = ["suspend", "checkpoint", "migrate", "away"] + ["resize"] * bool(self.example.gpus)
            return self.kill_host(*self.words(self.rng.choice(orders)))
        words = self.words(kind)
        self.order(*words)
        return words[-1]

    def one(self, n):
        kind, began = self.rng.choice(self.kinds), time.monotonic()
        self.told.append(f"{n}: at step {self.steps()} {kind}")
        text = self.give(kind)
        self.settle()
        self.given[kind] = self.given.get(kind, 0) + 1
        detail = self.f.show(self.job)
        self.told[-1] += (f" {text} ({time.monotonic() - began:.1f} s): {detail['row']['gpus']} devices, generation "
                          f"{detail['row']['generation']}, {detail['restarts']} restarts, step {self.steps()}")
        if os.environ.get("STOPS_VERBOSE"):
            print(f"     {self.told[-1]}", flush=True)

    def steps(self):
        return max(map(last_step, self.f.top.glob(f"{self.prefix.name}*")), default=0)


def last_step(path):
    """Of a rank's file of digests, whose lines have up to LINE_MAX characters."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LINE_MAX))
        lines = file.read().splitlines()
    return int(lines[-1].split(maxsplit=1)[0].split(b"=")[1]) if lines else 0


def compare(f, d, truth, patience):
    """A disturbed job with one that was left alone.  What to say of it."""
    reached, example = d.steps(), d.example
    detail = f.wait_phase(d.job, "done", seconds=patience)
    check_blameless(f, detail)
    check(result(f, d.job) == truth[0], f"digest {result(f, d.job)} is not {truth[0]}")
    check_same(truth[1], read_digests(d.prefix), once=False)
    back = set_backs(d.prefix, example.every)
    most = max((len(b) for b in back.values()), default=0)
    check(most <= min(d.may_set_back, detail["restarts"]),
          f"set back {most} times, by {detail['restarts']} restarts and {d.may_set_back} kills: {back}")
    resumes, buffers = check_cuts(d.prefix, example.world)
    return (f"{d.job}: {sum(d.given.values())} orders until step {reached} of {example.steps}: {d.given}, generation "
            f"{detail['row']['generation']}, {detail['restarts']} restarts, {most} set-backs, {resumes} resumes of up to {buffers} "
            f"buffers alike, {sum(len(v) for v in truth[1].values())} lines alike; failed: {d.failed}")
