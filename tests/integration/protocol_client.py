#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""protocol_client.py - a client written from docs/protocol.md alone, with pyzmq and msgpack and nothing of ours: hello, ping,
unknown things, a whole job, and events without a gap.  So the page is enough to write one, or this test fails.

    protocol_client.py              start a fleet of its own (ORRERY_BIN) and talk to it
    protocol_client.py ENDPOINT     only ping the host there

Exit 77: pyzmq or msgpack is missing (Debian: python3-zmq, python3-msgpack).
"""
import json
import os
import pathlib
import struct
import sys
import time

try:
    import msgpack
    import zmq
except ImportError as missing:
    print(f"skipped: {missing}; apt-get install python3-zmq python3-msgpack")
    sys.exit(77)

HELLO, FAILED, PING, PONG = 0x0002, 0x0004, 0x000A, 0x000B
JOB_SUBMIT, JOB_SUBMITTED, JOB_WAIT, JOB_DETAIL = 0x0101, 0x0102, 0x0108, 0x0107
JOB_CANCEL, JOB_LIST, LEDGER_INFO_GET = 0x0103, 0x0104, 0x0504
REGION_INFO_GET, REGION_INFO, EVENTS_GET, EVENTS = 0x010D, 0x010E, 0x0401, 0x0402
NOBODY = [0, 0, 0]
CLIENT = 4
DONE = 8
EPROTO, ENOSYS, ENOENT, ESTALE, EINVAL, EPERM, EGONE, EVERSION = 1, 3, 7, 15, 9, 10, 11, 17


def fnv(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def pack(value):
    return msgpack.packb(value, use_bin_type=True)


class Failed(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


class Client:
    def __init__(self, context, endpoint, versions=(1, 1), seconds=10):
        self.name = f"client-{os.getpid()}-{os.urandom(8).hex()}"
        self.corr = 0
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(endpoint)
        self.send(HELLO, NOBODY, 0, 0, [*versions, self.name, 1, CLIENT, "protocol_client", ""])
        try:
            self.host = self.hello(seconds)
        except BaseException:
            self.socket.close()
            raise

    def hello(self, seconds):
        msg, _, _, body = self.receive(seconds)
        if msg == FAILED:
            raise Failed(body[0], body[2])
        assert msg == HELLO, msg
        return body[2]

    def send(self, msg, to, corr, timeout_ms, body):
        item = pack([msg, 0, to, [fnv(self.name), 1, 0], corr, timeout_ms, b""]) + pack(body)
        self.socket.send(b"OR\x01\x00" + struct.pack(">I", len(item)) + item)

    def receive(self, seconds):
        """The next item as (msg, flags, corr, body); hosts send one to a frame when they are as idle as here."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not self.socket.poll(left * 1000):
                raise TimeoutError("no answer")
            frame = self.socket.recv()
            assert frame[:4] == b"OR\x01\x00", frame
            if len(frame) == 4:
                continue  # a sign of life
            (length,) = struct.unpack(">I", frame[4:8])
            unpacker = msgpack.Unpacker(raw=False)
            unpacker.feed(frame[8:8 + length])
            envelope, body = list(unpacker)
            return envelope[0], envelope[1], envelope[4], body

    def ask(self, path, msg, body, seconds=10):
        self.corr += 1
        self.send(msg, [fnv(self.host), 0, fnv(path)], self.corr, int(seconds * 1000), body)
        while True:
            answer, flags, corr, body = self.receive(seconds)
            if flags == 1 and corr == self.corr:
                break
        if answer == FAILED:
            raise Failed(body[0], body[2])
        return answer, body


def fails_with(codes, call):
    try:
        call()
    except Failed as failed:
        assert failed.code in codes, failed
        return
    raise AssertionError("it succeeded")


def ping(context, endpoint):
    client = Client(context, endpoint)
    assert client.ask("/system", PING, [99]) == (PONG, [99])
    assert client.ask("/system", PING, [7, "of a newer version"]) == (PONG, [7])
    fails_with((ENOENT, EGONE), lambda: client.ask("/nobody", PING, [1]))
    fails_with((ENOSYS,), lambda: client.ask("/system", 0x7FFF, []))
    fails_with((EVERSION,), lambda: Client(context, endpoint, versions=(2, 9)))
    return client


def job_spec(command, workdir):
    """All fields, in the order of the table: a spec has no unfilled ones."""
    return ["from-python", "default", 1, [[word] for word in command], workdir, [["GREETING", "hi"]], 1, 0, 0, [], 0, 1,
            [], 0, [], 0, 900000, 3, 0, 0, 0, 300000, -1, 0, 1000, 600000]


def follow(client, epoch):
    """Every event up to the end of the stream, exactly once; then the heartbeat; then one topic alone."""
    after, lines = 0, []
    while True:
        _, page = client.ask("/edge/events", EVENTS_GET, [epoch, after, 3, 200, ""])
        assert page[0] == epoch and page[1] == 1 and after <= page[4] <= page[2], page
        if page[4] == after:
            break  # it waited, and nothing came
        after = page[4]
        lines += page[3].decode().splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["seq"] for e in events] == list(range(1, after + 1)), lines
    assert all(e["specversion"] == "1.0" for e in events)
    subject = next(e["subject"] for e in events if e["subject"].startswith("job/"))
    _, page = client.ask("/edge/events", EVENTS_GET, [epoch, 0, 0, 0, subject + "/"])
    mine = [json.loads(line) for line in page[3].decode().splitlines()]
    assert mine == [e for e in events if e["subject"] == subject] and page[4] == after
    fails_with((ESTALE,), lambda: client.ask("/edge/events", EVENTS_GET, [epoch + 1, 0, 0, 0, ""]))


def a_whole_job(client, region):
    path = "/" + region
    _, info = client.ask(path, REGION_INFO_GET, [])
    assert info[0] == region, info
    spec = pack(job_spec(["/bin/sh", "-c", "echo $GREETING"], "/"))
    answer, (job, existed) = client.ask(path, JOB_SUBMIT, ["key-1", "somebody", spec])[0:2]
    assert answer == JOB_SUBMITTED and not existed
    assert client.ask(path, JOB_SUBMIT, ["key-1", "somebody", spec])[1] == [job, True], "the same key is the same job"
    answer, detail = client.ask(path, JOB_WAIT, [job], seconds=60)
    assert answer == JOB_DETAIL and detail[0][0] == job and detail[0][4] == DONE, detail
    fails_with((EPROTO,), lambda: client.ask(path, JOB_SUBMIT, ["key-2", "somebody", b"\x90"]))
    no_command = pack(job_spec([], "/"))
    fails_with((EINVAL,), lambda: client.ask(path, JOB_SUBMIT, ["key-2", "somebody", no_command]))
    fails_with((ENOENT,), lambda: client.ask(path, JOB_WAIT, ["no-such-job"]))
    fails_with((EPERM,), lambda: client.ask(path, 0x0206, [job, 1, 0, 0, 0, -1, "", "", ""]))
    follow(client, info[3])


def main():
    context = zmq.Context()
    if len(sys.argv) > 1:
        ping(context, sys.argv[1]).socket.close()
    else:
        sys.path.insert(0, str(pathlib.Path(__file__).parent))
        import fleet
        with fleet.Fleet(clusters=1, nodes=1, gpus=1) as f:
            endpoint = (f.state / "endpoint").read_text().strip()
            client = ping(context, endpoint)
            a_whole_job(client, (f.state / "region").read_text().strip())
            client.socket.close()
    context.term()
    print("ok")


if __name__ == "__main__":
    main()
