#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The checker of the chaos test finds what it is for: recorded streams with one thing wrong each."""
import copy
import sys

import checker

WAY = ["", "queued", "placing", "launching", "running"]


def life(job, first_seq, generations=1, end="done"):
    """A job's events: generations - 1 times back to the queue, then its end."""
    steps = [(a, b, 0 if b == "queued" else 1) for a, b in zip(WAY, WAY[1:])]
    for g in range(2, generations + 1):
        steps += [("running", "queued", g - 1)] + [(a, b, g) for a, b in zip(WAY[1:], WAY[2:])]
    steps.append(("running", end, generations))
    return [{"epoch": 7, "seq": first_seq + i, "type": "job.state", "subject": f"job/{job}", "from": a, "to": b,
             "generation": g} for i, (a, b, g) in enumerate(steps)]


def good():
    events = life("r1-1", 1) + life("r1-2", 6, generations=2)
    return {
        "acked": {"r1-1": "one", "r1-2": "two"}, "tried": ["one", "two"], "gaps": {}, "notes": [],
        "streams": {h: copy.deepcopy(events) for h in ("r1-1", "r1-2", "r1-3")},
        "replays": {h: copy.deepcopy(events) for h in ("r1-1", "r1-2", "r1-3")},
        "rows": {"r1-1": {"name": "one", "phase": "done", "generation": 1},
                 "r1-2": {"name": "two", "phase": "done", "generation": 2}},
        "runs": [{"job": "r1-1", "generation": 1, "rank": 0, "pid": 10, "start": 1.0, "last": 2.0},
                 {"job": "r1-2", "generation": 1, "rank": 0, "pid": 11, "start": 1.0, "last": 2.0},
                 {"job": "r1-2", "generation": 1, "rank": 1, "pid": 12, "start": 1.1, "last": 2.1},
                 {"job": "r1-2", "generation": 2, "rank": 0, "pid": 13, "start": 2.2, "last": 3.0},
                 {"job": "r1-2", "generation": 2, "rank": 1, "pid": 14, "start": 2.3, "last": 3.0}],
        "ledgers": {h: {"committed": 90, "digest": 5} for h in ("r1-1", "r1-2", "r1-3")},
        "left": [],
    }


def spoil(part):
    def run(change):
        record = good()
        change(record)
        found = checker.check(record)
        assert any(part in f for f in found), f"{change.__name__}: wanted {part!r}, got {found}"
        print(f"ok   {change.__name__}")
    return run


def everywhere(record, change):
    for kind in ("streams", "replays"):
        for events in record[kind].values():
            change(events)


def main():
    assert checker.check(good()) == [], checker.check(good())

    @spoil("event 5 came where 4 was due")
    def hole_in_one_stream(r):
        del r["streams"]["r1-2"][3]

    @spoil("events [4] were told by no replica")
    def hole_that_all_name(r):
        for host, events in r["streams"].items():
            del events[3]
            r["gaps"][host] = [[4, 4]]

    @spoil("event 4 came where 5 was due")
    def event_told_twice(r):
        r["streams"]["r1-1"].insert(4, r["streams"]["r1-1"][3])

    @spoil("event 4 differs")
    def replicas_disagree(r):
        r["streams"]["r1-3"][3]["to"] = "unknown"

    @spoil("streams end differently")
    def replica_that_stays_behind(r):
        r["replays"]["r1-3"].pop()

    @spoil("ledgers differ")
    def ledgers_disagree(r):
        r["ledgers"]["r1-2"]["digest"] = 6

    @spoil("more than one epoch")
    def epoch_changes(r):
        everywhere(r, lambda events: events[-1].update(epoch=8))

    @spoil("generation 1 lived until 2.100, generation 2 started at 2.050")
    def doubled_generation(r):
        r["runs"][3]["start"] = 2.05

    @spoil("rank 0 started twice")
    def doubled_rank(r):
        r["runs"].append(dict(r["runs"][0], pid=99, start=1.5))

    @spoil("was acknowledged, and is lost")
    def lost_submit(r):
        del r["rows"]["r1-1"]

    @spoil("no event tells of it")
    def lost_submit_without_events(r):
        r["acked"]["r1-9"] = "nine"

    @spoil("ended 0 times; it is running")
    def job_that_never_ends(r):
        everywhere(r, lambda events: events.pop())

    @spoil("ended 2 times")
    def job_that_ends_twice(r):
        everywhere(r, lambda events: events.append(dict(events[-1], seq=events[-1]["seq"] + 1)))

    @spoil("must not go from 'queued' to 'running'")
    def phase_is_skipped(r):
        everywhere(r, lambda events: events[1].update(to="running"))

    @spoil("but it was 'placing'")
    def event_that_does_not_follow(r):
        everywhere(r, lambda events: events[2].update({"from": "queued", "to": "placing"}))

    @spoil("generation 1 of r1-2 after 2")
    def old_generation_speaks(r):
        everywhere(r, lambda events: events[-1].update(generation=1))

    @spoil("is failed in the table, done by its events")
    def table_and_events_disagree(r):
        r["rows"]["r1-1"]["phase"] = "failed"

    @spoil("was submitted once, and is r1-1 and r1-3")
    def submit_made_two_jobs(r):
        r["rows"]["r1-3"] = dict(r["rows"]["r1-1"])

    @spoil("was never submitted")
    def job_out_of_nowhere(r):
        r["rows"]["r1-3"] = {"name": "three", "phase": "done", "generation": 1}

    @spoil("no rank of it ever ran")
    def done_without_running(r):
        r["runs"].pop(0)

    @spoil("process 77 of a rank lives on")
    def rank_left_behind(r):
        r["left"] = [77]
    sys.exit(0)


main()
