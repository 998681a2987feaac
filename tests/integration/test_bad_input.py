# SPDX-License-Identifier: Apache-2.0
"""Bad input of every kind: a clear error and the documented exit code, and nobody else notices."""
import os
import re
import socket
import struct
import subprocess

from fleet import ORRERY, Fleet, check, main, shell, wait_for

BROKEN = {  # what is wrong: (spec, what the error must name)
    "unknown key": ("name: a\ncommand: [x]\ngpu: 2\n", r":3:1: .*gpu.*did you mean .?gpus"),
    "wrong type": ("name: a\ncommand: [x]\nworld: many\n", r":3:8: .*world"),
    "bad range": ("name: a\ncommand: [x]\nworld: 0\n", r":3:8: .*world"),
    "no command": ("name: a\n", r"command"),
    "bad tier": ("name: a\ncommand: [x]\ntier: gold\n", r":3:7: .*tier.*premium"),
    "bad duration": ("name: a\ncommand: [x]\ntime: {limit: 7 parsecs}\n", r":3:\d+: .*limit"),
    "anchor": ("name: &a x\ncommand: [*a]\n", r":1:\d+: .*anchor"),
    "twice": ("name: a\nname: b\ncommand: [x]\n", r":2:1: .*name"),
    "not YAML": ("name: [a\ncommand: x\n", r":\d+:\d+: "),
    "min above max": ("name: a\ncommand: [x]\nworld: 8\ngpus: {min: 8, max: 4}\n", r"gpus"),
    "empty": ("", r"command|empty|name"),
}


def broken_specs_are_refused_with_their_place():
    with Fleet(nodes=1, gpus=1) as f:
        for what, (spec, pattern) in BROKEN.items():
            result = f.submit(spec, expect=2)
            check(re.search(pattern, result.err), f"{what}: {pattern} not in {result}")
        check(f.cli("ps", "-a", "-o", "jsonl", expect=0).out == "", "nothing was queued")


def wrong_verbs_and_options_are_usage_errors():
    with Fleet(nodes=1, gpus=1) as f:
        for args in (["sbumit", "x"], ["ps", "--nope"], ["submit"], ["submit", "/no/such/file.yaml"], ["show"],
                     ["logs", "-o", "xml", "j"], ["dev", "sideways"], ["host"], ["host", "--config", "/no/such.yaml"]):
            result = f.cli(*args)
            check(result.code == 2 and result.err.strip(), f"{result}")
        check("submit" in f.cli("sbumit").err, "a suggestion")
        for args in (["show", "r1-none"], ["logs", "r1-none"], ["wait", "r1-none"]):
            check(f.cli(*args).code == 4, f"{args}: exit 4")
    with_nobody = dict(os.environ, ORRERY_REGION="ipc:///tmp/orr-nobody.sock")
    with_nobody.pop("ORRERY_STATE", None)
    done = subprocess.run([ORRERY, "ps"], env=with_nobody, capture_output=True, text=True, timeout=60)
    check(done.returncode == 3 and "orr-nobody" in done.stderr, done.stderr)


def host_config_errors_have_a_place():
    with Fleet(nodes=1, gpus=1) as f:
        config = (f.state / "n1" / "host.yaml").read_text()
        for line, pattern in (("workerz: 3\n", r"bad.yaml:\d+:1: .*workerz.*workers"),
                              ("listen: [\"tcp://0.0.0.0:7000\"]\n", r"bad.yaml:\d+:\d+: .*listen")):
            bad = f.top / "bad.yaml"
            bad.write_text((config if line.startswith("w") else re.sub(r"listen:.*\n", "", config)) + line)
            result = f.cli("host", "--config", bad)
            check(result.code == 2 and re.search(pattern, result.err), f"{result}")
        result = f.cli("host", "--config", f.state / "n1" / "host.yaml")
        check(result.code == 1 and "in use" in result.err, f"a second host on the same state: {result}")


GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL" + b"\0" * 16 + b"\0" + b"\0" * 31
GARBAGE = [
    b"GET / HTTP/1.0\r\n\r\n",
    b"\xff" + struct.pack(">Q", 0xa7733bcc11dac7e2) + bytes(64),  # ZMTP 1.0: a frame of 12 EB
    os.urandom(4096),
    GREETING,
    GREETING + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER" + b"\0\x05hello",
    GREETING + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER" + b"\0\x08OR\x01\0" + struct.pack(">I", 0xffffffff),
    GREETING + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER" + b"\x02" + struct.pack(">Q", 1 << 62),
    b"",
]


def garbage_at_every_port_disturbs_nobody():
    with Fleet(nodes=2, gpus=1) as f:
        job = f.submit(shell("while [ ! -e go ]; do sleep 0.1; done; echo finished", f"gpus: 2\nworkdir: {f.top}\n"))
        f.wait_phase(job, "running")
        sockets = sorted(f.state.glob("*/sock"))
        sockets = [s for s in sockets if s.parent.name != "redis"]  # a program of its own
        check(len(sockets) == 4, f"r1 c1 n1 n2: {sockets}")
        pids = {h: f.host_pid(h) for h in ("r1", "c1", "n1", "n2")}
        for path in sockets:
            for data in GARBAGE:
                with socket.socket(socket.AF_UNIX) as s:
                    s.settimeout(5)
                    s.connect(str(path))
                    try:
                        s.sendall(data)
                        s.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass  # the host may hang up first
        check(f.phase(job) == "running", "the job runs on")
        (f.top / "go").write_text("")
        f.wait_phase(job, "done")
        check(pids == {h: f.host_pid(h) for h in pids}, "every host is the same process")
        wait_for("both nodes are up", lambda: f.cli("node", "ls").out.count(" up ") == 2)


main(broken_specs_are_refused_with_their_place,
     wrong_verbs_and_options_are_usage_errors,
     host_config_errors_have_a_place,
     garbage_at_every_port_disturbs_nobody)
