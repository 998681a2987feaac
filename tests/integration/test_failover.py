# SPDX-License-Identifier: Apache-2.0
"""The leader of a replicated region is killed, hangs, or is cut off: running jobs do not notice, nothing that was acknowledged
is lost, new submits are taken within seconds. Each test prints one JSON line with the time from the fault to the first submit
that was acknowledged after it."""
import contextlib
import json
import os
import signal
import threading
import time

from cut import Cut
from fleet import SLOW, Fleet, check, main, shell, wait_for

FAILOVER_S = 5.0  # DESIGN 11, on a machine that has time for it: SLOW


class Submitters:
    """Clients that submit without a pause; what each was promised is kept."""

    def __init__(self, f, n):
        self.f, self.acked, self.refused = f, {}, []
        self.is_over = threading.Event()
        (f.top / "true.yaml").write_text(shell("true", "gpus: 0\n", name="true"))
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(n)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def _run(self, client):
        number = 0
        while not self.is_over.is_set():
            key = f"client-{client}-{number}"
            number += 1
            result = self.f.cli("submit", "true.yaml", "--key", key, "--timeout", "30s", "-o", "json")
            if result.code == 0:
                self.acked[key] = result.json()["job"]
            else:
                self.refused.append(str(result))

    def wait_more(self, n):
        want = len(self.acked) + n
        wait_for(f"{n} more submits are acknowledged", lambda: len(self.acked) >= want or self.refused, 60)
        check(not self.refused, "submits were refused:\n" + "\n".join(self.refused[:3]))


class Running:
    """Jobs that run through the whole test: the same processes of the same generation, started once."""

    def __init__(self, f):
        self.f = f
        wait = f"echo x >> {f.top}/started.$ORRERY_JOB.$RANK; while [ ! -e {f.top}/go ]; do sleep 0.1; done; echo end"
        self.worlds = {f.submit(shell(wait, f"world: {n}\ngpus: {n}\n")): n for n in (1, 2)}
        for job in self.worlds:
            f.wait_phase(job, "running")
        self.pids = self._pids()

    def _pids(self):
        return {(job, r): self.f.rank_pid(job, r) for job, n in self.worlds.items() for r in range(n)}

    def check_untouched(self):
        check(self._pids() == self.pids, f"processes were {self.pids}, are {self._pids()}")
        for job in self.worlds:
            row = self.f.show(job)["row"]
            check((row["phase"], row["generation"]) == ("running", 1), f"{job}: {json.dumps(row)}")

    def finish(self):
        (self.f.top / "go").write_text("")
        for job in self.worlds:
            self.f.wait_phase(job, "done")
            starts = [len(p.read_text().split()) for p in self.f.top.glob(f"started.{job}.*")]
            check(set(starts) == {1}, f"{job} started {starts} times")


class Followers:
    """Verbs that were started before the fault and must live through it."""

    def __init__(self, f, job):
        self.events = f.start_cli("events", "-f", "-o", "jsonl")
        self.logs = f.start_cli("logs", "-f", job)
        self.wait = f.start_cli("wait", job)
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.events.stdout))
        self.reader.start()

    def finish(self, last_job):
        check(self.wait.wait(30) == 0, f"wait: {self.wait.returncode}: {self.wait.stdout.read()}")
        check(self.logs.wait(30) == 0 and self.logs.stdout.read() == "end\n", f"logs -f: {self.logs.returncode}")
        wait_for("the last job's end is an event", lambda: any(f'"job/{last_job}"' in l and '"done"' in l for l in list(self.lines)))
        self.events.send_signal(signal.SIGINT)
        self.reader.join()
        bad = [l for l in self.lines if not l.startswith("{")]
        check(not bad, f"events -f: {bad[:3]}")
        events = [e for e in map(json.loads, self.lines) if e["type"] != "heartbeat"]
        check(len({e["epoch"] for e in events}) == 1, "one epoch")
        seqs = [e["seq"] for e in events]
        check(seqs == list(range(seqs[0], seqs[0] + len(seqs))), f"no gap and no copy in {seqs[:3]}..{seqs[-3:]}")


