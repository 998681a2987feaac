# SPDX-License-Identifier: Apache-2.0
"""Jobs stopped at any moment end as if nothing had been: the same digest of every buffer at every step, no step twice.

STOPS=50 (default 3) says how many orders each example gets in its run, STOPS_SEED which, STOPS_STEPS how many steps it takes for
each.  STOPS_VERBOSE=1 tells of each order.
"""
import json
import os
import random
import time

from disturber import Disturber, compare
from fleet import WORKLOADS, Fleet, check, main, shell, wait_for
from stops import FAST, RETRIES, can_image, examples, finished, started, undisturbed

STOPS = int(os.environ.get("STOPS", "3"))
STEPS = int(os.environ.get("STOPS_STEPS", "120"))
JOBS_MAX = 20
SEED = int(os.environ.get("STOPS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


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


def disturbed(index):
    """Any order, at any moment, and kill -9 between and in them.  A job that is over too early is followed by another one."""
    rng, given, jobs, patience = random.Random(SEED), 0, 0, 240 + 15 * STOPS
    example = examples(50 + STEPS * STOPS * (2 if index == 3 else 1))[index]  # tcp's steps are short
    example.least, example.shards = min(1, example.gpus), min(1, example.gpus)  # any number: any ranks share a device
    with Fleet(clusters=2, nodes=3, gpus=4, **dict(FAST, suspect=2000, lease=10000)) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, example, example.name, seconds=patience)
        while given < STOPS and jobs < JOBS_MAX:
            d = Disturber(f, rng, example, *started(f, example, example.name, extra=RETRIES))
            jobs += 1
            while given < STOPS and f.phase(d.job) != "done":
                d.one(given)
                given += 1
                time.sleep(rng.uniform(0, 0.8))  # the moment is what is random here
            print(f"     {compare(f, d, truth, patience)}", flush=True)
        lost = [l for l in f.cli("events", expect=0).out.splitlines() if "could not be resumed" in l or "not restored" in l]
        check(not lost, f"a resume failed: {lost}")
        check(given == STOPS, f"{given} of {STOPS} orders in {jobs} jobs: raise STOPS_STEPS")


def rank_that_has_left_bars_no_resume():
    """It has given up its communicators and its device, and ends while the others, which have theirs still, are at their resume."""
    with Fleet(nodes=1, gpus=2, **FAST) as f:
        for rank in (0, 3):
            files = [f.top / f"{name}.{time.monotonic_ns()}" for name in ("made", "go", "all")]
            words = [str(WORKLOADS / "bin/hang_rank"), "leaves", str(rank), *map(str, files)]
            job = f.submit(f"name: leaves\ncommand: {json.dumps(words)}\nworld: 4\ngpus: {{min: 1, max: 2}}\n")
            f.wait_phase(job, "running")
            wait_for("the rank has left", files[0].exists, 60)
            f.cli("suspend", job, expect=0)
            f.cli("resume", job, expect=0)
            f.cli("suspend", job, expect=0)
            files[1].touch()
            began = time.monotonic()
            f.cli("resume", job, expect=0)
            print(f"     rank {rank}: {time.monotonic() - began:.1f} s", flush=True)
            files[2].touch()
            f.wait_phase(job, "done")


def rank_whose_program_is_over_bars_no_resume():
    """Its process lives on, as that of a script does which cleans up; of its communicators nobody speaks any more."""
    with Fleet(nodes=1, gpus=2, **FAST) as f:
        for rank in (0, 3):
            made, go, over, end, last = (f.top / f"{name}.{time.monotonic_ns()}" for name in ("made", "go", "over", "end", "last"))
            script = f'"$0" "$@"; code=$?; [ $RANK != {rank} ] || {{ touch {over}; while [ ! -e {end} ]; do sleep 0.05; done; }}; exit $code'
            words = ["/bin/sh", "-c", script, str(WORKLOADS / "bin/hang_rank"), "leaves", str(rank), str(made), str(go), str(last)]
            go.touch()
            job = f.submit(f"name: over\ncommand: {json.dumps(words)}\nworld: 4\ngpus: {{min: 1, max: 2}}\n")
            wait_for("the rank's program is over", over.exists, 60)
            f.cli("suspend", job, expect=0)
            f.cli("resume", job, expect=0)
            last.touch()
            end.touch()
            check(f.wait_phase(job, "done")["restarts"] == 0, "it was started anew")


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
         rank_that_has_left_bars_no_resume,
         rank_whose_program_is_over_bars_no_resume,
         digits_stopped_at_random_moments,
         tcp_stopped_at_random_moments,
         soak=[suspended_at_any_moment_of_its_start, mlp_stopped_at_random_moments, pipeline_stopped_at_random_moments,
               adam_stopped_at_random_moments])  # make test: test_sequences.py
