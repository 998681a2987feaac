# SPDX-License-Identifier: Apache-2.0
"""Barriers on real processes: at random moments of the parallel examples all are reached, and nothing shows in their state; one
that cannot be reached lets everybody go on when its time is over, and says whom it waited for.

BARRIERS=100 (default 5) says how many each example gets, BARRIERS_SEED when.  How long they take: bench/bench_barrier.py.
"""
import contextlib
import ctypes
import os
import random
import re
import signal
import time

from barriers import Orders, barrier, cut_us
from fleet import Fleet, check, main, wait_for
from stops import examples, finished, started, undisturbed

BARRIERS = int(os.environ.get("BARRIERS", "5"))
SEED = int(os.environ.get("BARRIERS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
PATIENT = dict(heartbeat=100, suspect=10000, lease=30000)
STEPS = 200 + 80 * BARRIERS


def reached_at_random_moments(example):
    rng = random.Random(SEED)
    with Fleet(nodes=4, gpus=1, **PATIENT) as f:
        truth = undisturbed(f, example, example.name)
        job, prefix = started(f, example, example.name, mode="inplace")
        check(len({rank["node"] for rank in f.show(job)["ranks"]}) == 4, "its ranks are not on four nodes")
        orders, stops = Orders(f, job), []
        for _ in range(BARRIERS):
            time.sleep(rng.uniform(0, 0.2))  # the moment is what is random here
            if f.phase(job) == "done":  # a fast machine
                break
            stops.append(barrier(f, orders))
        orders.close()
        check(stops, "it had ended before its first barrier")
        finished(f, job, prefix, truth)
        print(f"     ({len(stops)} barriers, {max(map(cut_us, stops)) / 1000:.1f} ms at most, "
              f"{max(stop['barrier_targets']['rounds'] for stop in stops)} rounds)", flush=True)


def data_parallel_program_comes_to_a_cut_at_any_moment():
    reached_at_random_moments(examples(STEPS)[0])


def tensor_parallel_program_comes_to_a_cut_at_any_moment():
    reached_at_random_moments(examples(STEPS)[1])


def pipeline_comes_to_a_cut_at_any_moment():
    reached_at_random_moments(examples(STEPS)[2])


@contextlib.contextmanager
def process_stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def thread_held(pid):
    """Its first thread stands still, as one that computes for long; all others run, the library's too."""
    seize, interrupt, detach = 0x4206, 0x4207, 17
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]

    def ptrace(what):
        check(libc.ptrace(what, pid, None, None) == 0, f"ptrace {what:#x}: {os.strerror(ctypes.get_errno())}")

    ptrace(seize)
    ptrace(interrupt)
    os.waitpid(pid, 0x40000000)  # __WALL
    try:
        yield
    finally:
        ptrace(detach)


def names_its_culprit(hold, step, why):
    """A suspend while `hold` keeps a rank from its share fails after `step`, says whom and why, and the job runs on as it was."""
    rank = random.Random(SEED).randrange(8)
    digits = examples(600)[0]
    with Fleet(nodes=4, gpus=1, **PATIENT) as f:
        truth = undisturbed(f, digits, "digits")
        job, prefix = started(f, digits, "digits", mode="inplace", extra="time: {hang: 10s}\n")
        mine = wait_for("rank 0 has taken a step", lambda: next(f.top.glob(f"{prefix.name}*.0"), None), 60)
        with hold(f.rank_pid(job, rank)):
            def nobody_moves(last=[None, 0.0]):
                size, now = mine.stat().st_size, time.monotonic()
                if size != last[0]:
                    last[:] = [size, now]
                return now - last[1] > 1
            wait_for("its peers wait for it", nobody_moves)
            done = f.cli("suspend", job, timeout=60)
            check(done.code != 0 and step in done.err, str(done))
            check(re.search(rf"rank {rank}\b.*({why})", done.err), f"rank {rank} and why is not in: {done.err}")
            wait_for("it runs on", lambda: f.phase(job) == "running")
            size = mine.stat().st_size
        wait_for("steps after it", lambda: mine.stat().st_size > size)
        check(f.cli("suspend", job).code == 0, "the next barrier")  # nothing is left of the first
        f.cli("resume", job, expect=0)
        detail = finished(f, job, prefix, truth)
        check(detail["restarts"] == 0, "it was started again")


def barrier_that_a_stopped_process_does_not_answer_names_it():
    names_its_culprit(process_stopped, "barrier_begin", "does not answer")


def barrier_that_a_rank_computes_through_names_it_and_its_communicator():
    names_its_culprit(thread_held, "barrier_targets", r"has issued \d+ of \d+ .*communicator [0-9a-f]{16}|a call of NCCL.* does not end")


if __name__ == "__main__":
    print(f"BARRIERS_SEED={SEED} BARRIERS={BARRIERS}", flush=True)
    main(barrier_that_a_rank_computes_through_names_it_and_its_communicator,
         soak=(barrier_that_a_stopped_process_does_not_answer_names_it,
               data_parallel_program_comes_to_a_cut_at_any_moment,
               tensor_parallel_program_comes_to_a_cut_at_any_moment,
               pipeline_comes_to_a_cut_at_any_moment),
         at_once=2)
