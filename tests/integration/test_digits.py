# SPDX-License-Identifier: Apache-2.0
"""A real training job: the same digest wherever it runs, and whatever is killed under it."""
import json
import os
import signal

from fleet import Fleet, check, digits, main, result_line, wait_for

STEPS = 120  # on release builds about a second


def trained(f, spec):
    job = f.submit(spec)
    f.wait_phase(job, "done", seconds=240)
    return result_line(f.log(job))["digest"]


def digest_is_the_same_on_four_nodes_on_one_and_from_run_to_run():
    with Fleet(nodes=4, gpus=2) as f:
        spread = trained(f, digits(8, 8, STEPS))
        again = trained(f, digits(8, 8, STEPS))
        packed = trained(f, digits(8, 2, STEPS))
    with Fleet(nodes=1, gpus=8) as f:
        one_node = trained(f, digits(8, 8, STEPS))
    check(spread == again == packed == one_node, f"{spread} {again} {packed} {one_node}")


def killed_host_finds_its_ranks_again():
    with Fleet(nodes=4, gpus=2) as f:
        want = trained(f, digits(8, 8, 5 * STEPS))
        job = f.submit(digits(8, 8, 5 * STEPS))
        f.wait_phase(job, "running", "done")
        ranks = f.ranks("n2")
        check(len(ranks) == 2, f"two ranks on n2: {ranks}")
        f.kill_host("n2")
        check(set(f.ranks("n2")) <= set(ranks), "no new ranks")
        f.restart()
        detail = f.wait_phase(job, "done", seconds=240)
        check(detail["restarts"] == 0 and detail["row"]["generation"] == 1, json.dumps(detail["row"]))
        check(result_line(f.log(job))["digest"] == want, "another digest")


def killed_rank_fails_the_job_with_its_name():
    with Fleet(nodes=4, gpus=2) as f:
        job = f.submit(digits(8, 8, 100000))
        f.wait_phase(job, "running")
        wait_for("training has begun", lambda: "step=" in f.log(job), 120)
        os.kill(f.rank_pid(job, 5), signal.SIGKILL)
        detail = f.wait_phase(job, "failed")
        check(detail["culprit"] == 5 and detail["signal"] == 9, json.dumps(detail))
        text = f.cli("show", job).out
        check("SIGKILL" in text, text)
        wait_for("the other ranks end", lambda: not any(f.ranks(f"n{i}") for i in range(1, 5)))


def lost_node_means_the_job_runs_elsewhere():
    with Fleet(nodes=5, gpus=2, heartbeat=100, suspect=1500, lease=6000) as f:
        job = f.submit(digits(8, 8, 5 * STEPS))
        detail = f.wait_phase(job, "running")
        wait_for("training has begun", lambda: "step=" in f.log(job), 120)
        used = sorted({r["node"] for r in detail["ranks"]})
        check(len(used) == 4, f"four nodes: {used}")
        f.kill_node(used[0])
        detail = f.wait_phase(job, "done", seconds=240)
        check(detail["row"]["generation"] == 2 and detail["restarts"] == 1, json.dumps(detail["row"]))
        check(used[0] not in {r["node"] for r in detail["ranks"]}, "placed on the dead node")
        check(len(result_line(f.log(job))["digest"]) >= 8, "a digest")


main(digest_is_the_same_on_four_nodes_on_one_and_from_run_to_run,
     killed_host_finds_its_ranks_again,
     killed_rank_fails_the_job_with_its_name,
     lost_node_means_the_job_runs_elsewhere)
