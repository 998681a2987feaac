# SPDX-License-Identifier: Apache-2.0
"""Jobs go from one region to another: the same digests as a job that stayed, no step twice, whoever is killed meanwhile."""
import json
import os
import signal
import subprocess
import time

from fleet import Fleet, check, main, shell, wait_for
from stops import FAST, can_image, check_same, examples, read_digests, result, started, undisturbed

SHAPE = dict(regions=2, nodes=2, gpus=2, **FAST)


class Regions(Fleet):
    """A fleet of two regions, r1 and r2; every verb can be given to either."""

    def of(self, region):
        """The same fleet, seen by somebody who asks that region."""
        other = Fleet.__new__(Fleet)
        other.__dict__.update(self.__dict__)
        other.env = dict(self.env, ORRERY_REGION=f"ipc://{self.state}/{region}/sock")
        return other


def ends_like(f, job, prefix, truth):
    """It has ended in r2 as the one did that stayed, and r1 says where it is."""
    there = f.of("r2")
    there.wait_phase(job, "done", seconds=240)
    check(result(there, job) == truth[0], f"digest {result(there, job)} is not {truth[0]}")
    check_same(truth[1], read_digests(prefix))
    here = f.show(job)
    check(here["row"]["phase"] == "moved" and here["to_region"] == "r2", json.dumps(here)[:800])
    check(there.show(job)["from_region"] == "r1", json.dumps(there.show(job))[:800])


def moves(example, name):
    with Regions(**SHAPE) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, example, name)
        job, prefix = started(f, example, name)
        done = f.cli("migrate", job, "--to", "region:r2", expect=0, timeout=90)
        check("region r2" in done.err, str(done))
        waited = f.cli("wait", job, expect=0, timeout=240)
        check(" done" in waited.out and "region r2" in waited.err, str(waited))
        ends_like(f, job, prefix, truth)


def digits_moves_to_another_region():
    moves(examples(400)[0], "digits")


def tcp_moves_to_another_region():
    moves(examples(400)[3], "tcp")


def out_of_its_cluster(f, job):
    """Its ranks are gone, and r2, which has said that it would take it, has not answered since."""
    f.cli("migrate", job, "--to", "region:r2", "--no-wait", expect=0)
    stopped = f.host_pid("r2")
    os.kill(stopped, signal.SIGSTOP)
    try:
        def waits():
            detail = f.show(job)
            check(detail["order_state"] not in (4, 5, "done", "failed"), json.dumps(detail)[:800])
            return detail["row"]["phase"] == "queued" and "has not answered" in detail["row"]["reason"]
        wait_for("it waits for r2", waits, 90)
        refused = f.cli("cancel", job)
        check(refused.code == 5 and "region r2" in refused.err, str(refused))
    except BaseException:
        os.kill(stopped, signal.SIGCONT)
        raise
    return stopped


def region_that_gives_it_away_is_killed():
    digits = examples(400)[0]
    with Regions(**SHAPE) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        stopped = out_of_its_cluster(f, job)
        f.kill_host("r1")
        os.kill(stopped, signal.SIGCONT)
        f.restart()
        ends_like(f, job, prefix, truth)


def region_that_takes_it_is_killed():
    digits = examples(400)[0]
    with Regions(**SHAPE) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        out_of_its_cluster(f, job)
        f.kill_host("r2")
        f.restart()
        f.wait_phase(job, "moved", seconds=60)
        f.kill_host("r2")
        f.restart()
        ends_like(f, job, prefix, truth)


def job_that_is_refused_at_the_end_goes_on_at_home():
    digits = examples(400)[0]
    with Regions(**SHAPE) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        out_of_its_cluster(f, job)
        f.kill_host("r2")
        config = f.state / "r2/host.yaml"
        config.write_text(config.read_text().replace("name: r1, host: r1", "name: r9, host: r1"))
        f.restart()
        f.wait_phase(job, "done", seconds=240)
        check(result(f, job) == truth[0], "another result")
        check_same(truth[1], read_digests(prefix))
        detail = f.show(job)
        check("does not name r1" in detail["order_text"], json.dumps(detail)[:1500])
        there = f.of("r2").cli("show", job)
        check(there.code == 4, str(there))


