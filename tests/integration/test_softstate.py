# SPDX-License-Identifier: Apache-2.0
"""Redis killed, stopped, emptied, filled with garbage, restarted empty: no job notices, status says degraded, and
everything is there again within 5 s of its return.  SOAK=1: it is stopped for 60 s, as long as a real one may hang."""
import json
import os
import signal
import subprocess
import time

from fleet import Fleet, check, digits, main, shell, wait_for

BACK_S = 5.0  # stretched where the machine is slow; what it took is printed
STOPPED_S = 60.0 if os.environ.get("SOAK") == "1" else 4.0


class Redis:
    """The private Redis of a fleet, as its admin."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.dir = fleet.state / "redis"

    def ask(self, *args):
        password = (self.dir / "admin-password").read_text().strip()
        done = subprocess.run(["redis-cli", "-s", str(self.dir / "sock"), "--user", "admin", "--pass", password,
                               "--no-auth-warning", *args], capture_output=True, text=True, timeout=30)
        return done.stdout.strip() if done.returncode == 0 else None

    def put(self, key, value):
        """Any bytes."""
        password = (self.dir / "admin-password").read_text().strip()
        subprocess.run(["redis-cli", "-x", "-s", str(self.dir / "sock"), "--user", "admin", "--pass", password,
                        "--no-auth-warning", "SET", key], input=value, capture_output=True, timeout=30, check=True)

    def pid(self):
        return next(r["pid"] for r in status(self.fleet) if r["host"] == "redis")

    def keys(self):
        return set((self.ask("KEYS", "*") or "").split())

    def signal(self, number):
        os.kill(self.pid(), number)


def status(f):
    return f.cli("dev", "status", "--state", f.state, "-o", "json", expect=0).json()


def soft(f):
    return next(r["softstate"] for r in status(f) if r["role"] == "region")


def top(f):
    return f.cli("top", "-o", "json", expect=0).json()


def wait_ok(f):
    wait_for("soft state is in Redis", lambda: soft(f) == "redis" and top(f)["source"] == "redis")


def degraded_everywhere(f):
    for out in (lambda: soft(f), lambda: f.cli("tree", "-o", "json", expect=0).json()["softstate"]):
        wait_for("degraded", lambda: out().startswith("degraded: "))
    wait_for("top says so", lambda: top(f)["softstate"] == "degraded")


class Untouched:
    """A running job must not notice: same phase, generation, place and processes, and no event."""

    def __init__(self, fleet, *jobs):
        self.fleet, self.jobs = fleet, jobs
        self.before = self.look()

    def look(self):
        rows = {}
        for job in self.jobs:
            detail = self.fleet.show(job)
            row = detail["row"]
            ranks = [(r["rank"], r["node"], self.fleet.rank_pid(job, r["rank"])) for r in detail["ranks"]]
            rows[job] = (row["phase"], row["generation"], row["changed_unix_ms"], detail["restarts"], sorted(ranks))
        events = [e for e in self.fleet.cli("events", "-o", "json", expect=0).json()
                  if e.get("subject", "").removeprefix("job/") in self.jobs]
        return rows, len(events)

    def check(self, what):
        now = self.look()
        check(now == self.before, f"{what} was noticed:\n{self.before}\n{now}")


def right(redis, want):
    """All of `want` is there, decodes (top leaves out what does not) and has a TTL."""
    if not want <= redis.keys():
        return False
    t = top(redis.fleet)
    return soft(redis.fleet) == "redis" and t["source"] == "redis" and t["garbage"] == 0 and len(t["nodes"]) == 2 and len(t["hosts"]) == 4


def measured(what, redis, want, start):
    wait_for(f"{what}: all is back", lambda: right(redis, want), BACK_S)
    took = time.monotonic() - start
    print(json.dumps({"bench": f"softstate_{what}", "value": round(took * 1000), "unit": "ms"}), flush=True)
    for key in want:
        check(0 < int(redis.ask("PTTL", key)) <= 15000, f"{key} has a TTL")


def fleet_with_jobs(f):
    jobs = [f.submit(shell("sleep 1000", "world: 2\ngpus: 2\n")), f.submit(digits(2, 2, 1000000))]
    for job in jobs:
        f.wait_phase(job, "running")
    redis = Redis(f)
    wait_ok(f)
    want = {"orrery:r1:host:r1", "orrery:r1:host:c1", "orrery:r1:host:n1", "orrery:r1:host:n2", "orrery:r1:cluster:c1",
            "orrery:r1:node:c1/n1", "orrery:r1:node:c1/n2", "orrery:r1:progress:c1/n1", "orrery:r1:progress:c1/n2"}
    wait_for("all is published", lambda: right(redis, want))
    return redis, want, Untouched(f, *jobs)


def whatever_happens_to_redis_no_job_notices():
    with Fleet(nodes=2, gpus=2) as f:
        redis, want, jobs = fleet_with_jobs(f)

        redis.signal(signal.SIGKILL)
        degraded_everywhere(f)
        jobs.check("SIGKILL")
        f.restart()  # starts what does not run: an empty Redis
        measured("restarted_empty", redis, want, time.monotonic())
        jobs.check("a restart of Redis")

        redis.signal(signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            degraded_everywhere(f)
            f.wait_phase(f.submit(shell("true", "gpus: 0\n")), "done")  # life goes on meanwhile
            wait_for("it was stopped long enough", lambda: time.monotonic() - stopped > STOPPED_S, STOPPED_S + 5)
            check(soft(f).startswith("degraded: "), "degraded all the time")
        finally:
            redis.signal(signal.SIGCONT)
        measured("continued", redis, want, time.monotonic())
        jobs.check("SIGSTOP")

        redis.ask("FLUSHALL")
        measured("flushed", redis, want, time.monotonic())
        jobs.check("FLUSHALL")

        for i, key in enumerate(sorted(redis.keys())):
            redis.ask("DEL", key)
            redis.ask(*(["SET", key, "\x93\xc0 garbage"] if i % 2 else ["RPUSH", key, "a", "b"]))
        start = time.monotonic()
        top(f)
        measured("garbage", redis, want, start)
        jobs.check("garbage")


def lies_about_jobs_are_not_believed():
    """Soft state never decides: a key that says a job has ended, or that there is another, changes no job."""
    with Fleet(nodes=2, gpus=2) as f:
        redis, _, jobs = fleet_with_jobs(f)
        redis.ask("MSET", *(word for i in range(50) for word in (f"orrery:r1:job:r1-{i}", "\x01\x02")))
        redis.ask("SET", "orrery:r1:region", "lie")
        check(top(f)["garbage"] >= 45, "garbage is counted")
        check(len(f.cli("ps", "-o", "json", expect=0).json()) == 2, "ps asks the region then")
        redis.ask("SET", "orrery:r1:region", "lie")
        listed = [j["row"]["job"] for j in top(f)["jobs"]]
        check(sorted(listed) == sorted(jobs.jobs), f"top lists each job once: {listed}")
        jobs.check("lies")


def pack(value):
    """msgpack, as docs/protocol.md has it: what a host would write."""
    if isinstance(value, list):
        return b"\xdc" + len(value).to_bytes(2, "big") + b"".join(map(pack, value))
    if isinstance(value, str):
        return b"\xd9" + bytes([len(value.encode())]) + value.encode()
    return b"\xcf" + value.to_bytes(8, "big")


def ps_reads_soft_state_when_it_is_complete_and_fresh():
    """Of a region that nobody runs: what is listed can only be from Redis."""
    with Fleet(nodes=1, gpus=1) as f:
        redis = Redis(f)
        wait_ok(f)

        def publish(jobs, age_ms=0):
            now = int(time.time() * 1000) - age_ms
            redis.put("orrery:eu9:region", pack([now, "eu9", "h9", jobs, 0, jobs, 1, 8, 4, 1, 1]))
            for i in range(3):
                redis.put(f"orrery:eu9:job:eu9-{i}", pack([now, [f"eu9-{i}", "train", "nlp", 1, 3, 1, 8, 8, "a", now - i * 1000,
                                                                 now, 0, ""]]))

        def ps(*options):
            return f.cli("ps", "--region-name", "eu9", "-o", "json", *options)

        publish(3)
        redis.put("orrery:eu9:job:eu9-4", b"garbage")
        rows = ps().json()
        check([r["job"] for r in rows] == ["eu9-2", "eu9-1", "eu9-0"], f"oldest first: {rows}")
        check(all(r["phase"] == "running" and 0 <= r["age_ms"] < 10000 for r in rows), f"with their age: {rows}")
        for what, options in ((lambda: publish(4), ()), (lambda: publish(3, age_ms=6000), ()), (lambda: publish(3), ("--fresh",)),
                              (lambda: publish(3), ("-a",)), (lambda: publish(3), ("--region", f"ipc://{f.top}/none"))):
            what()
            check(ps(*options).code != 0, "then the region is asked, and there is none of that name")


def row_of_an_ended_job_does_not_stay():
    """Its removal was lost, or another host's edge wrote it: `ps` must not show it as running for long."""
    with Fleet(nodes=1, gpus=1) as f:
        redis = Redis(f)
        wait_ok(f)
        job = f.submit(shell("true", "gpus: 0\n"))
        f.wait_phase(job, "done")
        key = f"orrery:r1:job:{job}"
        wait_for("its row is gone", lambda: key not in redis.keys())
        now = int(time.time() * 1000)
        redis.put(key, pack([now, [job, "train", "nlp", 1, 3, 1, 8, 8, "a", now, now, 0, ""]]))
        wait_for("it is gone again", lambda: key not in redis.keys(), 10)
        check(f.cli("ps", "-o", "json", expect=0).json() == [], "and ps lists nothing")


