# SPDX-License-Identifier: Apache-2.0
"""What stopping a job costs: suspend, resume, save, restore, through a whole fleet on emulated devices; JSON lines.

    bench_checkpoint.py [MIB [ROUNDS]]      MIB on each rank's device (default 256), ROUNDS of each (default 5)

Rates are bytes by the difference between a job with MIB on its devices and one with none; what the latter takes is the fixed cost.
Their limit is measured in the same run: the least of memcpy, the store's hash, and the disk under the store, written and synced.
"""
import contextlib
import ctypes
import json
import mmap
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/integration"))
from fleet import ROOT, WORKLOADS, Fleet, check, wait_for  # noqa: E402

MIB = int(sys.argv[1]) if len(sys.argv) > 1 else 256
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
PAIRS, OVERHEAD_STEPS = int(os.environ.get("PAIRS", "21")), 200
GIB = 1 << 30
FAST = dict(heartbeat=100, suspect=2000, lease=5000)


def report(bench, value, unit, peer=None, peer_value=None, **more):
    ratio = value / peer_value if peer_value else None
    print(json.dumps({"bench": bench, "value": round(value, 4), "unit": unit, "peer": peer,
                      "peer_value": peer_value and round(peer_value, 4), "ratio": ratio and round(ratio, 3), **more}), flush=True)


def missing(bench, why):
    print(json.dumps({"bench": bench, "value": None, "why": why}), flush=True)


def rate(bench, nbytes, took, fixed, *peer, **more):
    """Of bytes, by what they cost beyond the fixed cost; nothing where that is lost in its noise."""
    if took - fixed < fixed / 10:
        missing(bench, f"{nbytes >> 20} MiB took {took:.3f} s, none of it {fixed:.3f} s: too little to tell; raise MIB")
        return
    report(bench, nbytes / (took - fixed) / GIB, "GiB/s", *peer, **more)


def timed(action):
    began = time.monotonic()
    action()
    return time.monotonic() - began


# ---- the limit ----


def memcpy_rate(size=256 << 20):
    source, target = mmap.mmap(-1, size), mmap.mmap(-1, size)
    view = memoryview(source)
    for at in range(0, size, 4096):
        source[at] = target[at] = 1
    return size / min(timed(lambda: target.__setitem__(slice(0, size), view)) for _ in range(3))