def job_on_its_way_to_a_region_that_is_gone_for_good_comes_back():
    digits = examples(400)[0]
    with Regions(**SHAPE) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        refused = f.cli("migrate", job, "--to", "region:r1", "--gone", "r2")
        check(refused.code == 5 and "not on its way to region r2" in refused.err, str(refused))
        out_of_its_cluster(f, job)
        for host in ("r2", "c2", "n3", "n4"):
            f.kill_host(host)
        f.cli("migrate", job, "--to", "region:r1", "--gone", "r2", expect=0)
        f.wait_phase(job, "done", seconds=240)
        check(result(f, job) == truth[0], "another result")
        check_same(truth[1], read_digests(prefix))
        check("gone for good" in f.show(job)["order_text"], json.dumps(f.show(job))[:1500])


def moved_job_outlives_its_node_without_the_region_that_it_left():
    """What it needs is in the stores of the region where it is."""
    digits = examples(1500)[0]
    with Regions(**dict(SHAPE, nodes=3)) as f:
        if not can_image(f):
            return
        there = f.of("r2")
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits")
        f.cli("migrate", job, "--to", "region:r2", expect=0, timeout=90)
        there.wait_phase(job, "running", seconds=90)
        wait_for("r1 has forgotten the checkpoint",
                 lambda: not f.cli("checkpoint", "ls", job, "-o", "json", expect=0).json(), 60)
        parts = there.cli("checkpoint", "show", job, "-o", "json", expect=0).json()["parts"]
        check({p["store"] for p in parts} <= {"n4", "n5", "n6"}, json.dumps(parts)[:800])
        for host in ("n1", "n2", "n3", "c1", "r1"):
            f.kill_host(host)
        f.kill_node(there.show(job)["ranks"][0]["node"])
        there.wait_phase(job, "done", seconds=240)
        check(result(there, job) == truth[0], "another result")
        check_same(truth[1], read_digests(prefix), once=False)
        f.restart()


def refusals_say_why_and_the_job_never_stops():
    with Regions(**SHAPE) as f:
        job = f.submit(shell("while :; do sleep 0.05; done"))
        f.wait_phase(job, "running")
        unknown = f.cli("migrate", job, "--to", "region:r7")
        check(unknown.code == 4 and "`peers:`" in unknown.err, str(unknown))
        big = f.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 4\n"))
        f.wait_phase(big, "running")
        there = f.of("r2")
        other = there.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 1\n"))
        there.wait_phase(other, "running")
        no_room = f.cli("migrate", big, "--to", "region:r2")
        check(no_room.code == 5 and "4 free devices" in no_room.err, str(no_room))
        f.kill_host("r2")
        silent = f.cli("migrate", job, "--to", "region:r2")
        check(silent.code != 0 and "region r2 cannot be asked" in silent.err, str(silent))
        for j in (job, big):
            detail = f.show(j)
            check(detail["row"]["phase"] == "running" and detail["row"]["generation"] == 1, json.dumps(detail["row"]))
        f.restart()
        (f.top / "go").touch()
        f.wait_phase(big, "done")
        f.cli("cancel", job, expect=0)


def waiting_job_and_suspended_job_move_and_come_back():
    with Regions(**SHAPE) as f:
        there = f.of("r2")
        guest = f.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 4\n"))
        f.wait_phase(guest, "running")
        job = f.submit(shell("echo ran; exit 3", "gpus: 2\n"))
        f.cli("suspend", job, expect=0)
        f.cli("migrate", job, "--to", "region:r2", expect=0)
        check(there.wait_phase(job, "suspended")["from_region"] == "r1", "from nowhere")
        there.cli("migrate", job, "--to", "region:r1", expect=0)
        check(there.phase(job) == "moved" and f.phase(job) == "suspended", f.cli("show", job).out)
        f.cli("migrate", job, "--to", "region:r2", expect=0)
        there.cli("resume", job, expect=0)
        check(f.cli("wait", job, timeout=60).code == 3, "its exit code got lost")
        check(there.log(job).strip() == "ran", there.log(job))
        (f.top / "go").touch()
        f.wait_phase(guest, "done")


if __name__ == "__main__":
    main(digits_moves_to_another_region, refusals_say_why_and_the_job_never_stops,
         soak=(tcp_moves_to_another_region, region_that_gives_it_away_is_killed, region_that_takes_it_is_killed,
               job_that_is_refused_at_the_end_goes_on_at_home,
               job_on_its_way_to_a_region_that_is_gone_for_good_comes_back,
               moved_job_outlives_its_node_without_the_region_that_it_left, waiting_job_and_suspended_job_move_and_come_back),
         at_once=2)
