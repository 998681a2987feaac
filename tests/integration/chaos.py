#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""chaos.py - a real fleet, jobs, and random SIGKILL and SIGSTOP of anything in it; checker.py judges what it left.

    chaos.py [--seed N] [--minutes M] [--jobs J] [--replicas R] [--clusters C] [--nodes N] [--gpus G] [--lease MS]
             [--spare KIND,...] [--record FILE]

The schedule follows from the seed and is printed first; who is hit by a blow at a node's ranks depends on what runs there.
Blows: kill and stop a host (region, cluster, node, Redis), kill a machine (node host and all that it runs), kill and stop a rank,
a keeper, the spawner of a node. Only processes of the fleet that it started itself are ever signalled. After the last blow everything is
brought back, and every acknowledged job must end. ORRERY_BIN: folder of the programs. Exit 77: pyzmq or msgpack is missing.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

try:
    import msgpack  # noqa: F401 (checked here, used by protocol_client)
    import zmq
except ImportError as missing:
    print(f"skipped: {missing}; apt-get install python3-zmq python3-msgpack")
    sys.exit(77)

import checker
from fleet import BIN, ORRERY, SLOW, Fleet, wait_for
from protocol_client import EINVAL, ENOENT, EPROTO, JOB_CANCEL, JOB_SUBMIT, Failed, job_spec, pack

ESTATE = 4
SETTLE_S = 120  # after the last blow every job has ended by then
GAP_S = 1.0     # mean time between blows
RANK = str(BIN / "chaos_rank")


# ---- the schedule ----

def make_schedule(rng, hosts, seconds, spare, lease_s):
    """[(at, blow, target, seconds)], all from the seed. A keeper stops for half a lease at most: it is the last who can
    freeze its rank when the node's host is dead, so one that stands still beyond the lease is outside of what is promised."""
    nodes = [h for h in hosts if h[0] == "n"]
    blows = ["kill_host"] * 4 + ["stop_host"] * 3 + ["kill_machine", "kill_rank", "kill_rank", "stop_rank", "kill_keeper",
                                                    "stop_keeper", "kill_spawner", "stop_spawner"]
    kinds = {"r": "region", "c": "cluster", "n": "node"}
    victims = [h for h in hosts if h not in spare and kinds[h[0]] not in spare]
    schedule, at = [], 2.0
    while at < seconds:
        blow = rng.choice(blows)
        target = rng.choice(victims if blow.endswith("_host") else nodes)
        duration = rng.uniform(0.3, 5.0)
        if blow == "stop_keeper":
            duration = min(duration, lease_s / 2)
        schedule.append((round(at, 2), blow, target, round(duration, 2)))
        at += rng.expovariate(1 / GAP_S)
    return [s for s in schedule if s[1] not in spare]


# ---- the blows ----

