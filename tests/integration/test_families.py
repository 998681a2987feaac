# SPDX-License-Identifier: Apache-2.0
"""Ranks of which several processes use the device: what a stop does, it does to all of them, and each gets its own memory back."""
import json

from fleet import Fleet, check, main
from stops import FAST, Example, can_image, finished, started, undisturbed


def family(steps):
    """Two ranks; each is a launcher without CUDA and three workers, the first of which have a communicator."""
    return Example("workers", 2, 2, steps, 5, ("--workers", "3", "--floats", "131072"))


def truth_of(f, example, mode):
    if mode == "auto" and not can_image(f):
        return None
    return undisturbed(f, example, example.name)


def suspended(mode):
    example = family(3000)
    with Fleet(nodes=2, gpus=1, **FAST) as f:
        truth = truth_of(f, example, mode)
        if not truth:
            return
        job, prefix = started(f, example, example.name, mode=mode)
        for _ in range(3):
            f.cli("suspend", job, expect=0)
            check(f.show(job)["row"]["gpus"] == 0, f.cli("show", job).out)
            f.cli("resume", job, expect=0)
            f.wait_phase(job, "running", "done")
        finished(f, job, prefix, truth)


def family_is_suspended_in_place():
    suspended("inplace")


def family_that_may_move_is_suspended():
    suspended("auto")


def family_outlives_the_hosts_while_it_is_suspended():
    example = family(3000)
    with Fleet(nodes=2, gpus=1, **FAST) as f:
        truth = truth_of(f, example, "auto")
        if not truth:
            return
        for mode in ("auto", "inplace"):
            job, prefix = started(f, example, example.name, mode=mode)
            f.cli("suspend", job, expect=0)
            for host in ("c1", "n1", "n2", "r1"):
                f.kill_host(host)
            f.restart()
            f.wait_phase(job, "suspended")
            f.cli("resume", job, expect=0)
            finished(f, job, prefix, truth)


def family_is_saved_moved_and_restored():
    example = family(4000)
    with Fleet(clusters=2, nodes=2, gpus=2, **FAST) as f:
        truth = truth_of(f, example, "auto")
        if not truth:
            return
        job, prefix = started(f, example, example.name)
        row = f.cli("checkpoint", job, "-o", "json", expect=0).json()
        check(row["bytes"] > 6 * 3 * 131072 * 4, f"six workers' memory is not in it: {json.dumps(row)}")
        parts = f.cli("checkpoint", "show", job, "1", "-o", "json", expect=0).json()["parts"]
        check(all(len(p["arenas"].split()) == 3 for p in parts), json.dumps(parts))
        f.cli("checkpoint", "verify", job, expect=0)
        home = f.show(job)["row"]["cluster"]
        away = "c2" if home == "c1" else "c1"
        f.cli("migrate", job, "--to", f"cluster:{away}", expect=0, timeout=90)
        f.cli("suspend", job, expect=0)
        f.cli("resume", job, expect=0)
        f.cli("migrate", job, "--to", f"cluster:{home}", expect=0, timeout=90)
        finished(f, job, prefix, truth)


def family_goes_on_from_its_checkpoint_when_its_node_dies():
    example = family(4000)
    with Fleet(nodes=3, gpus=1, **FAST) as f:
        truth = truth_of(f, example, "auto")
        if not truth:
            return
        job, prefix = started(f, example, example.name)
        f.cli("checkpoint", job, expect=0)
        f.kill_node(f.show(job)["ranks"][0]["node"])
        detail = finished(f, job, prefix, truth, once=False)
        check(detail["row"]["generation"] == 2, json.dumps(detail["row"]))


if __name__ == "__main__":
    main(family_is_saved_moved_and_restored,
         soak=(family_is_suspended_in_place,
               family_that_may_move_is_suspended,
               family_outlives_the_hosts_while_it_is_suspended,
               family_goes_on_from_its_checkpoint_when_its_node_dies))
