#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""checker.py - an independent checker of a fleet: it knows docs/protocol.md and what the ranks wrote down, and nothing of ours.

It follows the event streams of all replicas while things go wrong, reads the job table and the ledgers at the end, and
compares them with what clients were promised and with the ranks' own evidence (chaos_rank.c).

    checker.py RECORD.json     check a record that chaos.py left; prints what is wrong, exit 1 if anything is

A record: {"acked": {job: name}, "tried": [name], "streams": {host: [event]}, "gaps": {host: [[first, last]]},
"rows": {job: {name, phase, generation}}, "runs": [{job, generation, rank, pid, start, last}], "ledgers": {host: {...}},
"replays": {host: [event]}, "notes": [text]}.
"""
import json
import pathlib
import sys
import threading
import time

PHASES = ["queued", "placing", "launching", "running", "stopping", "suspended", "restoring", "unknown", "done", "failed",
          "cancelled", "moved"]
ENDS = {"done", "failed", "cancelled", "moved"}
LEGAL = {  # docs and include/orrery/sm.h say the same; written down here again on purpose
    "": {"queued"},
    "queued": {"placing"} | ENDS,
    "placing": {"queued", "launching", "running", "stopping", "unknown"} | ENDS,
    "launching": {"queued", "running", "stopping", "unknown"} | ENDS,
    "running": {"queued", "stopping", "unknown"} | ENDS,
    "stopping": {"queued", "unknown"} | ENDS,
    "unknown": {"queued", "launching", "running", "stopping"} | ENDS,
}


# ---- the rules: a record in, sentences out ----

def check_seqs(record):
    """Every replica tells every seq once, or says that it cannot; together they tell all."""
    for host, events in record["streams"].items():
        expected, gaps = None, {first: last for first, last in record["gaps"].get(host, [])}
        for event in events:
            seq = event["seq"]
            while expected is not None and expected in gaps:
                expected = gaps[expected] + 1
            if expected is not None and seq != expected:
                yield f"{host}: event {seq} came where {expected} was due"
            expected = seq + 1
    told = {e["seq"] for events in record["streams"].values() for e in events}
    if told and told != set(range(1, max(told) + 1)):
        missing = sorted(set(range(1, max(told) + 1)) - told)
        yield f"events {missing[:10]} were told by no replica"


def check_replicas(record):
    """The same seq is the same event everywhere, while followed and replayed."""
    known = {}
    for kind in ("streams", "replays"):
        for host, events in record.get(kind, {}).items():
            for event in events:
                first = known.setdefault(event["seq"], (host, event))
                if first[1] != event:
                    yield f"event {event['seq']} differs: {first[0]}: {first[1]}, {host}: {event}"
    ends = {host: events[-1]["seq"] for host, events in record.get("replays", {}).items() if events}
    if len(set(ends.values())) > 1:
        yield f"the replicas' streams end differently: {ends}"
    epochs = {event["epoch"] for _, event in known.values()}
    if len(epochs) > 1:
        yield f"more than one epoch, though no ledger was lost: {sorted(epochs)}"
    digests = {(ledger["committed"], ledger["digest"]) for ledger in record.get("ledgers", {}).values()}
    if len(digests) > 1:
        yield f"the replicas' ledgers differ at the end: {record['ledgers']}"


def union(record):
    events = {}
    for stream in record["streams"].values():
        for event in stream:
            events.setdefault(event["seq"], event)
    return [events[seq] for seq in sorted(events)]


def check_lives(record):
    """Each job's events are a way through the phases, and an older generation never speaks after a newer one."""
    phase, generation, ends = {}, {}, {}
    for event in union(record):
        if event["type"] != "job.state":
            continue
        job, seq = event["subject"].removeprefix("job/"), event["seq"]
        if event["from"] != phase.get(job, ""):
            yield f"event {seq}: {job} leaves {event['from']!r}, but it was {phase.get(job, '')!r}"
        if event["to"] not in LEGAL.get(event["from"], set()):
            yield f"event {seq}: {job} must not go from {event['from']!r} to {event['to']!r}"
        if event["generation"] < generation.get(job, 0):
            yield f"event {seq}: generation {event['generation']} of {job} after {generation[job]}"
        phase[job] = event["to"]
        generation[job] = max(event["generation"], generation.get(job, 0))
        ends[job] = ends.get(job, 0) + (event["to"] in ENDS)
    for job in record["acked"]:
        if job not in phase:
            yield f"{job} was acknowledged, and no event tells of it"
        elif ends[job] != 1:
            yield f"{job} was acknowledged and ended {ends[job]} times; it is {phase[job]}"
    for job, row in record["rows"].items():
        if row["phase"] != phase.get(job):
            yield f"{job} is {row['phase']} in the table, {phase.get(job)} by its events"
        if row["generation"] < generation.get(job, 0):
            yield f"{job} has generation {row['generation']} in the table, {generation[job]} in its events"


def check_submits(record):
    """What was acknowledged is there; what is there was asked for; one name, one job."""
    for job in record["acked"]:
        if job not in record["rows"]:
            yield f"{job} was acknowledged, and is lost"
    names = {}
    for job, row in record["rows"].items():
        if row["name"] not in record["tried"]:
            yield f"{job} ({row['name']}) was never submitted"
        if row["name"] in names:
            yield f"{row['name']} was submitted once, and is {names[row['name']]} and {job}"
        names[row["name"]] = job
    for job, name in record["acked"].items():
        if job in record["rows"] and record["rows"][job]["name"] != name:
            yield f"{job} was acknowledged as {name}, and is {record['rows'][job]['name']}"


