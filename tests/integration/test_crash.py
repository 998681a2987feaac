# SPDX-License-Identifier: Apache-2.0
"""Daemons killed at bad moments, many clients at once, jobs that misbehave: nothing runs twice, hangs or is left behind."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess

from fleet import ORRERY, Fleet, check, main, shell, wait_for


def rows(f):
    return {r["job"]: r for r in f.cli("ps", "-a", "-o", "json", expect=0).json()}


def wait_free(f):
    """Every device, slot and rank of the fleet is given back."""
    def free():
        nodes = f.cli("node", "ls", "-o", "json", expect=0).json()
        return all(n["gpus"] == n["gpus_free"] and n["slots"] == n["slots_free"] and not n["ranks"] for n in nodes)
    wait_for("all devices are free", free, 60)


def counted(top, script, extra):
    """A job whose ranks leave a line each time they start."""
    return shell(f"echo x >> {top}/started.$ORRERY_JOB.$RANK; {script}", extra)


def starts(f, job):
    return [len(p.read_text().split()) for p in f.top.glob(f"started.{job}.*")]


def jobs_go_on_while_their_cluster_host_is_killed_again_and_again():
    with Fleet(nodes=2, gpus=2) as f:
        short = [f.submit(counted(f.top, f"sleep {i % 3}", "gpus: 1\n")) for i in range(9)]
        gang = f.submit(counted(f.top, "sleep 2", "world: 4\ngpus: 4\n"))
        endless = f.submit(counted(f.top, "sleep 1000", "gpus: 0\n"))
        for _ in range(4):
            f.kill_host("c1")
            f.cli("cancel", endless, expect=0)
            f.restart()
        for job in short + [gang]:
            f.wait_phase(job, "done", seconds=90)
            check(set(starts(f, job)) == {1}, f"{job} started {starts(f, job)} times: {json.dumps(f.show(job))[:800]}")
        f.wait_phase(endless, "cancelled")
        wait_free(f)


def region_that_restarts_goes_on_with_its_jobs():
    with Fleet(nodes=1, gpus=1) as f:
        job = f.submit(shell("while [ ! -e go ]; do sleep 0.1; done", "gpus: 1\n"))
        f.wait_phase(job, "running")
        pid, waiter = f.rank_pid(job, 0), f.start_cli("wait", job)
        for _ in range(2):
            f.kill_host("r1")
            f.restart()
            f.wait_phase(f.submit(shell("true", "gpus: 0\n")), "done")
        check(f.rank_pid(job, 0) == pid and f.show(job)["row"]["generation"] == 1, "the job was touched")
        (f.top / "go").write_text("")
        check(waiter.wait(60) == 0, f"wait: {waiter.returncode}")
        wait_free(f)


def fleet_started_by_many_at_once_is_one_fleet():
    with Fleet(nodes=2, gpus=1) as f:
        for host in ("r1", "c1", "n1", "n2"):
            os.kill(f.host_pid(host), signal.SIGKILL)
        ups = [f.start_cli("dev", "up", "--state", f.state) for _ in range(4)]
        outputs = [up.communicate(timeout=90)[0] for up in ups]
        check(not any(up.returncode for up in ups), "\n".join(outputs))
        f.wait_phase(f.submit(shell("true", "gpus: 1\n")), "done")


def fleets_side_by_side_do_not_touch_each_other():
    with Fleet(nodes=1, gpus=1) as f, Fleet(nodes=1, gpus=1) as g:
        jobs = [x.submit(shell("while [ ! -e go ]; do sleep 0.1; done; pwd", "gpus: 1\n")) for x in (f, g)]
        f.wait_phase(jobs[0], "running")
        g.wait_phase(jobs[1], "running")
        ranks = f.ranks("n1")
        g.kill_node("n1")
        check(f.ranks("n1")[0] == ranks[0] and not g.ranks("n1"), "the other fleet's ranks were killed")
        g.cli("dev", "down", "--state", g.state, expect=0)
        check(f.phase(jobs[0]) == "running", "the job of the other fleet runs on")
        (f.top / "go").write_text("")
        f.wait_phase(jobs[0], "done")
        check(f.log(jobs[0]).strip() == str(f.top), "each job in its own folder")


def followers_end_when_their_reader_has_gone():
    with Fleet(nodes=1, gpus=1) as f:
        job = f.submit(shell("echo one; sleep 1000", "gpus: 1\n"))
        f.wait_phase(job, "running")
        for verb in (["events", "-f"], ["logs", "-f", job]):
            child = f.start_cli(*verb)
            check(child.stdout.readline(), f"{verb}: a line")
            child.stdout.close()
            check(child.wait(20) == -signal.SIGPIPE, f"{verb}: exit {child.returncode}")


def logs_are_there_as_soon_as_their_node_is():
    with Fleet(nodes=2, gpus=1) as f:
        jobs = [f.submit(shell("echo $ORRERY_JOB", "gpus: 1\n")) for _ in range(4)]
        for job in jobs:
            f.wait_phase(job, "done")
        for _ in range(3):
            f.kill_host("n1")
            f.kill_host("n2")
            f.restart()
            check([f.log(job).strip() for job in jobs] == jobs, "each job's own line")


def queue_of_many_short_jobs_drains_without_a_restart():
    with Fleet(nodes=2, gpus=1) as f:
        (f.top / "j.yaml").write_text(shell("exit 0"))
        follower = f.start_cli("events", "-f", "-o", "jsonl")
        loop = f"for i in $(seq 50); do {ORRERY} submit j.yaml || exit 1; done"
        clients = [subprocess.Popen(["/bin/sh", "-c", loop], env=f.env, cwd=f.top, stdout=subprocess.PIPE, text=True)
                   for _ in range(4)]
        jobs = [job for client in clients for job in client.communicate(timeout=120)[0].split()]
        check(len(jobs) == 200, f"{len(jobs)} jobs were taken")
        cancelled = {job for job in jobs[::10] if f.cli("cancel", job).code == 0}
        ended, last = {}, None
        while len(ended) < len(jobs):
            event = json.loads(follower.stdout.readline())
            if event["type"] == "heartbeat":
                continue
            check(last is None or event["seq"] == last + 1, f"seq {last} then {event['seq']}")
            last = event["seq"]
            if event["to"] in ("done", "failed", "cancelled"):
                check(event["subject"] not in ended, f"{event['subject']} ended twice")
                ended[event["subject"]] = event["to"]
        check(all(ended[f"job/{j}"] == "done" or j in cancelled for j in jobs), f"{ended}")
        check(all(r["generation"] <= 1 for r in rows(f).values()), "a job was restarted")
        wait_free(f)


def job_that_leaves_daemons_and_open_pipes_ends_with_them():
    with Fleet(nodes=1, gpus=1) as f:
        job = f.submit(shell("(setsid sh -c 'trap \"\" TERM; exec sleep 1000' &); sleep 1000 & echo out; exit 0",
                             "gpus: 1\n"))
        f.wait_phase(job, "done")
        check(f.log(job) == "out\n", f.log(job))
        wait_for("nothing of it lives", lambda: not f.ranks("n1"))


def broken_machine_costs_no_job():
    with Fleet(nodes=1, gpus=1) as f:
        shutil.rmtree(f.state / "n1" / "ranks")
        job = f.submit(shell("true", "gpus: 1\nretries: {user: 0, backoff: 100ms..200ms}\n"))
        wait_for("the reason", lambda: "cannot make its directory" in f.show(job)["row"]["reason"])
        f.kill_host("n1")
        f.restart()
        f.wait_phase(job, "done")
        wait_free(f)


def processes_named(f, name):
    def comm(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            return ""
    return [pid for pid in f.processes() if comm(pid) == name]


def killed_spawners_cost_no_job():
    with Fleet(nodes=2, gpus=1) as f:
        jobs = [f.submit(counted(f.top, "sleep 0.2", "world: 3\ngpus: 0\n")) for _ in range(8)]
        for _ in range(4):
            for pid in processes_named(f, "orrery-spawner"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for job in jobs:
            f.wait_phase(job, "done")
            check(starts(f, job) == [1, 1, 1], f"{job} started {starts(f, job)} times")
        wait_free(f)


main(jobs_go_on_while_their_cluster_host_is_killed_again_and_again,
     region_that_restarts_goes_on_with_its_jobs,
     fleet_started_by_many_at_once_is_one_fleet,
     fleets_side_by_side_do_not_touch_each_other,
     followers_end_when_their_reader_has_gone,
     logs_are_there_as_soon_as_their_node_is,
     queue_of_many_short_jobs_drains_without_a_restart,
     job_that_leaves_daemons_and_open_pipes_ends_with_them,
     broken_machine_costs_no_job,
     killed_spawners_cost_no_job)
