# SPDX-License-Identifier: Apache-2.0
"""Jobs that grow by themselves where devices are free, and give them back for jobs that wait (docs/adr/0024-growth.md)."""
import json

from fleet import Fleet, check, main, shell, wait_for
from stops import FAST, check_cuts, check_same, examples, reached, read_digests, started, undisturbed, up_to
from test_resize import devices, free

QUIET = "time: {min_run: 1s}\n"


def elastic(least, steps):
    example = examples(steps)[0]
    example.gpus, example.least, example.shards = 8, least, 1
    return example


def guest_for(f, name, gpus=4):
    """Runs until its file is there."""
    job = f.submit(shell(f"while [ ! -e {f.top}/{name}.go ]; do sleep 0.05; done", f"gpus: {gpus}\n", name))
    return job, lambda: (f.top / f"{name}.go").touch()


def wait_gpus(f, job, n):
    def has():
        row = f.show(job)["row"]
        check(row["phase"] not in ("done", "failed"), f"it has ended: {json.dumps(row)}")
        return row["gpus"] == n and row["phase"] == "running"
    wait_for(f"job {job} has {n} devices", has, 60)


def check_as_far_as_it_came(f, prefix):
    """As one that was left alone."""
    got = read_digests(prefix)
    last = reached(got)
    truth = undisturbed(f, elastic(2, last), "digits")[1]
    check_same(truth, up_to(last, got))
    check(check_cuts(prefix)[0] > 0, "no resume was compared")


def job_grows_by_itself_and_gives_back():
    example = elastic(2, 100000)  # cancelled when all has been seen
    with Fleet(nodes=1, gpus=8, **FAST) as f:
        guest, go = guest_for(f, "first")
        f.wait_phase(guest, "running")
        job, prefix = started(f, example, example.name, extra=QUIET)
        check(f.show(job)["row"]["gpus"] == 4, "the others are the guest's")
        go()
        f.wait_phase(guest, "done")
        wait_gpus(f, job, 8)
        check(f.show(job)["order_text"] == "to 8 devices: 4 devices are free", f.show(job)["order_text"])
        third, go = guest_for(f, "third")
        f.wait_phase(third, "running")
        detail = f.show(job)
        check(detail["order_text"] == f"to 4 devices: for job {third}", detail["order_text"])
        check(detail["row"]["gpus"] == 4 and len(devices(f, job)) == 4, json.dumps(detail["row"]))
        check(detail["restarts"] == 0 and detail["row"]["generation"] == 1, json.dumps(detail["row"]))
        resized = reached(read_digests(prefix))
        wait_for("it has gone on", lambda: reached(read_digests(prefix)) > resized + 5, 60)
        f.cli("cancel", job, expect=0)
        f.wait_phase(job, "cancelled")
        check_as_far_as_it_came(f, prefix)
        go()
        f.wait_phase(third, "done")
        wait_for("all are free", lambda: free(f) == 8, 20)


def size_that_a_user_ordered_stays():
    """It could grow, and could give back, and does neither: but another job that may, does."""
    with Fleet(nodes=1, gpus=8, **FAST) as f:
        pinned, _ = started(f, elastic(1, 100000), "pinned", extra=QUIET)
        f.cli("resize", pinned, "4", expect=0)
        other, _ = started(f, elastic(1, 100000), "other", extra=QUIET)
        check(f.show(other)["row"]["gpus"] == 4, "it has what is left")
        guest, go = guest_for(f, "guest", gpus=2)
        f.wait_phase(guest, "running")
        check(f.show(pinned)["row"]["gpus"] == 4 and f.show(other)["row"]["gpus"] == 2, "the wrong one gave back")
        check("4 devices, as ordered" in f.cli("show", pinned, expect=0).out, "it does not say so")
        f.cli("cancel", pinned, expect=0)
        wait_gpus(f, other, 4)
        go()
        wait_gpus(f, other, 8)
        f.cli("cancel", other, expect=0)
        f.wait_phase(other, "cancelled")


if __name__ == "__main__":
    main(job_grows_by_itself_and_gives_back, soak=[size_that_a_user_ordered_stays])
