# SPDX-License-Identifier: Apache-2.0
"""fleet.py - real fleets for the integration tests: host processes, CLI calls, kill -9, and a clean end.

Everything lives in one temporary folder; a test that fails prints the hosts' logs. Waiting is for a condition with a
deadline; the pauses in wait_for only bound how often it is looked at. Standard library only.
"""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(os.environ["ORRERY_BIN"])  # folder of orrery and digits, set by ctest
WORKLOADS = pathlib.Path(os.environ.get("ORRERY_WORKLOADS", BIN.parent))  # a build without sanitizers, see CMakeLists.txt
ROOT = pathlib.Path(__file__).resolve().parents[2]
ORRERY = str(BIN / "orrery")
# Stretches deadlines: a fleet with its ranks on two cores, maybe with sanitizers, next to another test.
SLOW = float(os.environ.get("ORRERY_TEST_SLOWNESS", "1" if (os.cpu_count() or 1) >= 8 else "3"))


def wait_for(what, condition, seconds=30.0, late=0.0):
    """Return condition()'s first true value; fail, naming `what`, when it is not true in time.  late: by which part of the time that
    has passed it may be seen late, for conditions that are dear to look at."""
    began = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - began
        if waited > seconds * SLOW:
            raise AssertionError(f"not within {seconds * SLOW:.0f} s: {what}")
        time.sleep(min(max(0.02, late * waited), 0.25))


def check(condition, text):
    if not condition:
        raise AssertionError(text)


class Result:
    def __init__(self, args, done):
        self.args, self.code, self.out, self.err = args, done.returncode, done.stdout, done.stderr

    def json(self):
        return json.loads(self.out)

    def __str__(self):
        return f"{' '.join(map(str, self.args))}: exit {self.code}\n--- stdout\n{self.out}--- stderr\n{self.err}"


