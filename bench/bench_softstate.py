# SPDX-License-Identifier: Apache-2.0
"""How long after its return an empty Redis has everything again: 11 rounds, one JSON line."""
import json
import os
import pathlib
import signal
import statistics
import subprocess
import tempfile
import time

ORRERY = str(pathlib.Path(os.environ["ORRERY_BIN"]) / "orrery")
ROUNDS = 11
DEADLINE_S = 30
AWAY_S = 3  # then the pauses between attempts have grown to their longest


def orrery(state, *args):
    done = subprocess.run([ORRERY, *args], env=dict(os.environ, ORRERY_STATE=state), capture_output=True, text=True,
                          timeout=60, check=True)
    return done.stdout


def status(state):
    return json.loads(orrery(state, "dev", "status", "--state", state, "-o", "json"))


def wait_for(what, condition):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"bench_softstate: not within {DEADLINE_S} s: {what}")
        time.sleep(0.005)


class Redis:
    def __init__(self, state):
        self.dir = pathlib.Path(state) / "redis"

    def ask(self, *args):
        return subprocess.run(["redis-cli", "-s", str(self.dir / "sock"), "--user", "admin", "--pass",
                               (self.dir / "admin-password").read_text().strip(), "--no-auth-warning", *args],
                              capture_output=True, text=True, timeout=30).stdout.split()


def one_round(state, redis, want):
    killed = time.monotonic()
    os.kill(next(r["pid"] for r in status(state) if r["host"] == "redis"), signal.SIGKILL)
    wait_for("degraded", lambda: next(r for r in status(state) if r["role"] == "region")["softstate"] != "redis")
    wait_for("hosts knock as seldom as they ever do", lambda: time.monotonic() - killed > AWAY_S)
    up = subprocess.Popen([ORRERY, "dev", "up", "--state", state], stdout=subprocess.DEVNULL)
    wait_for("Redis answers", lambda: redis.ask("PING") == ["PONG"])
    start = time.monotonic()
    wait_for("all keys", lambda: want <= set(redis.ask("KEYS", "*")))
    took_ms = (time.monotonic() - start) * 1000
    up.wait()
    wait_for("not degraded", lambda: next(r for r in status(state) if r["role"] == "region")["softstate"] == "redis")
    return took_ms


def main():
    with tempfile.TemporaryDirectory(prefix="orr-bench-") as top:
        state = f"{top}/f"
        orrery(state, "dev", "up", "--state", state, "--nodes", "4", "--gpus", "2")
        try:
            redis = Redis(state)
            want = {f"orrery:r1:host:{h}" for h in ("r1", "c1", "n1", "n2", "n3", "n4")}
            want |= {f"orrery:r1:{kind}:c1/n{i}" for kind in ("node", "progress") for i in range(1, 5)}
            want |= {"orrery:r1:cluster:c1"}
            wait_for("all keys at first", lambda: want <= set(redis.ask("KEYS", "*")))
            rounds = sorted(one_round(state, redis, want) for _ in range(ROUNDS))
        finally:
            orrery(state, "dev", "down", "--state", state)
    print(json.dumps({"bench": "softstate_recovery", "value": round(statistics.median(rounds)), "unit": "ms",
                      "p99": round(rounds[-1]), "rounds": ROUNDS, "peer": None, "peer_value": None, "ratio": None}))


main()