def check_kept(f, acked):
    """Every promise is there, once."""
    rows = {r["job"] for r in f.cli("ps", "-a", "-o", "json", expect=0).json()}
    missing = {key: job for key, job in acked.items() if job not in rows}
    check(not missing, f"acknowledged and lost: {missing}")
    check(len(set(acked.values())) == len(acked), "each key its own job")
    for key in list(acked)[::max(1, len(acked) // 5)]:
        again = f.cli("submit", "true.yaml", "--key", key, "-o", "json", expect=0).json()
        check(again == {"job": acked[key], "existed": True}, f"{key}: {again}, was {acked[key]}")
    for job in acked.values():
        f.wait_phase(job, "done")


def fail_over(fault, mend):
    """fault(f, leader) breaks the leader, mend() makes it whole; both are told when."""
    with Fleet(replicas=3, nodes=2, gpus=2) as f:
        running = Running(f)
        followers = Followers(f, next(iter(running.worlds)))
        old = f.leader()
        with Submitters(f, 2) as load:
            load.wait_more(10)
            started = time.monotonic()
            fault(f, old)
            f.cli("submit", "true.yaml", "--key", "first-after", "--timeout", "30s", expect=0)
            took = time.monotonic() - started
            load.wait_more(10)
            new = f.leader(other_than=old)
            running.check_untouched()
            mend(f, old)
            load.wait_more(10)
        f.wait_alike()
        running.check_untouched()
        check_kept(f, load.acked)
        last = f.submit(shell("true", "gpus: 0\n"))
        running.finish()
        f.wait_phase(last, "done")
        followers.finish(last)
        print(json.dumps({"test": fault.__name__, "first_submit_s": round(took, 3), "from": old, "to": new,
                          "acknowledged": len(load.acked)}), flush=True)
        check(took <= FAILOVER_S * SLOW, f"{took:.1f} s until a submit was acknowledged, at most {FAILOVER_S:.0f}")


def killed_leader_costs_nothing():
    def kill(f, host):
        f.kill_host(host)
    fail_over(kill, lambda f, _: f.restart())


def leader_that_hangs_costs_nothing():
    pids = {}

    def stop(f, host):
        pids[host] = f.host_pid(host)
        os.kill(pids[host], signal.SIGSTOP)
    try:
        fail_over(stop, lambda _, host: os.kill(pids[host], signal.SIGCONT))
    finally:
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def leader_that_is_cut_off_costs_nothing():
    wire = contextlib.ExitStack()

    def cut(f, host):
        addresses = {v["host"]: v["address"] for v in f.replicas()[host]["voters"]}
        wire.enter_context(Cut(f.region_hosts(), addresses, host))
    with wire:
        fail_over(cut, lambda *_: wire.close())


def lead_is_handed_over_before_an_upgrade():
    with Fleet(replicas=3, nodes=1, gpus=2) as f:
        job = f.submit(shell("while [ ! -e go ]; do sleep 0.1; done", "gpus: 1\n"))
        f.wait_phase(job, "running")
        pid = f.rank_pid(job, 0)
        with Submitters(f, 2) as load:
            for _ in range(3):
                old = f.leader()
                wanted = sorted(set(f.region_hosts()) - {old})[0]
                started = time.monotonic()
                moved = f.cli("region", "move", wanted, expect=0)
                took = time.monotonic() - started
                check(moved.out == f"{wanted} leads\n", moved.out)
                f.kill_host(old)
                load.wait_more(5)
                f.restart()
                f.wait_alike(60)
        check_kept(f, load.acked)
        row = f.show(job)["row"]
        check(f.rank_pid(job, 0) == pid and row["generation"] == 1, f"{pid} is now {f.rank_pid(job, 0)}: {row}")
        (f.top / "go").write_text("")
        f.wait_phase(job, "done")
        print(json.dumps({"test": "move", "move_s": round(took, 3), "acknowledged": len(load.acked)}), flush=True)


def region_without_a_majority_promises_nothing():
    with Fleet(replicas=3, nodes=1, gpus=1) as f:
        (f.top / "true.yaml").write_text(shell("true", "gpus: 0\n"))
        old = f.leader()
        others = [h for h in f.region_hosts() if h != old]
        for host in others:
            f.kill_host(host)
        refused = f.cli("submit", "true.yaml", "--key", "lonely", "--timeout", "5s")
        check(refused.code == 6, str(refused))
        f.restart()
        f.wait_alike()
        kept = f.cli("submit", "true.yaml", "--key", "lonely", "-o", "json", expect=0).json()
        f.wait_phase(kept["job"], "done")
        check(len(f.cli("ps", "-a", "-o", "json", expect=0).json()) == 1, "one key, one job")


def lost_host_is_replaced_by_another():
    with Fleet(replicas=3, nodes=1, gpus=1) as f:
        (f.top / "true.yaml").write_text(shell("true", "gpus: 0\n"))
        job = f.submit(shell("while [ ! -e go ]; do sleep 0.1; done", "gpus: 1\n"))
        f.wait_phase(job, "running")
        lost = f.leader()
        f.kill_host(lost)
        f.leader(other_than=lost)
        address = f"127.{os.getpid() % 250 + 1}.{time.monotonic_ns() % 250}.4:{20000 + os.getpid() % 9999}"
        endpoint = f"ipc://{f.state}/r1-4/sock"
        (f.state / "r1-4").mkdir()
        (f.state / "r1-4" / "host.yaml").write_text(
            f"host: r1-4\nregion: r1\nstate: {f.state}/r1-4\nlisten: [\"{endpoint}\"]\n"
            f"roles: {{region: {{ledger: {{join: true, address: \"{address}\", endpoint: \"{endpoint}\"}}}}}}\n")
        host = f.start_cli("host", "--config", f.state / "r1-4" / "host.yaml")
        f.cli("region", "add", "r1-4", "--address", address, "--endpoint", endpoint, expect=0)
        f.cli("region", "remove", lost, expect=0)
        infos = f.wait_alike()
        check(set(f.replicas()) == {"r1-1", "r1-2", "r1-3", "r1-4"} - {lost}, f"{infos}")
        f.cli("region", "move", "r1-4", expect=0)
        check(f.replicas()["r1-4"]["is_leading"], "the new host leads")
        kept = f.cli("submit", "true.yaml", "--key", "new", "-o", "json", expect=0).json()["job"]
        other = sorted(set(f.replicas()) - {"r1-4"})[0]
        f.cli("region", "move", other, expect=0)
        (f.top / "go").write_text("")
        f.wait_phase(job, "done")
        f.wait_phase(kept, "done")
        host.terminate()
        check(host.wait(20) == 0, f"the new host ends with {host.returncode}")


def one_host_goes_on_alone_when_the_others_are_gone_for_good():
    with Fleet(replicas=3, nodes=1, gpus=1) as f:
        job = f.submit(shell("while [ ! -e go ]; do sleep 0.1; done", "gpus: 1\n"))
        f.wait_phase(job, "running")
        f.wait_alike()
        for host in ("r1-1", "r1-2", "r1-3"):
            f.kill_host(host)
        config = f.state / "r1-2" / "host.yaml"
        empty = f.top / "empty.yaml"
        empty.write_text(config.read_text().replace(f"{f.state}/r1-2", f"{f.top}/empty"))
        refused = f.cli("host", "--config", empty, "--recover-alone", expect=1)
        check("has no ledger" in refused.err, refused.err)
        host = f.start_cli("host", "--config", config, "--recover-alone")

        def leads_alone():
            listed = f.cli("region", "ls", "-o", "json")
            return listed.code == 0 and [i["host"] for i in listed.json() if i["is_leading"]] == ["r1-2"]
        wait_for("r1-2 leads alone", leads_alone)
        check(set(f.replicas()) == {"r1-2"}, "the lost voters are forgotten")
        check("fail" not in f.cli("doctor", expect=0).out, "it is well")
        (f.top / "go").write_text("")
        detail = f.wait_phase(job, "done")
        check(detail["row"]["generation"] == 1, "the job was not touched")
        f.wait_phase(f.submit(shell("true", "gpus: 0\n")), "done")
        host.terminate()
        check(host.wait(20) == 0, f"the host ends with {host.returncode}")


main(killed_leader_costs_nothing,
     leader_that_hangs_costs_nothing,
     leader_that_is_cut_off_costs_nothing,
     lead_is_handed_over_before_an_upgrade,
     region_without_a_majority_promises_nothing,
     lost_host_is_replaced_by_another,
     one_host_goes_on_alone_when_the_others_are_gone_for_good)
