# SPDX-License-Identifier: Apache-2.0
"""A job's life through the CLI: submit, run, wait, show, logs, events, cancel, queueing, exit codes."""
import json

from fleet import Fleet, check, main, shell, wait_for


def trivial_job_runs_and_its_output_and_exit_code_arrive():
    with Fleet(nodes=1, gpus=1) as f:
        done = f.cli("run", "--gpus", "0", "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
        check(done.code == 7, str(done))
        check("out" in done.out, str(done))
        done = f.cli("run", "--gpus", "1", "--", "/bin/sh", "-c", "echo $RANK/$WORLD_SIZE $CUDA_VISIBLE_DEVICES", expect=0)
        check("0/1 GPU-" in done.out, str(done))


def show_names_the_culprit_its_exit_and_its_last_words():
    with Fleet(nodes=2, gpus=2) as f:
        job = f.submit(shell("if [ $RANK = 2 ]; then echo the bearing is broken >&2; exit 3; fi; sleep 60", "world: 4\ngpus: 4\n"))
        detail = f.wait_phase(job, "failed")
        check(detail["culprit"] == 2 and detail["row"]["exit_code"] == 3, json.dumps(detail))
        check("the bearing is broken" in detail["stderr_tail"], json.dumps(detail))
        check("exit code 3" in f.cli("show", job).out, "show says how it ended")
        check(f.cli("wait", job).code == 3, "wait: the exit code of the failed job")
        check(not f.ranks("n1") and not f.ranks("n2"), "the other ranks were stopped")


def show_tells_whose_fault_each_restart_was():
    with Fleet(nodes=1, gpus=1) as f:
        job = f.submit(shell("exit 3", "gpus: 1\nretries: {user: 2, backoff: 100ms..200ms}\n"))
        detail = f.wait_phase(job, "failed")
        check(detail["restarts"] == 2 and detail["user_restarts"] == 2, json.dumps(detail))
        check("restarts 2 (user 2 of 2, infra 0)" in f.cli("show", job).out, f.cli("show", job).out)


def job_that_does_not_fit_waits_and_says_for_what():
    with Fleet(nodes=1, gpus=2) as f:
        first = f.submit(shell("sleep 60", "gpus: 2\n"))
        f.wait_phase(first, "running")
        second = f.submit(shell("echo second", "gpus: 1\n"))
        detail = wait_for("a reason", lambda: (lambda d: d if d["row"]["reason"] else None)(f.show(second)))
        check(detail["row"]["phase"] == "queued" and "device" in detail["row"]["reason"], json.dumps(detail["row"]))
        f.cli("cancel", first, expect=0)
        f.wait_phase(first, "cancelled")
        f.wait_phase(second, "done")
        check(f.log(second) == "second\n", "log of the second job")


def cancel_of_a_stubborn_job_kills_it():
    with Fleet(nodes=1, gpus=1) as f:
        job = f.submit(shell("trap '' TERM; echo ready; while :; do sleep 1; done", "gpus: 1\n"))
        f.wait_phase(job, "running")
        wait_for("the trap is set", lambda: "ready" in f.log(job))
        f.cli("cancel", job, expect=0)
        f.wait_phase(job, "cancelled")
        wait_for("no rank lives", lambda: not f.ranks("n1"))
        check(f.cli("cancel", "r1-nope").code == 4, "no such job: exit 4")


def same_key_is_the_same_job():
    with Fleet(nodes=1, gpus=1) as f:
        (f.top / "j.yaml").write_text(shell("true"))
        ids = {f.cli("submit", f.top / "j.yaml", "--key", "k1", "-o", "json", expect=0).json()["job"] for _ in range(3)}
        check(len(ids) == 1, f"one job expected: {ids}")


def events_are_contiguous_and_tell_the_whole_life():
    with Fleet(nodes=1, gpus=1) as f:
        follower = f.start_cli("events", "-f", "-o", "jsonl")
        job = f.submit(shell("true"))
        f.wait_phase(job, "done")
        states, last = [], None
        while "done" not in states:
            line = follower.stdout.readline()
            check(line, "the stream ended")
            event = json.loads(line)
            if event["type"] == "heartbeat":
                continue
            check(last is None or event["seq"] == last + 1, f"seq {last} then {event['seq']}")
            last = event["seq"]
            if event["subject"] == f"job/{job}":
                states.append(event["to"])
        check(states[0] == "queued" and states[-1] == "done" and "running" in states, f"{states}")


def tree_ps_and_nodes_show_the_fleet():
    with Fleet(clusters=2, nodes=2, gpus=2) as f:
        tree = f.cli("tree", expect=0).out
        check(all(n in tree for n in ("r1", "c1", "c2", "n1", "n4")), tree)

        def are_free():  # once each has confirmed that it knows the others
            nodes = [json.loads(l) for l in f.cli("node", "ls", "-o", "jsonl", expect=0).out.splitlines()]
            return len(nodes) == 4 and all(n["gpus"] == 2 and n["gpus_free"] == 2 for n in nodes)
        wait_for("four nodes with two free GPUs each", are_free)
        job = f.submit(shell("sleep 60", "gpus: 1\n"))
        f.wait_phase(job, "running")
        rows = [json.loads(l) for l in f.cli("ps", "-o", "jsonl", expect=0).out.splitlines()]
        check([r["job"] for r in rows] == [job] and rows[0]["phase"] == "running", f"{rows}")
        f.cli("cancel", job, expect=0)


def regions_know_each_other_and_run_their_own_jobs():
    with Fleet(regions=2, nodes=1, gpus=1) as f:
        for own, other in (("r1", "r2"), ("r2", "r1")):
            log = f.state / own / "host.log"
            wait_for(f"{own} is linked with {other}", lambda: f"{other}: link up" in log.read_text())
            done = f.cli("run", "--region", f"ipc://{f.state}/{own}/sock", "--gpus", "1", "--",
                         "/bin/sh", "-c", "echo $ORRERY_REGION", expect=0)
            check(done.out.strip() == own, str(done))


main(trivial_job_runs_and_its_output_and_exit_code_arrive,
     show_names_the_culprit_its_exit_and_its_last_words,
     show_tells_whose_fault_each_restart_was,
     job_that_does_not_fit_waits_and_says_for_what,
     cancel_of_a_stubborn_job_kills_it,
     same_key_is_the_same_job,
     events_are_contiguous_and_tell_the_whole_life,
     tree_ps_and_nodes_show_the_fleet,
     regions_know_each_other_and_run_their_own_jobs)
