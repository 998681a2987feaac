# SPDX-License-Identifier: Apache-2.0
"""Many short jobs, each with a few random orders and losses of nodes: each ends with the bits of one that was left alone on all devices.

SEQUENCES=100 (default 1) says how many sequences each example gets, SEQUENCES_SEED the number of the first one; the next ones follow.
A sequence that fails is told with its number and what was done: SEQUENCES=1 SEQUENCES_SEED=NUMBER and the name of the case repeat its
orders, alone.  SEQUENCES_LENGTH=0.3 (1) makes the jobs shorter, for a busy machine, on which they take few steps meanwhile.
SEQUENCES_AT_ONCE (2) examples are disturbed at a time, each in a fleet of its own: whom a lost node hurts is known.
"""
import os
import random
import time

from disturber import Disturber, compare
from fleet import Fleet, check, main, wait_for
from stops import RETRIES, can_image, examples, started, undisturbed

SEQUENCES = int(os.environ.get("SEQUENCES", "1"))
SEED = int(os.environ.get("SEQUENCES_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
AT_ONCE = int(os.environ.get("SEQUENCES_AT_ONCE", "2"))
LENGTH = float(os.environ.get("SEQUENCES_LENGTH", "1"))
STEPS = {name: round(n * LENGTH) for name, n in (("digits", 700), ("mlp", 500), ("pipeline", 300), ("adam", 500))}  # each about as long
SHARDS = {"digits": 1, "mlp": 2, "pipeline": 4, "adam": 1}  # what their communicators show
DEVICES = 8
SHAPE = dict(clusters=2, nodes=3, gpus=4, heartbeat=250, suspect=2000, lease=10000)  # what restarts it is the loss, not a slow machine
PER_FLEET = 10  # then a new one: the old one's stores are full of jobs that are over
FAILED_MAX = 5
ORDERED = "reduce: ordered\n"


def example_of(name):
    example = next(e for e in examples(STEPS[name]) if e.name == name)
    example.gpus = DEVICES
    return example


class Sequence(Disturber):
    """Three to six orders to a job of 8 ranks, each at a random step of it, or as soon as the one before is done."""

    KINDS = ["resize"] * 3 + ["suspend", "migrate", "away", "kill node", "kill host"]

    def __init__(self, f, name, seed):
        self.name, rng, example = f"{name} SEQUENCES_SEED={seed}", random.Random(f"{name} {seed}"), example_of(name)
        self.is_seen = rng.random() < 0.5  # who are replicas; else the spec says that all are
        example.least, example.shards = (SHARDS[name], 0) if self.is_seen else (1, 1)
        spread = rng.choice(["pack", "spread"])
        n_orders = rng.randint(3, 6)
        self.gaps = [rng.choice([0, 1, 1]) * rng.uniform(0, STEPS[name] / n_orders) for _ in range(n_orders)]
        extra = f"{RETRIES}{ORDERED}placement: {{spread: {spread}}}\n"
        super().__init__(f, rng, example, *started(f, example, name, extra=extra))
        self.told = [f"shards: {example.shards}, {spread}"]

    def order(self, *words, must=True):
        """Until each communicator of a program has been used, nobody can say who are replicas: then only a resize is refused."""
        may_be_refused = self.is_seen and words[0] == "resize"
        is_done = super().order(*words, must=must and not may_be_refused)
        is_over = self.steps() >= self.example.steps
        check(is_done or not may_be_refused or is_over or "taken for replicas" in self.failed[-1], str(self.failed[-1:]))
        return is_done

    def words(self, kind):
        if kind != "resize":
            return super().words(kind)
        now = self.f.show(self.job)["row"]["gpus"]
        return ["resize", str(self.rng.choice([n for n in range(self.example.least, DEVICES + 1) if n != now]))]

    def one(self, n):
        """What is drawn for an order does not depend on how those before went."""
        self.rng = random.Random(f"{self.name} {n}")
        due = min(self.steps() + self.gaps[n], self.example.steps)
        wait_for(f"step {due:.0f}", lambda: self.steps() >= due, 120, late=0.1)
        time.sleep(self.rng.uniform(0, 0.05) * bool(self.gaps[n]))  # the moment within the step is what is random here
        super().one(n)

    def run(self, truth):
        for n in range(len(self.gaps)):
            if self.f.phase(self.job) != "done":
                self.one(n)
        check(self.given, "it was over before the first order")
        text = compare(self.f, self, truth, 240)
        restarts = self.f.show(self.job)["restarts"]
        check(self.may_set_back or not restarts, f"{restarts} restarts of a job that has lost no node")
        lost = [l for l in self.f.cli("events", self.job, expect=0).out.splitlines() if "could not be resumed" in l or "not restored" in l]
        check(not lost, f"a resume failed: {lost}")
        return text


def disturb(f, name, seed, truth):
    s = None
    try:
        s = Sequence(f, name, seed)
        print(f"     {s.name} {s.run(truth)}", flush=True)
    except Exception as e:
        told = "\n       ".join(s.told) if s else "not started"
        raise AssertionError(f"{name} SEQUENCES_SEED={seed}: {e}\n       {told}") from e


def sequences_of(name):
    seeds, failed, truth = list(range(SEED, SEED + SEQUENCES)), [], None
    while seeds and len(failed) < FAILED_MAX:
        try:
            with Fleet(**SHAPE) as f:
                if not can_image(f):
                    return
                truth = truth or undisturbed(f, example_of(name), name, extra=ORDERED)
                for _ in range(min(PER_FLEET, len(seeds))):
                    disturb(f, name, seeds.pop(0), truth)
        except Exception as e:  # in a new fleet, those that are left
            failed.append(str(e))
            print(f"     failed: {e}", flush=True)
    done = SEQUENCES - len(seeds)
    print(f"     {name}: {done - len(failed)} of {done} sequences from {SEED} on", flush=True)
    check(not failed, "\n".join(failed))


def digits_has_the_same_bits_after_random_sequences():
    sequences_of("digits")


def mlp_has_the_same_bits_after_random_sequences():
    sequences_of("mlp")


def pipeline_has_the_same_bits_after_random_sequences():
    sequences_of("pipeline")


def adam_has_the_same_bits_after_random_sequences():
    sequences_of("adam")


if __name__ == "__main__":
    print(f"SEQUENCES_SEED={SEED} SEQUENCES={SEQUENCES}", flush=True)
    main(mlp_has_the_same_bits_after_random_sequences,
         pipeline_has_the_same_bits_after_random_sequences,
         adam_has_the_same_bits_after_random_sequences,
         soak=[digits_has_the_same_bits_after_random_sequences],  # make test: test_stops.py
         at_once=AT_ONCE)
