# SPDX-License-Identifier: Apache-2.0
"""Jobs stopped at any moment end as if nothing had been: the same digest of every buffer at every step, no step twice.

STOPS=50 (default 3) says how many orders each example gets in its run, STOPS_SEED which, STOPS_STEPS how many steps it takes for
each.  STOPS_VERBOSE=1 tells of each order.
"""
import json
import os
import random
import re
import subprocess
import time

from fleet import WORKLOADS, Fleet, check, main, shell, wait_for
from stops import RETRIES, check_blameless, check_cuts, check_same, examples, read_digests, result, set_backs

STOPS = int(os.environ.get("STOPS", "3"))
STEPS = int(os.environ.get("STOPS_STEPS", "120"))
JOBS_MAX = 20
SEED = int(os.environ.get("STOPS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
FAST = dict(heartbeat=100, suspect=1500, lease=6000)  # on a busy machine a host may be away for a second or two


def undisturbed(f, example, name, seconds=240):
    prefix = f.top / f"{name}.truth."
    job = f.submit(example.spec(prefix, mode="none"))
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
    check_blameless(detail)
    check(result(f, job) == truth[0], f"digest {result(f, job)} is not {truth[0]}")
    check_same(truth[1], read_digests(prefix), once)
    check(not has_cuts or check_cuts(prefix)[0] > 0, "no resume was compared")
    return detail


def level(f, job):
    return f.show(job).get("level", "")


def can_image(f):
    def known():
        return re.search(r"^.*images .*(work on|cannot).*$", f.cli("doctor", timeout=60).out, re.M)
    line = wait_for("the machine has tried to make an image", known, 60).group(0)
    if "cannot" in line:
        print(f"     (skipped: {line.strip()})", flush=True)
    return "cannot" not in line


def suspended_job_frees_its_devices_and_goes_on_where_it_was():
    digits = examples(500)[0]
    with Fleet(nodes=2, gpus=2, **FAST) as f:
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        generation = f.show(job)["row"]["generation"]
        for _ in range(3):
            f.cli("suspend", job, expect=0)
            check(f.phase(job) == "suspended", f.cli("show", job).out)
            guest = f.submit(shell("exit 0", "gpus: 4\n"))  # takes every device
            f.wait_phase(guest, "done")
            f.cli("resume", job, expect=0)
            f.wait_phase(job, "running", "done")
        detail = finished(f, job, prefix, truth)
        check(detail["restarts"] == 0 and detail["row"]["generation"] == generation, json.dumps(detail["row"]))


def suspended_at_any_moment_of_its_start():
    """Its libraries come up one after another, and communicators are being made."""
    rng = random.Random(SEED)
    digits = examples(100000)[0]
    with Fleet(nodes=2, gpus=2, **FAST) as f:
        for mode in ("inplace", "auto"):
            for i in range(STOPS):
                job = f.submit(digits.spec(f.top / f"{mode}.{i}.", mode=mode))
                f.wait_phase(job, "running")
                moment = rng.uniform(0, 1)
                time.sleep(moment)  # the moment is what is random here
                done = f.cli("suspend", job)
                check(done.code == 0, f"{mode}, {moment:.3f} s after its start: {done.out} {done.err}")
                f.cli("resume", job, expect=0)
                wait_for("it takes steps", lambda: list(f.top.glob(f"{mode}.{i}.*")), 60)
                f.cli("cancel", job, expect=0)
                f.wait_phase(job, "cancelled")


def resume_waits_for_devices_that_somebody_else_has():
    digits = examples(500)[0]
    with Fleet(nodes=1, gpus=4, **FAST) as f:
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        f.cli("suspend", job, expect=0)
        guest = f.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 2\n"))
        f.wait_phase(guest, "running")
        f.cli("resume", "--no-wait", job, expect=0)
        check(f.phase(job) == "suspended", "resumed without devices")
        (f.top / "go").touch()
        f.wait_phase(guest, "done")
        finished(f, job, prefix, truth)


def resumed_on_other_devices_it_goes_on():
    """Each rank sees two devices, and both become others."""
    digits = examples(500)[0]
    digits.gpus = 2
    with Fleet(nodes=1, gpus=4, **FAST) as f:
        truth = undisturbed(f, digits, "digits")
        for mode in ("inplace", "auto"):
            job, prefix = started(f, digits, "digits", mode=mode)
            before = [r["device"] for r in f.show(job)["ranks"]]
            f.cli("suspend", job, expect=0)
            guest = f.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 2\n"))
            f.wait_phase(guest, "running")
            f.cli("resume", job, expect=0)
            after = [r["device"] for r in f.show(job)["ranks"]]
            check(set(before).isdisjoint(after), f"{before} became {after}")
            detail = finished(f, job, prefix, truth)
            check(detail["row"]["generation"] == 1, json.dumps(detail["row"]))
            (f.top / "go").touch()
            f.wait_phase(guest, "done")
            (f.top / "go").unlink()


def suspended_job_can_be_cancelled_and_outlives_every_host():
    outlives_every_host("auto")


def job_suspended_in_place_outlives_every_host():
    outlives_every_host("inplace")


def outlives_every_host(mode):
    digits = examples(500)[0]
    with Fleet(nodes=2, gpus=2, **FAST) as f:
        if mode == "auto" and can_image(f):  # then its device memory is all that it has given away
            print("     (level image)", flush=True)
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits", mode=mode)
        for _ in range(2):
            f.cli("suspend", job, expect=0)
            for host in ("c1", "n1", "r1"):  # no cluster is left that could give up the node before it dies itself
                f.kill_host(host)
            f.restart()
            check(f.wait_phase(job, "suspended")["row"]["gpus"] == 0, "holds devices")
            f.cli("resume", job, expect=0)
            f.wait_phase(job, "running")
        finished(f, job, prefix, truth)
        job, _ = started(f, examples(100000)[0], "long", mode=mode)
        f.cli("suspend", job, expect=0)
        f.kill_host("n1")
        f.restart()
        f.cli("cancel", job, expect=0)
        f.wait_phase(job, "cancelled")
        wait_for("no rank is left", lambda: not f.ranks("n1") and not f.ranks("n2"))


def checkpoint_outlives_its_node():
    digits = examples(500)[0]
    with Fleet(nodes=3, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        row = f.cli("checkpoint", job, "-o", "json", expect=0).json()
        check(row["number"] == 1 and row["bytes"] > 0, json.dumps(row))
        f.cli("checkpoint", "verify", job, expect=0)
        f.kill_node(f.show(job)["ranks"][0]["node"])
        detail = finished(f, job, prefix, truth, once=False)
        check(detail["row"]["generation"] == 2, json.dumps(detail["row"]))


def running_job_is_saved_again_and_again():
    """It goes on at once, while the store still reads what was on its devices."""
    digits = examples(400)[0]
    with Fleet(nodes=2, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        for n in range(1, 6):
            row = f.cli("checkpoint", job, "-o", "json", expect=0).json()
            check(row["number"] == n and row["bytes"] > 0, json.dumps(row))
            f.cli("checkpoint", "verify", job, expect=0)
        finished(f, job, prefix, truth)


def migrated_job_repeats_no_step():
    digits = examples(500)[0]
    with Fleet(clusters=2, nodes=2, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        home = f.show(job)["row"]["cluster"]
        away = "c2" if home == "c1" else "c1"
        f.cli("migrate", job, "--to", f"cluster:{away}", expect=0, timeout=90)
        check(f.wait_phase(job, "running", "done")["row"]["cluster"] == away, "it stayed")
        f.cli("migrate", job, "--to", f"cluster:{home}", expect=0, timeout=90)
        finished(f, job, prefix, truth)


def unique_id_made_before_a_migration_is_good_after_it():
    """Its root's thread and socket live in rank 0, and move with it."""
    with Fleet(clusters=2, nodes=2, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        words = [str(WORKLOADS / "bin/hang_rank"), "late", "0", str(f.top / "made"), str(f.top / "go")]
        job = f.submit(f"name: late\ncommand: {json.dumps(words)}\nworld: 2\ngpus: {{min: 2, max: 2}}\n")
        f.wait_phase(job, "running")
        wait_for("the id is made", (f.top / "made").exists, 60)
        for _ in range(2):
            away = "c2" if f.show(job)["row"]["cluster"] == "c1" else "c1"
            f.cli("migrate", job, "--to", f"cluster:{away}", expect=0, timeout=90)
        (f.top / "go").touch()
        f.wait_phase(job, "done")


class Disturber:
    """Gives a job random orders, and kills hosts and nodes; says what must not be noticed and what may set it back."""

    KINDS = ["suspend", "suspend", "resize", "checkpoint", "migrate", "away", "kill node", "kill host", "kill host in"]

    def __init__(self, f, rng, job, prefix, devices=0):
        self.f, self.rng, self.job, self.prefix, self.devices = f, rng, job, prefix, devices
        self.kinds = [k for k in self.KINDS if k != "resize" or devices]
        self.may_set_back, self.given, self.failed = 0, {}, []

    def order(self, *words, must=True):
        done = self.f.cli(words[0], self.job, *words[1:], timeout=120)
        if done.code != 0:
            self.failed.append(f"{' '.join(words)}: {done.err.strip()}")
            check(not must or self.f.phase(self.job) == "done", f"{done}{json.dumps(self.f.show(self.job))[:1500]}")
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
            return ["resize", str(self.rng.randint(1, self.devices))]
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
        if self.rng.random() < 0.5:
            self.order("checkpoint")
        nodes = self.nodes()
        if not nodes:
            return "none: it is over"
        node, before = self.rng.choice(nodes), self.f.show(self.job)["restarts"]
        self.f.kill_node(node)
        self.may_set_back += 1
        self.f.restart()
        wait_for("its death is noticed", lambda: self.f.show(self.job)["restarts"] > before or self.f.phase(self.job) == "done", 60)
        return node

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

    def one(self, n):
        kind, began, text = self.rng.choice(self.kinds), time.monotonic(), ""
        if kind == "suspend":
            if self.order("suspend"):
                self.order("resume")
        elif kind == "kill node":
            text = self.kill_node()
        elif kind == "kill host":
            text = self.kill_host()
        elif kind == "kill host in":
            orders = ["suspend", "checkpoint", "migrate", "away"] + ["resize"] * bool(self.devices)
            text = self.kill_host(*self.words(self.rng.choice(orders)))
        else:
            words = self.words(kind)
            text = words[-1]
            self.order(*words)
        self.settle()
        self.given[kind] = self.given.get(kind, 0) + 1
        if os.environ.get("STOPS_VERBOSE"):
            detail = self.f.show(self.job)
            print(f"     {n}: {kind} {text} ({time.monotonic() - began:.1f} s) generation {detail['row']['generation']} restarts "
                  f"{detail['restarts']} step {self.steps()}", flush=True)

    def steps(self):
        paths = list(self.f.top.glob(f"{self.prefix.name}*"))
        lines = [p.read_text().splitlines()[-1:] for p in paths]
        return max((int(l[0].split()[0].split("=")[1]) for l in lines if l), default=0)


def compare(f, example, d, truth):
    """A disturbed job that is done with one that was left alone.  What to say of it."""
    job, prefix, patience = d.job, d.prefix, 240 + 15 * STOPS
    reached = d.steps()
    detail = f.wait_phase(job, "done", seconds=patience)
    check_blameless(detail)
    truth = truth or undisturbed(f, example, example.name, seconds=patience)
    check(result(f, job) == truth[0], f"digest {result(f, job)} is not {truth[0]}")
    check_same(truth[1], read_digests(prefix), once=False)
    back = set_backs(prefix, example.every)
    most = max((len(b) for b in back.values()), default=0)
    check(most <= min(d.may_set_back, detail["restarts"]),
          f"set back {most} times, by {detail['restarts']} restarts and {d.may_set_back} kills: {back}")
    resumes, buffers = check_cuts(prefix, example.world)
    print(f"     {job}: {sum(d.given.values())} orders until step {reached} of {example.steps}: {d.given}, generation "
          f"{detail['row']['generation']}, {detail['restarts']} restarts, {most} set-backs, {resumes} resumes of up to {buffers} "
          f"buffers alike, {sum(len(v) for v in truth[1].values())} lines alike; failed: {d.failed}", flush=True)
    return truth


def disturbed(index):
    """Any order, at any moment, and kill -9 between and in them.  A job that is over too early is followed by another one."""
    rng, truth, given, jobs = random.Random(SEED), None, 0, 0
    example = examples(50 + STEPS * STOPS * (2 if index == 3 else 1))[index]  # tcp's steps are short
    example.least, example.shards = min(1, example.gpus), min(1, example.gpus)  # any number: any ranks share a device
    with Fleet(clusters=2, nodes=3, gpus=4, **dict(FAST, suspect=2000, lease=10000)) as f:
        if not can_image(f):
            return
        while given < STOPS and jobs < JOBS_MAX:
            d = Disturber(f, rng, *started(f, example, example.name,
                                           extra=RETRIES),
                          devices=example.gpus)
            jobs += 1
            while given < STOPS and f.phase(d.job) != "done":
                d.one(given)
                given += 1
                time.sleep(rng.uniform(0, 0.8))  # the moment is what is random here
            truth = compare(f, example, d, truth)
        lost = [l for l in f.cli("events", expect=0).out.splitlines() if "could not be resumed" in l or "not restored" in l]
        check(not lost, f"a resume failed: {lost}")
        check(given == STOPS, f"{given} of {STOPS} orders in {jobs} jobs: raise STOPS_STEPS")


def digits_stopped_at_random_moments():
    disturbed(0)


def mlp_stopped_at_random_moments():
    disturbed(1)


def pipeline_stopped_at_random_moments():
    disturbed(2)


def tcp_stopped_at_random_moments():
    disturbed(3)


def adam_stopped_at_random_moments():
    disturbed(4)


if __name__ == "__main__":
    print(f"STOPS_SEED={SEED} STOPS={STOPS}", flush=True)
    main(suspended_job_frees_its_devices_and_goes_on_where_it_was,
         resume_waits_for_devices_that_somebody_else_has,
         resumed_on_other_devices_it_goes_on,
         suspended_job_can_be_cancelled_and_outlives_every_host,
         job_suspended_in_place_outlives_every_host,
         checkpoint_outlives_its_node,
         running_job_is_saved_again_and_again,
         migrated_job_repeats_no_step,
         unique_id_made_before_a_migration_is_good_after_it,
         digits_stopped_at_random_moments,
         mlp_stopped_at_random_moments,
         pipeline_stopped_at_random_moments,
         tcp_stopped_at_random_moments,
         soak=[suspended_at_any_moment_of_its_start, adam_stopped_at_random_moments])