class Chaos:
    def __init__(self, fleet, rng):
        self.fleet, self.rng = fleet, rng
        self.hosts = {}      # started by us: {name: Popen}
        self.due = []        # [(when, what to do, name)]
        self.frozen = set()  # pids
        self.counts = {}

    def pid_of(self, host):
        """Of the host process; None when it does not run. Never a stranger's with the same number."""
        try:
            pid, started = (self.fleet.state / host / "pid").read_text().split()
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, ValueError):
            return None
        return int(pid) if fields[19] == started and fields[0] != "Z" else None

    def send(self, pid, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def freeze(self, pid, seconds):
        self.send(pid, signal.SIGSTOP)
        self.frozen.add(pid)
        self.due.append((time.monotonic() + seconds, "thaw", pid))

    def kill_host(self, host, seconds):
        pid = self.pid_of(host)
        if pid:
            self.send(pid, signal.SIGKILL)
            self.due.append((time.monotonic() + seconds, "start", host))
        return [pid] if pid else []

    def stop_host(self, host, seconds):
        pid = self.pid_of(host)
        if pid:
            self.freeze(pid, seconds)
        return [pid] if pid else []

    def kill_machine(self, node, seconds):
        pids = self.kill_host(node, seconds)
        for _ in range(3):  # a keeper may have started one more
            found = self.of_node(node)
            for pid in found:
                self.send(pid, signal.SIGKILL)
            pids += found
        return pids

    def one_of(self, pids, number, seconds=0):
        if not pids:
            return []
        pid = self.rng.choice(pids)
        if number == signal.SIGSTOP:
            self.freeze(pid, seconds)
        else:
            self.send(pid, number)
        return [pid]

    def kill_rank(self, node, _):
        return self.one_of(self.ranks(node), signal.SIGKILL)

    def stop_rank(self, node, seconds):
        return self.one_of(self.ranks(node), signal.SIGSTOP, seconds)

    def kill_keeper(self, node, _):
        return self.one_of(self.of_node(node, "orrery-keeper"), signal.SIGKILL)

    def kill_spawner(self, node, _):
        return self.one_of(self.of_node(node, "orrery-spawner"), signal.SIGKILL)

    def stop_keeper(self, node, seconds):
        return self.one_of(self.of_node(node, "orrery-keeper"), signal.SIGSTOP, seconds)

    def stop_spawner(self, node, seconds):
        return self.one_of(self.of_node(node, "orrery-spawner"), signal.SIGSTOP, seconds)

    def ranks(self, node):
        return [pid for pid in self.fleet.ranks(node) if comm(pid) == "chaos_rank"]

    def of_node(self, node, name=None):
        """Helpers and ranks of a node: they have its folder on their command line or are its ranks."""
        folder = str(self.fleet.state / node).encode()
        own = self.pid_of(node)
        pids = [pid for pid in self.fleet.processes() if pid != own and belongs(pid, folder)]
        return [pid for pid in pids + self.ranks(node) if name is None or comm(pid) == name]

    def start(self, host):
        if self.pid_of(host):
            return
        folder = self.fleet.state / host
        command = [ORRERY, "host", "--config", str(folder / "host.yaml")]
        if host == "redis":
            command = ["redis-server", str(folder / "redis.conf")]
        with open(folder / "host.log", "ab") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.fleet.env,
                                     start_new_session=True)
        fields = pathlib.Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        (folder / "pid").write_text(f"{child.pid} {fields[19]}\n")
        self.hosts[host] = child

    def do_due(self):
        now = time.monotonic()
        for child in self.hosts.values():
            child.poll()
        for entry in [d for d in self.due if d[0] <= now]:
            self.due.remove(entry)
            if entry[1] == "start":
                self.start(entry[2])
            elif entry[2] in self.frozen:
                self.frozen.discard(entry[2])
                self.send(entry[2], signal.SIGCONT)

    def run(self, schedule, seconds):
        began = time.monotonic()
        for at, blow, target, duration in [*schedule, (seconds, None, None, 0)]:
            while time.monotonic() - began < at:
                self.do_due()
                time.sleep(0.02)
            if blow and getattr(self, blow)(target, duration):
                self.counts[blow] = self.counts.get(blow, 0) + 1

    def heal(self, hosts):
        for pid in list(self.frozen):
            self.send(pid, signal.SIGCONT)
        self.frozen.clear()
        self.due.clear()
        for host in hosts:
            self.start(host)


