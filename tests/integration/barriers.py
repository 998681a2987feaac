# SPDX-License-Identifier: Apache-2.0
"""barriers.py - one barrier after another at random moments of a job, for test_barriers.py and bench/bench_barrier.py.

A barrier is reached by suspending the job where it is, and left by resuming it.  What it took is measured in the job's actor,
from the first `begin` to the cut, and read from `show`: barrier_begin is the way of one message to all ranks and back (through
their nodes and libraries), barrier_targets the rest.  Ends of orders are read from the events as they happen.
"""
import json
import queue
import threading
import time

from fleet import SLOW, check


class Orders:
    """Orders to one job, followed in its events."""

    def __init__(self, f, job):
        self.f, self.job, self.ends = f, job, queue.Queue()
        self.child = f.start_cli("events", job, "-f", "-o", "jsonl")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            event = json.loads(line)
            if event.get("type") == "job.order" and event["to"] in ("done", "failed"):
                self.ends.put(event)

    def close(self):
        self.child.kill()

    def give(self, verb, kind, timeout=120):
        """Tell it, and wait for what comes of it: its event."""
        self.f.cli(verb, self.job, "--no-wait", expect=0)
        deadline = time.monotonic() + timeout * SLOW
        while True:
            event = self.ends.get(timeout=max(0.1, deadline - time.monotonic()))
            if event["cause"].split()[0] == kind:
                return event


def steps_of(detail):
    return {step["cut_step"]: step for step in detail["stop"]}


def barrier(f, orders):
    """Stop it, let it go on; its steps, by name."""
    event = orders.give("suspend", "suspend")
    check(event["to"] == "done", f"the barrier failed: {event['cause']}")
    event = orders.give("resume", "resume")
    check(event["to"] == "done", f"the resume failed: {event['cause']}")
    steps = steps_of(f.show(orders.job))
    check(steps["barrier_targets"]["took_us"] > 0 and steps["resume"]["took_us"] > 0, json.dumps(steps))
    return steps


def cut_us(steps):
    return steps["barrier_begin"]["took_us"] + steps["barrier_targets"]["took_us"]


def steps_are_whole(prefix):
    """Every rank has written each step once, in order, whatever was done to it; the least number of steps."""
    least = None
    for path in prefix.parent.glob(f"{prefix.name}*"):
        lines = path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # being written
            lines.pop()
        for n, line in enumerate(lines, 1):
            check(line.startswith(f"step={n} "), f"{path.name}: line {n} is {line[:40]}")
        least = len(lines) if least is None else min(least, len(lines))
    check(least, f"no digests at {prefix}*")
    return least