def hash_rate(size=64 << 20):
    """The store's, one thread for each core as the store has; ctypes lets go of the interpreter's lock."""
    data, cores, sodium = os.urandom(size), os.cpu_count(), ctypes.CDLL("libsodium.so.23")
    one = ctypes.c_ulonglong(size)

    def hash_all():
        threads = [threading.Thread(target=lambda: sodium.crypto_generichash(
            ctypes.create_string_buffer(32), ctypes.c_size_t(32), data, one, None, ctypes.c_size_t(0))) for _ in range(cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return size * cores / min(timed(hash_all) for _ in range(3))


def disk_rate(folder, size=256 << 20):
    path, data = pathlib.Path(folder) / "rate", os.urandom(1 << 20)

    def write():
        with open(path, "wb", buffering=0) as f:
            for _ in range(size >> 20):
                f.write(data)
            os.fsync(f.fileno())
        path.unlink()

    return size / min(timed(write) for _ in range(2))


# ---- jobs ----


def spec(name, mib, world, gpus, host_mib=0, own_mib=0, mode="auto", step_ms=2):
    words = [WORKLOADS / "bin/hold", "--mib", mib, "--host-mib", host_mib, "--own-mib", own_mib, "--step-ms", step_ms,
             "--log-every", 20]
    command = ", ".join(f'"{w}"' for w in words)
    return (f"name: {name}\ncommand: [{command}]\nworld: {world}\ngpus: {{min: {gpus}, max: {gpus}}}\n"
            f"checkpoint: {{mode: {mode}, every: 24h}}\n")


@contextlib.contextmanager
def running(f, name, **shape):
    job = f.submit(spec(name, **shape))
    f.wait_phase(job, "running", seconds=90)
    wait_for("its first steps", lambda: "step=" in f.log(job), 120)
    yield job
    f.cli("cancel", job)
    f.wait_phase(job, "cancelled", "failed", seconds=60)


def steps_done(f, job):
    return len(f.log(job).splitlines())


def goes_on(f, job):
    before = steps_done(f, job)
    wait_for("steps after it", lambda: steps_done(f, job) > before, 60)


def device_free(f):
    """Bytes free on all emulated devices of a fleet, by their own files."""
    lists = [path.read_text() for path in f.state.glob("*/emulated_devices")]
    paths = sorted({word for text in lists for word in re.findall(r"/dev/shm/[^\s:=\"]+", text) if os.path.exists(word)})
    done = subprocess.run([WORKLOADS / "bin/emu-device", "--free", *paths], capture_output=True, text=True, check=True)
    return int(done.stdout)


# ---- the benchmarks ----


def suspend_resume(f, job, held=0):
    """Seconds of both orders, and the ms of each of their steps; `held` bytes are free on the devices while it is suspended."""
    times, steps = {"suspend": [], "resume": []}, {}
    for _ in range(ROUNDS):
        before = device_free(f)
        for order in times:
            times[order].append(timed(lambda: f.cli(order, job, expect=0, timeout=120)))
            freed = device_free(f) - before
            check(order == "resume" or freed >= held, f"suspended, only {freed} bytes more are free, of {held}")
        goes_on(f, job)
        for step in f.show(job)["stop"]:
            steps.setdefault(step["cut_step"], []).append(step["took_us"] / 1000)
    return {order: statistics.median(values) for order, values in times.items()}, steps


def save(f, job):
    """One checkpoint; its row and the seconds until it is recorded."""
    began = time.monotonic()
    row = f.cli("checkpoint", job, "-o", "json", expect=0, timeout=300).json()
    return row, time.monotonic() - began


def level_is_image(f, job):
    detail = f.show(job)
    return detail.get("level") == "image", detail.get("why_level", "")


def rates(f, limit):
    shape = dict(world=2, gpus=2)
    with running(f, "empty", mib=0, **shape) as job:
        empty, steps = suspend_resume(f, job)
        has_image, why = level_is_image(f, job)
    for name, ms in steps.items():
        report(f"checkpoint_fixed_{name}", statistics.median(ms), "ms", rounds=len(ms))
    with running(f, "full", mib=MIB, **shape) as job:
        nbytes = 2 * MIB << 20
        full, _ = suspend_resume(f, job, nbytes)
        copy_s = nbytes / limit["memcpy"]
        report("checkpoint_suspend_to_free", full["suspend"], "s", "1 s + bytes / memcpy", 1 + copy_s, mib=nbytes >> 20)
        for order in full:
            report(f"checkpoint_{order}_fixed", empty[order] * 1000, "ms", "orrery version", version_s(f) * 1000)
            rate(f"checkpoint_{order}", nbytes, full[order], empty[order], "memcpy", limit["memcpy"] / GIB, mib=nbytes >> 20)
    if not has_image:
        missing("checkpoint_save", f"level is not image: {why}")
        return
    with running(f, "empty", mib=0, **shape) as job:
        empty_save = save(f, job)[1]
    with running(f, "full", mib=MIB, **shape) as job:
        row, took = save(f, job)
        least = min(limit, key=limit.get)
        rate("checkpoint_save", nbytes, took, empty_save, f"least of memcpy, hash, disk: {least}", limit[least] / GIB,
             paused_ms=row["paused_ms"], bytes=row["bytes"], fixed_ms=round(empty_save * 1000))
        restore(f, job, nbytes)


def version_s(f):
    return min(timed(lambda: f.cli("version")) for _ in range(3))


def restore(f, job, nbytes):
    """Moved to the cluster's other nodes, which is one save and one restore: the pause that its log shows."""
    home = {r["node"] for r in f.show(job)["ranks"]}
    others = sorted({f"n{i}" for i in range(1, 5)} - home)
    began = time.monotonic()
    moved = f.cli("migrate", job, "--to", f"node:{others[0]}", timeout=300)
    if moved.code != 0:
        missing("checkpoint_migrate", moved.err.strip())
        return
    goes_on(f, job)
    report("checkpoint_migrate", nbytes / (time.monotonic() - began) / GIB, "GiB/s")


def dedup(f):
    """Eight data parallel ranks on four devices: what they store together by what one rank has."""
    one = MIB // 4
    with running(f, "ranks", mib=one, own_mib=1, world=8, gpus=4) as job:
        if not level_is_image(f, job)[0]:
            missing("checkpoint_dedup_8_ranks", "level is not image")
            return
        row, _ = save(f, job)
        report("checkpoint_dedup_8_ranks", row["new_bytes"] / (one << 20), "x of one rank's device state", "all ranks' bytes",
               row["bytes"] / (one << 20))
        row, _ = save(f, job)
        report("checkpoint_again", row["new_bytes"] / row["bytes"] * 100, "% of the checkpoint's bytes")


def increment(f):
    """An image of host memory that nothing has touched since the last one."""
    with running(f, "idle", mib=1, host_mib=MIB, world=1, gpus=1, step_ms=20) as job:
        if not level_is_image(f, job)[0]:
            missing("checkpoint_increment_idle", "level is not image")
            return
        first, _ = save(f, job)
        second, _ = save(f, job)
        report("checkpoint_increment_idle", second["new_bytes"] / first["bytes"] * 100, "% of the first")


def overhead(f):
    """The example in one job of its own, with both libraries and with them taken out, in turn: what a pair of runs took, compared."""
    run = f"time '{WORKLOADS}/bin/digits' --data '{ROOT}/examples/digits/data/digits.csv' --steps {OVERHEAD_STEPS} --log-every {OVERHEAD_STEPS}"
    script = f"TIMEFORMAT='took %R %U %S'; for i in {{0..{PAIRS}}}; do {run}; (unset LD_PRELOAD; {run}); done"
    job = f.submit(f'name: overhead\ncommand: [/bin/bash, -c, "{script}"]\nworld: 1\ngpus: 1\ncheckpoint: {{mode: none}}\n')
    f.wait_phase(job, "done", seconds=600)
    check(len(set(re.findall(r"digest=(\w+)", f.log(job)))) == 1, "the runs differ in their result")
    lines = re.findall(r"took (\S+) (\S+) (\S+)", f.log(job, stderr=True))[2:]  # the first pair warms up
    took = [[float(word) for word in line] for line in lines]
    check(len(took) == 2 * PAIRS, f"{len(took)} runs of {2 * PAIRS}")
    for name, value in (("", lambda t: t[0]), ("_cpu", lambda t: t[1] + t[2])):
        with_both, direct = [value(t) for t in took[::2]], [value(t) for t in took[1::2]]
        report(f"checkpoint_overhead_digits{name}", statistics.median(a / b * 100 - 100 for a, b in zip(with_both, direct)), "%",
               pairs=PAIRS, direct_s=statistics.median(direct), of_the_fastest=round((min(with_both) / min(direct) - 1) * 100, 2))


def calls():
    """What is added to one collective, by the program of the acceptance on a GPU."""
    lib, real = WORKLOADS / "lib/rank", WORKLOADS / "lib/emulator"
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top:
        device = f"{top}/gpu"
        subprocess.run([WORKLOADS / "bin/emu-device", device, "64"], check=True)
        done = subprocess.run([WORKLOADS / "bin/probe_calls", real / "libcuda.so.1", lib / "libcuda.so.1", real / "libnccl.so.2",
                               lib / "libnccl.so.2"], env=dict(os.environ, ORRERY_EMULATOR_DEVICES=device), capture_output=True,
                              text=True, timeout=120)
    for line in done.stdout.splitlines():
        row = json.loads(line)
        name = "collective" if row["call"].startswith("nccl") else "driver_call"
        report(f"checkpoint_added_to_a_{name}", row["added_ns"], "ns", row["call"], row["direct_ns"])
    if done.returncode != 0:
        missing("checkpoint_added_to_a_collective", done.stderr.strip())


def tried(name, action, *args):
    try:
        action(*args)
    except (AssertionError, subprocess.SubprocessError, OSError, KeyError) as error:
        missing(f"checkpoint_{name}", str(error)[:300])


def main():
    tried("added_to_a_collective", calls)
    with Fleet(clusters=1, nodes=4, gpus=2, memory=f"{max(256, 2 * MIB)}MiB", **FAST) as f:
        limit = {"memcpy": memcpy_rate(), "hash": hash_rate(), "disk": disk_rate(f.state)}
        for name, rate in limit.items():
            report(f"checkpoint_limit_{name}", rate / GIB, "GiB/s")
        tried("rates", rates, f, limit)
        tried("dedup", dedup, f)
        tried("increment", increment, f)
        tried("overhead", overhead, f)


main()