def comm(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def belongs(pid, folder):
    """Does a process name that folder on its command line, or sit in it?"""
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        fds = [os.readlink(f"/proc/{pid}/fd/{fd}").encode() for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any(w == folder or w.startswith(folder + b"/") for w in words + fds)


# ---- the clients ----

class Submitter(threading.Thread):
    """Submits jobs over the protocol, each until it is acknowledged; cancels some."""

    def __init__(self, endpoints, region, folder, rng, n_jobs, seconds, gpus):
        super().__init__(daemon=True)
        self.endpoints, self.path, self.folder = endpoints, "/" + region, folder
        self.rng, self.n_jobs, self.seconds, self.gpus = rng, n_jobs, seconds, gpus
        self.tried, self.acked, self.notes = [], {}, []
        self.context, self.client, self.at = zmq.Context(), None, 0
        self.is_over = threading.Event()

    def ask(self, msg, body):
        """From any host of the region; None: no answer, so nothing is known."""
        try:
            if self.client is None:
                self.client = checker.connect(self.context, self.endpoints[self.at % len(self.endpoints)])
            return self.client.ask(self.path, msg, body, seconds=2)
        except Failed as failed:
            if failed.code in (ENOENT, ESTATE, EINVAL, EPROTO):  # an answer, too
                self.notes += [f"{body[0]}: {failed}"] * (msg == JOB_SUBMIT)
                return msg, None
        except (TimeoutError, AssertionError):
            pass
        self.at += 1
        if self.client:
            self.client.socket.close()
            self.client = None
        self.is_over.wait(0.05)
        return None

    def insist(self, msg, body):
        while not self.is_over.is_set():
            answer = self.ask(msg, body)
            if answer:
                return answer[1]
        return None

    def spec(self, name):
        world = self.rng.choice([1, 1, 2, 3, 4])
        command = [RANK, str(self.folder / "runs"), f"{self.rng.uniform(0.5, max(6.0, self.seconds / 3)):.2f}"]
        spec = job_spec(command, str(self.folder))
        spec[0], spec[6] = name, world
        spec[7] = spec[8] = self.rng.choice([0, 1, world]) if self.gpus else 0
        spec[15] = 4  # checkpoint: none
        spec[23], spec[24], spec[25] = 50, 100, 1000  # retries of the user, backoff
        return pack(spec)

    def run(self):
        began = time.monotonic()
        for i in range(self.n_jobs):
            self.is_over.wait(max(0, began + i * self.seconds / self.n_jobs - time.monotonic()))
            name = f"chaos-{i}"
            self.tried.append(name)
            made = self.insist(JOB_SUBMIT, [name, "chaos", self.spec(name)])
            if made:
                self.acked[made[0]] = name
            if made and self.rng.random() < 0.1:
                self.insist(JOB_CANCEL, [made[0], "chaos"])
        if self.client:
            self.client.socket.close()
        self.context.term()


# ---- a run ----

def region_rows(endpoints, region):
    """The job table of whoever leads; None: nobody answers yet."""
    context = zmq.Context()
    try:
        for endpoint in endpoints.values():
            with contextlib.suppress(TimeoutError, AssertionError, Failed):
                client = checker.connect(context, endpoint)
                try:
                    return checker.read_rows(client, "/" + region)
                finally:
                    client.socket.close()
        return None
    finally:
        context.term()


def read_end(record, endpoints, has_ledger):
    """What every host has at the end; nodes may still come back, so until all tell the same."""
    context, clients = zmq.Context(), {}
    end = time.monotonic() + 30 * SLOW
    try:
        for host, endpoint in endpoints.items():
            clients[host] = checker.connect(context, endpoint, 10)
        while not record["replays"] or (len({r[-1]["seq"] if r else 0 for r in record["replays"].values()}) > 1
                                        and time.monotonic() < end):
            record["replays"] = {host: checker.replay(client) for host, client in clients.items()}
        if has_ledger:
            record["ledgers"] = checker.read_ledgers(clients)
    except (TimeoutError, AssertionError, Failed) as trouble:
        record["notes"].append(f"the hosts cannot be read at the end: {trouble}")
    for client in clients.values():
        client.socket.close()
    context.term()


def settle(f, chaos, submitter, endpoints, region, record):
    """Until every acknowledged job has ended, or a note that says which has not."""
    def ended():
        chaos.do_due()
        rows = region_rows(endpoints, region)
        record["rows"] = rows or record["rows"]
        return rows and not submitter.is_alive() and all(rows.get(j, {"phase": "done"})["phase"] in checker.ENDS
                                                         for j in [*submitter.acked, *rows])
    try:
        wait_for("every job has ended", ended, SETTLE_S)
        wait_for("no rank lives", lambda: not any(comm(p) == "chaos_rank" for p in f.processes()), 30)
    except AssertionError as late:
        live = {j: r["phase"] for j, r in record["rows"].items() if r["phase"] not in checker.ENDS}
        record["notes"].append(f"{late}; live: {live}")


def catch_up(followers, record):
    """Until the followers have what the hosts have."""
    def is_there():
        return all(f.after() >= max((e["seq"] for e in record["replays"].get(f.host, [])), default=0) for f in followers)
    with contextlib.suppress(AssertionError):
        wait_for("the followers have caught up", is_there, 20)
    for f in followers:
        f.is_over.set()
        f.join(10)
        record["streams"][f.host], record["gaps"][f.host] = f.events, f.gaps
        record["notes"] += f.notes


def run_chaos(f, options, rng):
    region = (f.state / "region").read_text().strip()
    hosts = sorted(p.parent.name for p in f.state.glob("*/host.yaml"))
    endpoints = {h: f"ipc://{f.state}/{h}/sock" for h in hosts if h[0] == "r"}
    if (f.state / "redis" / "redis.conf").exists():
        hosts.append("redis")
    seconds = options.minutes * 60
    schedule = make_schedule(rng, hosts, seconds, options.spare, (options.lease or 30000) / 1000)
    for at, blow, target, duration in schedule:
        print(f"  {at:7.2f} s  {blow:12} {target:5}  {duration} s")
    (f.top / "runs").mkdir()
    record = {"streams": {}, "gaps": {}, "rows": {}, "notes": [], "replays": {}, "ledgers": {}}
    chaos = Chaos(f, rng)
    followers = [checker.Follower(h, e) for h, e in endpoints.items()]
    submitter = Submitter(list(endpoints.values()), region, f.top, random.Random(options.seed + 1), options.jobs,
                          seconds / 2, options.gpus)
    for thread in [*followers, submitter]:
        thread.start()
    try:
        chaos.run(schedule, seconds)
    finally:
        chaos.heal(hosts)
    settle(f, chaos, submitter, endpoints, region, record)
    submitter.is_over.set()
    submitter.join(10)
    record["acked"], record["tried"] = submitter.acked, submitter.tried
    record["notes"] += submitter.notes
    read_end(record, endpoints, options.has_ledger)
    catch_up(followers, record)
    record["runs"] = checker.read_runs(f.top / "runs")
    record["left"] = [p for p in f.processes() if comm(p) == "chaos_rank"]
    print(f"blows: {chaos.counts}; links to the event streams: {[t.links for t in followers]}")
    return record


def summary(record):
    rows = record["rows"].values()
    events = {h: len(e) for h, e in record["streams"].items()}
    ends = {phase: sum(r["phase"] == phase for r in rows) for phase in sorted(checker.ENDS)}
    return (f"{len(record['acked'])} submits acknowledged, {ends}, {len(record['runs'])} rank runs, generations up to "
            f"{max((r['generation'] for r in rows), default=0)}, events {events}, gaps {record['gaps']}")


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--minutes", type=float, default=0.3)
    p.add_argument("--jobs", type=int, default=12)
    p.add_argument("--replicas", type=int, default=3)
    p.add_argument("--clusters", type=int, default=1)
    p.add_argument("--nodes", type=int, default=3)
    p.add_argument("--gpus", type=int, default=2)
    p.add_argument("--lease", type=int, help="ms; short ones end while hosts are stopped")
    p.add_argument("--spare", type=lambda text: text.split(","), default=[])
    p.add_argument("--record", type=pathlib.Path)
    options = p.parse_args()
    if not os.path.exists(RANK):
        sys.exit(f"{RANK} is missing: ORRERY_BIN must name a build with tests")
    options.has_ledger = "ledger" not in options.spare
    return options


def main():
    options = parse()
    print(f"seed {options.seed}, {options.minutes * 60:.0f} s, {options.jobs} jobs", flush=True)
    shape = {"clusters": options.clusters, "nodes": options.nodes, "gpus": options.gpus, "slots": 8}
    if options.replicas > 1:
        shape["replicas"] = options.replicas
    if options.lease:
        shape.update(lease=options.lease, suspect=options.lease // 4, heartbeat=options.lease // 16)
    with Fleet(**shape) as f:
        record = run_chaos(f, options, random.Random(options.seed))
        found = checker.check(record)
        if options.record or found:
            path = options.record or pathlib.Path(f"{f.top}.chaos.json")
            path.write_text(json.dumps(record))
            print(f"record: {path}")
        if options.record and found:  # sockets have no content to copy
            shutil.copytree(f.state, f"{options.record}.state", dirs_exist_ok=True,
                            ignore=lambda folder, names: [n for n in names if (pathlib.Path(folder) / n).is_socket()])
        print(summary(record))
        if found:
            raise AssertionError(f"{len(found)} things are wrong (seed {options.seed}):\n" + "\n".join(found[:40]))
    print("ok: nothing lost, nothing doubled, every event accounted for")


if __name__ == "__main__":
    main()