def check_runs(record):
    """By the ranks' own word: each started once in a generation, and no two generations lived at once."""
    jobs, seen = {}, {}
    for run in record["runs"]:
        key = (run["job"], run["generation"], run["rank"])
        if key in seen:
            yield f"{run['job']} generation {run['generation']} rank {run['rank']} started twice: {seen[key]}, {run['pid']}"
        seen[key] = run["pid"]
        start, last = jobs.setdefault(run["job"], {}).get(run["generation"], (run["start"], run["last"]))
        jobs[run["job"]][run["generation"]] = (min(start, run["start"]), max(last, run["last"]))
    for job, generations in jobs.items():
        at = sorted(generations)
        for older, newer in zip(at, at[1:]):
            ended = max(generations[g][1] for g in at if g <= older)
            if ended >= generations[newer][0]:
                yield (f"{job}: generation {older} lived until {ended:.3f}, "
                       f"generation {newer} started at {generations[newer][0]:.3f}")
    for job, row in record["rows"].items():
        if row["phase"] == "done" and job not in jobs:
            yield f"{job} is done, and no rank of it ever ran"
    for pid in record.get("left", []):
        yield f"process {pid} of a rank lives on though every job has ended"


def check(record):
    found = list(record.get("notes", []))
    for rule in (check_seqs, check_replicas, check_lives, check_submits, check_runs):
        found += rule(record)
    return found


# ---- reading a fleet ----

def read_runs(folder):
    """What chaos_rank wrote: [{job, generation, rank, pid, start, last}]."""
    runs = []
    for path in sorted(pathlib.Path(folder).iterdir()):
        job, generation, rank, pid = path.name.rsplit(".", 3)
        times = [line.split() for line in path.read_text().splitlines()]
        times = [float(t[1]) for t in times if len(t) == 2]
        if times:
            runs.append({"job": job, "generation": int(generation), "rank": int(rank), "pid": int(pid),
                         "start": times[0], "last": times[-1]})
    return runs


class Follower(threading.Thread):
    """Follows one replica, whatever happens to it, from the first event on."""

    def __init__(self, host, endpoint):
        super().__init__(daemon=True)
        self.host, self.endpoint = host, endpoint
        self.events, self.gaps, self.notes = [], [], []
        self.links = 0
        self.is_over = threading.Event()

    def after(self):
        return max(self.events[-1]["seq"] if self.events else 0, self.gaps[-1][1] if self.gaps else 0)

    def take(self, page):
        after = self.after()
        if page["first_seq"] > after + 1 and page["through"] > after:
            self.gaps.append([after + 1, page["first_seq"] - 1])
        self.events += page["lines"]
        if page["through"] != self.after():
            self.notes.append(f"{self.host}: through {page['through']}, but its events end with {self.after()}")

    def run(self):
        import zmq
        from protocol_client import Failed
        context, client, epoch = zmq.Context(), None, 0
        while not self.is_over.is_set():
            try:
                if client is None:
                    client = connect(context, self.endpoint)
                    self.links += 1
                page = get_events(client, epoch, self.after(), 500)
                epoch = epoch or page["epoch"]
                if page["last_seq"] >= self.after():
                    self.take(page)
            except (TimeoutError, AssertionError, Failed) as trouble:
                if isinstance(trouble, Failed) and trouble.code == 15:
                    self.notes.append(f"{self.host}: {trouble}")
                    break
                if client:
                    client.socket.close()
                client = None
                self.is_over.wait(0.1)
        if client:
            client.socket.close()
        context.term()


def connect(context, endpoint, seconds=1.0):
    from protocol_client import Client
    return Client(context, endpoint, seconds=seconds)


def get_events(client, epoch, after, wait_ms):
    from protocol_client import EVENTS_GET
    _, body = client.ask("/edge/events", EVENTS_GET, [epoch, after, 0, wait_ms, ""], seconds=3)
    return {"epoch": body[0], "first_seq": body[1], "last_seq": body[2], "through": body[4],
            "lines": [json.loads(line) for line in body[3].decode().splitlines()]}


def replay(client):
    """The whole stream that a host keeps."""
    events, after = [], 0
    while True:
        page = get_events(client, 0, after, 0)
        events += page["lines"]
        if page["through"] >= page["last_seq"]:
            return events
        after = page["through"]


def read_rows(client, path):
    """{job: {name, phase, generation}} from job_list, page by page."""
    from protocol_client import JOB_LIST
    rows, after = {}, ""
    while True:
        _, (page, more) = client.ask(path, JOB_LIST, [after, 500, 0])
        for row in page:
            rows[row[0]] = {"name": row[1], "phase": PHASES[row[4]], "generation": row[5]}
            after = row[0]
        if not more or not page:
            return rows


def read_ledger(client):
    from protocol_client import LEDGER_INFO_GET
    _, body = client.ask("/edge/ledger", LEDGER_INFO_GET, [], seconds=3)
    return {"host": body[1], "term": body[2], "is_leading": body[3], "committed": body[5], "keys": body[6],
            "digest": body[8], "trouble": body[9]}


def read_ledgers(clients, seconds=30):
    """Of all hosts at one index: nothing is written any more, so they meet."""
    end = time.monotonic() + seconds
    while True:
        ledgers = {host: read_ledger(client) for host, client in clients.items()}
        if len({ledger["committed"] for ledger in ledgers.values()}) == 1 or time.monotonic() > end:
            return ledgers
        time.sleep(0.05)


def main():
    record = json.loads(pathlib.Path(sys.argv[1]).read_text())
    found = check(record)
    print("\n".join(found) or "nothing is wrong")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