def fleet_without_redis_keeps_soft_state_in_memory():
    with Fleet(nodes=1, gpus=1, softstate="memory") as f:
        check(soft(f) == "memory", soft(f))
        t = top(f)
        check(t["softstate"] == "ok" and t["source"] == "memory" and len(t["nodes"]) == 1, json.dumps(t))
        check(not (f.state / "redis").exists(), "no Redis was made")


def users_of_redis_can_do_no_more_than_they_need():
    fleet = Fleet(nodes=1, gpus=1)
    (fleet.state / "redis").mkdir(parents=True)  # of an earlier `dev up`, or of somebody who waits for passwords
    (fleet.state / "redis").chmod(0o755)
    (fleet.state / "redis" / "password").touch(0o644)
    with fleet as f:
        redis = Redis(f)
        wait_ok(f)
        check(redis.ask("SET", "other", "1") == "OK", "the admin may")
        for path in (redis.dir, redis.dir / "sock", redis.dir / "users.acl", redis.dir / "admin-password"):
            check(path.stat().st_mode & 0o077 == 0, f"{path} is nobody else's")
        for user, file in (("orrery", "password"), ("reader", "reader-password")):
            check((redis.dir / file).stat().st_mode & 0o077 == 0, f"{file} is nobody else's")
            password = (redis.dir / file).read_text().strip()
            for command in (["FLUSHALL"], ["GETRANGE", "other", "0", "1"], ["CONFIG", "GET", "*"], ["EVAL", "return 1", "0"],
                            ["ACL", "LIST"], ["KEYS", "*"]) + ((["SET", "orrery:x", "1"],) if user == "reader" else ()):
                done = subprocess.run(["redis-cli", "-s", str(redis.dir / "sock"), "--user", user, "--pass", password,
                                       "--no-auth-warning", *command], capture_output=True, text=True, timeout=30)
                check("NOPERM" in done.stdout + done.stderr, f"{user} may not {command}: {done.stdout}")
        done = subprocess.run(["redis-cli", "-s", str(redis.dir / "sock"), "PING"], capture_output=True, text=True, timeout=30)
        check("NOAUTH" in done.stdout + done.stderr, f"nobody without a password: {done.stdout}")


if __name__ == "__main__":
    main(whatever_happens_to_redis_no_job_notices, lies_about_jobs_are_not_believed,
         ps_reads_soft_state_when_it_is_complete_and_fresh, row_of_an_ended_job_does_not_stay, fleet_without_redis_keeps_soft_state_in_memory, users_of_redis_can_do_no_more_than_they_need)
