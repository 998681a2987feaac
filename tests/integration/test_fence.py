# SPDX-License-Identifier: Apache-2.0
"""The control plane is down, or a node is cut off from it: jobs run on or stand still, and none is lost or runs twice.

Leases are short here; SOAK=1 takes the defaults (lease 30 s) and an outage of two minutes.
"""
import os
import pathlib
import signal
import time

from fleet import Fleet, check, main, shell, wait_for

SOAK = bool(os.environ.get("SOAK"))
LEASE_S = 30 if SOAK else 8
OUTAGE_S = 120 if SOAK else 14
TIMING = {"lease": LEASE_S * 1000, "suspect": 2000 if SOAK else 800, "heartbeat": 500 if SOAK else 200}
COUNT = "while [ ! -e go ]; do echo $RANK >> counted.$ORRERY_JOB.$RANK; sleep 0.1; done"


def lines(f, job, rank=0):
    path = f.top / f"counted.{job}.{rank}"
    return len(path.read_text().split()) if path.exists() else 0


def state_of(pid):
    """T: stopped; also a shell that waits in vfork for a child that was stopped before it could exec."""
    proc = pathlib.Path("/proc") / str(pid)
    state = (proc / "stat").read_text().rsplit(")", 1)[1].split()[0]
    children = (proc / "task" / str(pid) / "children").read_text().split() if state == "D" else []
    try:
        return "T" if children and all(state_of(c) == "T" for c in children) else state
    except FileNotFoundError:
        return state


def finish(f, jobs, pids):
    """All jobs run as the same processes, in their first generation, and end well."""
    for job in jobs:
        f.wait_phase(job, "running", seconds=90)
        check(f.rank_pid(job, 0) == pids[job], f"{job} was started again")
    (f.top / "go").write_text("")
    for job in jobs:
        detail = f.wait_phase(job, "done", seconds=60)
        check(detail["row"]["generation"] == 1, f"{job} ran as generation {detail['row']['generation']}")


def all_know_each_other(f):
    """A node that never heard of another stands for the whole cluster: it neither freezes nor is given up.  Members are told
    with the answer to a heartbeat, so two more of each node are waited for."""
    seen, beats = {}, {}

    def have_beaten():
        for n in f.cli("node", "ls", "-o", "json", expect=0).json():
            name = n["node"]
            beats[name] = beats.get(name, 0) + (n["seen_ms"] < seen.get(name, 0))
            seen[name] = n["seen_ms"]
        return len(beats) == 3 and all(b >= 3 for b in beats.values())
    wait_for("every node was heard again", have_beaten)


def start_one_on_each(f, n):
    jobs = [f.submit(shell(COUNT, "gpus: 1\n")) for _ in range(n)]
    for job in jobs:
        f.wait_phase(job, "running")
        wait_for(f"{job} counts", lambda: lines(f, job))
    return jobs, {job: f.rank_pid(job, 0) for job in jobs}


def runs_on(f, jobs, what, seconds):
    """Each job's output grows all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for job in jobs:
            before = lines(f, job)
            wait_for(f"{job} goes on {what}", lambda: lines(f, job) > before, 20)


def jobs_run_on_while_the_control_plane_is_down():
    with Fleet(nodes=3, gpus=1, **TIMING) as f:
        jobs, pids = start_one_on_each(f, 3)
        f.kill_host("r1")
        f.kill_host("c1")
        runs_on(f, jobs, "without region and cluster", OUTAGE_S)
        f.restart()
        finish(f, jobs, pids)


def jobs_survive_all_hosts_of_nodes_while_their_cluster_host_is_down():
    with Fleet(nodes=3, gpus=1, **TIMING) as f:
        jobs, pids = start_one_on_each(f, 3)
        f.kill_host("c1")
        for node in ("n1", "n2", "n3"):
            f.kill_host(node)
        runs_on(f, jobs, "under its keeper", LEASE_S / 4)
        f.restart()
        finish(f, jobs, pids)


def node_that_is_cut_off_freezes_and_goes_on():
    """Its host process stands still (SIGSTOP): nothing but the keepers can freeze the ranks, and does before they are given up."""
    with Fleet(nodes=3, gpus=1, **TIMING) as f:
        jobs, pids = start_one_on_each(f, 3)
        node = next(n for n in ("n1", "n2", "n3") if pids[jobs[0]] in f.ranks(n))
        host = f.host_pid(node)
        os.kill(host, signal.SIGSTOP)
        try:
            wait_for("it is unknown", lambda: f.phase(jobs[0]) == "unknown", LEASE_S)
            wait_for("its rank is frozen", lambda: state_of(pids[jobs[0]]) == "T", LEASE_S)
            check(f.phase(jobs[0]) == "unknown", "and not given up yet")
        finally:
            os.kill(host, signal.SIGCONT)
        wait_for("it goes on", lambda: state_of(pids[jobs[0]]) != "T", LEASE_S)
        finish(f, jobs, pids)


def node_that_is_cut_off_beyond_its_lease_never_doubles_its_job():
    with Fleet(nodes=3, gpus=2, **TIMING) as f:
        all_know_each_other(f)
        jobs, pids = start_one_on_each(f, 1)
        job, old = jobs[0], pids[jobs[0]]
        node = next(n for n in ("n1", "n2", "n3") if old in f.ranks(n))
        host = f.host_pid(node)
        os.kill(host, signal.SIGSTOP)
        try:
            def generation():
                row = f.show(job)["row"]
                check(row["generation"] == 1 or state_of(old) == "T", "two generations run")
                return row["generation"] == 2 and row["phase"] == "running"
            wait_for("it runs elsewhere", generation, 4 * LEASE_S)
            check(state_of(old) == "T", "the old rank stands still")
        finally:
            os.kill(host, signal.SIGCONT)
        wait_for("the old rank is gone", lambda: old not in f.ranks(node), 60)
        (f.top / "go").write_text("")
        f.wait_phase(job, "done")


main(jobs_run_on_while_the_control_plane_is_down,
     jobs_survive_all_hosts_of_nodes_while_their_cluster_host_is_down,
     node_that_is_cut_off_freezes_and_goes_on,
     node_that_is_cut_off_beyond_its_lease_never_doubles_its_job)
