# SPDX-License-Identifier: Apache-2.0
"""Programs that save themselves (orrery/rank.h, python/orrery), on machines that cannot make images; and those that do not.

No fleet of this page has a CRIU, so nothing here can have been saved by one.
"""
import contextlib
import json
import re
import sys

from fleet import ROOT, Fleet, check, main, wait_for
from stops import FAST, Example, examples, finished, read_digests, result, started, undisturbed

NO_CRIU = "/nonexistent/criu"


class Python(Example):
    """examples/cooperative/count.py: no device, plain python3."""

    def command(self, prefix):
        return [sys.executable, "-B", str(ROOT / "examples/cooperative/count.py"), str(self.steps), "0.01", str(prefix)]


def c_example(steps):
    return Example("coop", 4, 2, steps, 1, ("--pause", "10"))


def python_example(steps):
    return Python("count", 3, 0, steps, 1)


@contextlib.contextmanager
def fleet(**shape):
    f = Fleet(**shape, **FAST)
    f.env["ORRERY_CRIU"] = NO_CRIU
    with f:
        yield f


def at_level(f, job, level):
    return wait_for(f"{job} is at level {level}", lambda: (d := f.show(job))["level"] == level and d, 20)


def nodes_of(f, job):
    return {r["node"] for r in f.show(job)["ranks"]}


def stopped_in_every_way(example):
    """Each order is planned, so no step may be repeated.  It runs long enough for all of them; its twin runs beside it."""
    with fleet(clusters=2, nodes=2, gpus=4) as f:
        twin, twin_prefix = f.submit(example.spec(f.top / "twin.", mode="none")), f.top / "twin."
        job, prefix = started(f, example, example.name, mode="cooperative")
        detail = at_level(f, job, "cooperative")
        check("checkpoint.mode is cooperative" in detail["why_level"], detail["why_level"])
        f.cli("suspend", job, expect=0)
        f.cli("resume", job, expect=0)
        row = f.cli("checkpoint", job, "-o", "json", expect=0).json()
        check(row["number"] == 1 and row["bytes"] > 0, json.dumps(row))
        f.cli("checkpoint", "verify", job, expect=0)
        home = f.show(job)["row"]["cluster"]
        away = "c2" if home == "c1" else "c1"
        f.cli("migrate", job, "--to", f"cluster:{away}", expect=0, timeout=90)
        check(f.wait_phase(job, "running", "done")["row"]["cluster"] == away, "it stayed")
        at_level(f, job, "cooperative")
        f.cli("suspend", job, expect=0)  # and a suspended one moves, too
        f.cli("migrate", job, "--to", f"cluster:{home}", expect=0, timeout=90)
        if f.phase(job) == "suspended":
            f.cli("resume", job, expect=0)
        f.wait_phase(twin, "done", seconds=240)
        detail = finished(f, job, prefix, (result(f, twin), read_digests(twin_prefix)), has_cuts=False)
        check(detail["row"]["generation"] == 3, json.dumps(detail["row"]))
        check("goes on after step" in f.log(job), f.log(job))


def saved_before_its_node_dies(example):
    with fleet(clusters=1, nodes=3, gpus=2) as f:
        truth = undisturbed(f, example, example.name)
        job, prefix = started(f, example, example.name, mode="cooperative")
        at_level(f, job, "cooperative")
        f.cli("checkpoint", job, expect=0)
        f.kill_node(sorted(nodes_of(f, job))[0])
        detail = finished(f, job, prefix, truth, once=False, has_cuts=False)
        check(detail["row"]["generation"] == 2, json.dumps(detail["row"]))
        check("goes on after step" in f.log(job), f.log(job))


def c_program_stopped_in_every_way():
    stopped_in_every_way(c_example(1500))


def python_program_stopped_in_every_way():
    stopped_in_every_way(python_example(1500))


def c_program_goes_on_when_its_node_has_died():
    saved_before_its_node_dies(c_example(1000))


def python_program_goes_on_when_its_node_has_died():
    saved_before_its_node_dies(python_example(1000))


def machine_without_criu_says_so_and_falls_back():
    with fleet(clusters=1, nodes=2, gpus=4) as f:
        line = wait_for("doctor says it", lambda: re.search(r"^.*images .*cannot.*$", f.cli("doctor").out, re.M), 20).group(0)
        check(NO_CRIU in line or "criu" in line.lower(), line)
        digits, _ = started(f, examples(100000)[0], "digits")
        detail = at_level(f, digits, "inplace")
        check("criu" in detail["why_level"].lower(), detail["why_level"])
        free = ({"n1", "n2"} - nodes_of(f, digits)).pop()
        for order in (["migrate", digits, "--to", f"node:{free}"], ["checkpoint", digits]):
            refused = f.cli(*order)
            check(refused.code != 0 and "not saved or moved" in refused.err and "criu" in refused.err.lower(), str(refused))
            print(f"     {order[0]}: {refused.err.strip()}", flush=True)
        f.cli("suspend", digits, expect=0)
        f.cli("resume", digits, expect=0)
        check(f.wait_phase(digits, "running"), "it does not run on")
        f.cli("cancel", digits, expect=0)
        f.wait_phase(digits, "cancelled")
        example = c_example(400)
        truth = undisturbed(f, example, "coop")
        job, prefix = started(f, example, "coop", mode="auto")  # it is cooperative by itself
        at_level(f, job, "cooperative")
        there = sorted(nodes_of(f, job))[0]
        other = "n2" if there == "n1" else "n1"
        f.cli("migrate", job, "--to", f"node:{other}", expect=0, timeout=90)
        f.wait_phase(job, "running", "done")
        check(nodes_of(f, job) == {other}, f"{nodes_of(f, job)} is not {other}")
        finished(f, job, prefix, truth, has_cuts=False)


if __name__ == "__main__":
    main(python_program_stopped_in_every_way,
         c_program_goes_on_when_its_node_has_died,
         machine_without_criu_says_so_and_falls_back,
         soak=(c_program_stopped_in_every_way, python_program_goes_on_when_its_node_has_died),
         at_once=2)