class Fleet:
    """with Fleet(clusters=1, nodes=4, gpus=2) as f: f.cli("ps")"""

    def __init__(self, **shape):
        self.shape = shape
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="orr-it-"))
        self.state = self.top / "f"
        self.env = dict(os.environ, ORRERY_STATE=str(self.state))
        self.children = []

    def __enter__(self):
        options = [x for k, v in self.shape.items() for x in (f"--{k}", str(v))]
        try:
            self.cli("dev", "up", "--state", self.state, *options, expect=0, timeout=90)
        except BaseException:
            self.close(failed=True)
            raise
        return self

    def __exit__(self, kind, *_):
        self.close(failed=kind is not None)

    def close(self, failed=False):
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
        if failed:
            self.print_logs()
        try:
            down = self.cli("dev", "down", "--state", self.state, timeout=120)
            if not failed:
                check(down.code == 0, str(down))
                self.wait_gone()
                check(not self.device_files(), f"device files left behind: {self.device_files()}")
                check(not self.sanitizer_reports(), "".join(self.sanitizer_reports()))
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.top, ignore_errors=True)

    def wait_gone(self):
        """Killed ones take a moment to be gone."""
        left = []

        def are_gone():
            left[:] = self.processes()
            return not left
        try:
            wait_for("no process of it is left", are_gone, 10)
        except AssertionError as e:
            raise AssertionError(f"processes left behind: {[self._scan_line(pid) for pid in left]}") from e

    @staticmethod
    def _scan_line(pid):
        with contextlib.suppress(OSError):
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            return f"{pid} {state} {pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()[:200]}"
        return str(pid)

    def sanitizer_reports(self):
        """What a host built with sanitizers had to say, also when it stopped (leaks)."""
        texts = [log.read_text(errors="replace") for log in self.state.glob("*/host.log")]
        return [text[-5000:] for text in texts if "Sanitizer" in text or "runtime error:" in text]

    def print_logs(self):
        keep = os.environ.get("ORRERY_TEST_KEEP")  # a folder for the whole logs of fleets that failed
        for log in sorted(self.state.glob("*/host.log")):
            if keep:
                to = pathlib.Path(keep) / self.top.name
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy(log, to / f"{log.parent.name}.log")
            print(f"--- {log.parent.name}/host.log (end)\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)

    # ---- the CLI ----

    def cli(self, *args, expect=None, timeout=60, text_in=None):
        args = [str(a) for a in args]
        done = subprocess.run([ORRERY, *args], env=self.env, input=text_in, capture_output=True, text=True,
                              errors="replace", timeout=timeout * SLOW, cwd=self.top,
                              stdin=None if text_in is not None else subprocess.DEVNULL)
        result = Result(args, done)
        if expect is not None:
            check(done.returncode == expect, f"expected exit {expect}: {result}")
        return result

    def start_cli(self, *args):
        """A CLI that keeps running, e.g. `events -f`; ended with the fleet."""
        child = subprocess.Popen([ORRERY, *map(str, args)], env=self.env, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True, cwd=self.top)
        self.children.append(child)
        return child

    def submit(self, spec, expect=0):
        path = self.top / f"spec-{time.monotonic_ns()}.yaml"
        path.write_text(spec)
        result = self.cli("submit", path, "-o", "json", expect=expect)
        return result.json()["job"] if expect == 0 else result

    def show(self, job):
        return self.cli("show", job, "-o", "json", expect=0).json()

    def phase(self, job):
        return self.show(job)["row"]["phase"]

    def wait_phase(self, job, *phases, seconds=60):
        def reached():
            detail = self.show(job)
            phase = detail["row"]["phase"]
            if phase in ("done", "failed", "cancelled") and phase not in phases:
                raise AssertionError(f"{job} is {phase}, not {phases}: {json.dumps(detail)[:1500]}")
            return detail if phase in phases else None
        return wait_for(f"{job} in {phases}", reached, seconds, late=0.1)  # each look starts a CLI

    def log(self, job, rank=0, stderr=False):
        return self.cli("logs", job, "--rank", rank, *(["--stderr"] if stderr else []), expect=0).out

    # ---- processes ----

    def host_pid(self, host):
        rows = self.cli("dev", "status", "--state", self.state, "-o", "json", expect=0).json()
        return next(r["pid"] for r in rows if r["host"] == host)

    def region_hosts(self):
        """host -> pid of each host of the first region that runs."""
        rows = self.cli("dev", "status", "--state", self.state, "-o", "json", expect=0).json()
        return {r["host"]: r["pid"] for r in rows
                if r["role"] == "region" and r["host"].split("-")[0] == "r1" and r["pid"]}

    def leader(self, other_than=None, seconds=30):
        """The host that leads the first region by its own word."""
        def leads():
            rows = self.cli("dev", "status", "--state", self.state, "-o", "json", expect=0).json()
            found = [r["host"] for r in rows if r.get("leads") and r["host"].startswith("r1") and r["host"] != other_than]
            return found[0] if found else None
        return wait_for("a host leads the region", leads, seconds)

    def replicas(self):
        """host -> what its ledger says of itself."""
        return {i["host"]: i for i in self.cli("region", "ls", "-o", "json", expect=0).json()}

    def wait_alike(self, seconds=30):
        """Every replica is there, and means the same at the same index; one of them leads."""
        def alike():
            infos = self.replicas().values()
            return (sum(i["is_leading"] for i in infos) == 1 and len({i["digest"] for i in infos}) == 1 and
                    len({i["committed"] for i in infos}) == 1 and not any(i["trouble"] for i in infos))
        return wait_for("the replicas are alike", alike, seconds)

    def kill_host(self, host):
        pid = self.host_pid(host)
        check(pid, f"{host} does not run")
        os.kill(pid, signal.SIGKILL)
        wait_for(f"{host} is gone", lambda: not self.host_pid(host))

    def restart(self):
        self.cli("dev", "up", "--state", self.state, expect=0, timeout=90)

    def ranks(self, host):
        """Pids of the rank processes that belong to a node, found by their environment."""
        return self._environ_pids(f"ORRERY_NODE={host}")

    def rank_pid(self, job, rank):
        """The rank's own process, whatever it has started since: numbers wrap, so not the least."""
        pids = self._environ_pids(f"ORRERY_JOB={job}", f"RANK={rank}")
        first = [pid for pid in pids if self._parent(pid) not in (*pids, None)]
        check(len(first) == 1, f"processes of {job} rank {rank}: {first} of {pids}")
        return first[0]

    @staticmethod
    def _parent(pid):
        try:
            return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return None  # it has ended since it was listed: a child of the rank's

    def kill_node(self, host):
        """The whole machine at once: host process, its helper processes, and every rank.

        Helpers go first: a keeper that lives a moment longer writes down how its rank ended, which no lost machine does.
        """
        folder = str(self.state / host).encode()
        own = self.host_pid(host)
        with contextlib.suppress(ProcessLookupError):
            os.kill(own, signal.SIGKILL)
        helpers = self._scan(lambda cmd, env: cmd.split(b"\0")[0] == b"orrery" and folder + b"/ranks" in cmd.split(b"\0"))
        for pid in [*helpers, *self.ranks(host)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(f"no rank lives on {host}", lambda: not self.ranks(host))

    def processes(self):
        """Every living process that belongs to this fleet: started with its folder, or in its environment."""
        return self._scan(lambda cmd, env: str(self.top).encode() in cmd or
                          any(v.endswith(str(self.state).encode()) for v in env if v.startswith(b"ORRERY_STATE=")))

    def device_files(self):
        found = []
        for meta in self.state.glob("*/devices*"):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                found += [w for w in meta.read_text().replace("=", " ").split() if w.startswith("/dev/shm/")]
        return [f for f in found if os.path.exists(f)]

    def _environ_pids(self, *entries):
        """Jobs run in the folder that they were submitted from, so that says whose they are: other fleets have an n1, too."""
        want = {e.encode() for e in entries}
        found = self._scan(lambda cmd, env: want <= set(env) and b"orrery" not in os.path.basename(cmd.split(b"\0")[0]))
        return [pid for pid in found if self._is_ours(pid)]

    def _is_ours(self, pid):
        try:
            return os.readlink(f"/proc/{pid}/cwd").startswith(str(self.top))
        except OSError:
            return False

    def _scan(self, match):
        pids = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            try:
                proc = pathlib.Path("/proc") / entry
                if (proc / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                    continue
                if match((proc / "cmdline").read_bytes(), (proc / "environ").read_bytes().split(b"\0")):
                    pids.append(int(entry))
            except (OSError, IndexError):
                continue
        return pids


def digits(world, gpus, steps, extra=""):
    """Spec of a digits job; `gpus` devices, so world / gpus ranks share each."""
    return (f"name: digits\ncommand: [\"{WORKLOADS}/bin/digits\", --data, \"{ROOT}/examples/digits/data/digits.csv\","
            f" --steps, \"{steps}\", --log-every, \"10\"]\n"
            f"world: {world}\ngpus: {{min: {gpus}, max: {gpus}}}\ncheckpoint: {{mode: none}}\n{extra}")


def shell(script, extra="", name="sh"):
    return f"name: {name}\ncommand: [/bin/sh, -c, {json.dumps(script)}]\n{extra}"


def result_line(text):
    lines = [l for l in text.splitlines() if l.startswith("accuracy=")]
    check(len(lines) == 1, f"one result line expected, got {lines} in:\n{text[-2000:]}")
    return dict(f.split("=", 1) for f in lines[0].split())


def run_one(test):
    """Whether it passed; says so in a line."""
    started = time.monotonic()
    try:
        test()
        print(f"ok   {test.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
        return True
    except Exception as e:  # report every test
        print(f"FAIL {test.__name__}: {type(e).__name__}: {e}", flush=True)
        return False


def main(*tests, soak=(), at_once=1):
    """Run the tests whose names are given on the command line, or all, those in `soak` with SOAK=1 only; one line each, like the
    other suites.  Those that mostly wait may run several at once."""
    wanted, known = sys.argv[1:], [*tests, *soak]
    chosen = [t for t in known if t.__name__ in wanted] if wanted else known if os.environ.get("SOAK") else tests
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        passed = list(pool.map(run_one, chosen))
    sys.exit(0 if all(passed) else 1)
