# SPDX-License-Identifier: Apache-2.0
"""A job that hangs names who holds it up: rank, communicator, count and collective; and one that does not is left alone.

All jobs of this page run in one fleet at the same time: they mostly wait.
"""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import signal
import time

from fleet import WORKLOADS, Fleet, check, main, wait_for
from stops import FAST, examples, started

COMM = r"communicator [0-9a-f]{16} \(\d+ ranks\)"
HANG = "time: {hang: 10s}\n"  # the shortest that a spec takes
NAMED_S = 60


def reason(f, job):
    return f.show(job)["row"]["reason"]


def signal_rank(f, job, rank, number):
    os.kill(f.rank_pid(job, rank), number)


@contextlib.contextmanager
def stopped_rank(f, job, rank):
    """It is thawed in any case: the fleet must be able to end."""
    pid = f.rank_pid(job, rank)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def failed_with(f, job, pattern, rank):
    began = time.monotonic()
    detail = f.wait_phase(job, "failed", seconds=NAMED_S)
    text = detail["row"]["reason"]
    check(re.search(r"^hung \(time.hang\): " + pattern, text), text)
    check(detail["culprit"] == rank, json.dumps(detail)[:3000])
    print(f"     {time.monotonic() - began:.1f} s: {text}", flush=True)


def hang_rank(f, case, rank, world, more="", time_spec=HANG):
    words = [str(WORKLOADS / "bin/hang_rank"), case, str(rank), *([more] if more else [])]
    job = f.submit(f"name: {case}\ncommand: {json.dumps(words)}\nworld: {world}\ngpus: {{min: 1, max: 1}}\n"
                   f"checkpoint: {{mode: inplace}}\n{time_spec}")
    f.wait_phase(job, "running")
    return job


def goes_on(f, job, prefix):
    """It takes steps, long enough to be judged, and is not failed."""
    taken = len(pathlib.Path(f"{prefix}.0").read_text())
    wait_for("it takes steps", lambda: len(pathlib.Path(f"{prefix}.0").read_text()) > taken, 20)
    since = time.monotonic()
    wait_for("its nodes have looked", lambda: time.monotonic() - since > 6)
    check(f.phase(job) == "running" and not reason(f, job), reason(f, job))
    f.cli("cancel", job, expect=0)
    f.wait_phase(job, "cancelled")


def small(example, gpus):
    example.gpus = gpus
    return example


def stopped_rank_is_named_and_its_job_fails(f):
    """It has mostly issued what its peers wait in, so the counts alone do not tell."""
    job, _ = started(f, small(examples(100000)[0], 2), "digits", extra=HANG)
    with stopped_rank(f, job, 3):
        failed_with(f, job, rf"rank 3 has issued \d+ of \d+ collectives in {COMM}: it does not run.* ncclAllReduce", 3)


def stopped_stage_of_a_pipeline_is_named(f):
    job, _ = started(f, small(examples(100000)[2], 2), "pipeline", extra=HANG)
    with stopped_rank(f, job, 2):
        failed_with(f, job, rf"rank 2 has issued \d+ of \d+ (sends to|receives from|collectives).* in {COMM}: it does not run", 2)


def rank_that_skips_a_collective_is_named(f):
    job = hang_rank(f, "skips", 2, 4)
    failed_with(f, job, rf"rank 2 has issued 22 of 23 collectives in {COMM}: peers wait in ncclAllReduce", 2)


def rank_that_does_not_come_to_a_new_communicator_is_named(f):
    job = hang_rank(f, "absent", 1, 3)
    failed_with(f, job, rf"rank 1 has issued 0 of 1 collectives in {COMM}: 2 of them wait in ncclComm", 1)


def rank_that_computes_is_named_and_goes_on(f):
    job = hang_rank(f, "computes", 1, 2, more=str(f.top / "go"), time_spec="time: {hang: 20s}\n")
    text = wait_for("it is named", lambda: reason(f, job), NAMED_S)
    check(re.search(rf"^hangs: rank 1 has issued 22 of 23 collectives in {COMM}", text), text)
    check(f.phase(job) == "running", "it was failed before time.hang")
    (f.top / "go").touch()
    f.wait_phase(job, "done")
    said = [e for e in f.cli("events", job, "-o", "json", expect=0).json() if e["type"] == "job.hang"]
    check(said and said[0]["to"] == "hangs" and "rank 1 has issued" in said[0]["cause"], json.dumps(said))


def job_without_time_hang_is_named_and_goes_on(f):
    job, prefix = started(f, small(examples(100000)[0], 2), "forever", extra="time: {hang: unlimited}\n")
    with stopped_rank(f, job, 5):
        began = time.monotonic()
        text = wait_for("it is named", lambda: reason(f, job), NAMED_S)
        print(f"     {time.monotonic() - began:.1f} s: {text}", flush=True)
        check(re.search(rf"^hangs: rank 5 has issued \d+ of \d+ collectives in {COMM}", text), text)
        check(f.phase(job) == "running", "it did not run on")
    wait_for("the name is taken back", lambda: not reason(f, job), 15)
    goes_on(f, job, prefix)


def job_suspended_for_longer_than_time_hang_goes_on(f):
    job, prefix = started(f, small(examples(100000)[0], 1), "suspended", mode="inplace", extra=HANG)
    f.cli("suspend", job, expect=0)
    since = time.monotonic()
    wait_for("time.hang is over", lambda: time.monotonic() - since > 12)
    check(f.phase(job) == "suspended" and not reason(f, job), reason(f, job))
    f.cli("resume", job, expect=0)
    goes_on(f, job, prefix)


CASES = [stopped_rank_is_named_and_its_job_fails, stopped_stage_of_a_pipeline_is_named, rank_that_skips_a_collective_is_named,
         rank_that_does_not_come_to_a_new_communicator_is_named, rank_that_computes_is_named_and_goes_on,
         job_without_time_hang_is_named_and_goes_on, job_suspended_for_longer_than_time_hang_goes_on]


def hangs_are_named():
    failed = []

    def run(f, case):
        try:
            case(f)
            print(f"     {case.__name__}", flush=True)
        except Exception as e:  # the others are to be seen, too
            failed.append(f"{case.__name__}: {type(e).__name__}: {e}")
    with Fleet(nodes=2, gpus=6, **FAST) as f, concurrent.futures.ThreadPoolExecutor(len(CASES)) as pool:
        list(pool.map(lambda case: run(f, case), CASES))
        check(not failed, "\n".join(failed))


if __name__ == "__main__":
    main(hangs_are_named)
