# SPDX-License-Identifier: Apache-2.0
"""Jobs go from one region to another: the same digests as a job that stayed, no step twice, whoever is killed meanwhile."""
import json
import os
import signal
import subprocess
import time

from fleet import Fleet, check, main, shell, wait_for
from stops import check_same, examples, read_digests, result
from test_stops import FAST, can_image, started, undisturbed

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


if __name__ == "__main__":
    main(digits_moves_to_another_region, tcp_moves_to_another_region)
