# SPDX-License-Identifier: Apache-2.0
"""Ranks on different machines: their TCP connections live on when they are stopped and when they change machine."""
from fleet import check, main, shell, wait_for
from machines import Machines, cannot_make
from stops import FAST, can_image, check_blameless, check_same, examples, reached, read_digests, started, up_to
from test_resize import elastic, resize, run_talking

SPREAD = "placement: {spread: spread}\n"


def nodes_of(f, job):
    return {r["node"] for r in f.show(job)["ranks"]}


def takes_steps(f, prefix):
    """It does more than it had done by now."""
    def lines():
        return sum(len(path.read_text().splitlines()) for path in f.top.glob(f"{prefix.name}*"))
    before = lines()
    wait_for("it takes steps", lambda: lines() > before, 60)


def nothing_left(f):
    for node in f.nodes:
        wait_for(f"nothing is left on the machine of {node}", lambda node=node: not f.links(node), 20)


def machines(**shape):
    """Decorates a test of such a fleet, where machines can be made."""
    def decorate(test):
        def run():
            why = cannot_make()
            if why:
                print(f"     (skipped: {why})", flush=True)
                return
            with Machines(**shape, **FAST) as f:
                if can_image(f):
                    test(f)
                    nothing_left(f)
        run.__name__ = test.__name__
        return run
    return decorate


def tcp(steps):
    example = examples(1)[3]
    example.steps = steps
    return example


def run_undisturbed(f, steps):
    """Without images: its ranks are on the machines' own network."""
    prefix = f.top / "truth."
    job = f.submit(tcp(steps).spec(prefix, mode="none", extra=SPREAD))
    f.wait_phase(job, "done", seconds=120)
    check(len(nodes_of(f, job)) == 3, "without images it was not spread")
    return read_digests(prefix)


@machines(nodes=3, slots=8)
def connections_live_on_over_machines(f):
    job, prefix = started(f, tcp(1000000), "tcp", extra=SPREAD)
    check(len(nodes_of(f, job)) == 3, str(nodes_of(f, job)))
    takes_steps(f, prefix)
    for node in f.nodes:
        check(f.carried(node) > 10000, f"{node}: VXLAN carried {f.carried(node)} bytes")
        check(f.widths(node) == {1450}, f"{node}: ranks may send {f.widths(node)} bytes; 50 more go through 1500")
    f.cli("suspend", job, expect=0)
    f.cli("resume", job, expect=0)
    takes_steps(f, prefix)
    f.cli("migrate", job, "--to", "node:n3", expect=0, timeout=90)
    check(nodes_of(f, job) == {"n3"}, str(nodes_of(f, job)))
    takes_steps(f, prefix)
    f.cli("drain", "n3", expect=0, timeout=90)
    wait_for("n3 is left", lambda: f.phase(job) == "running" and "n3" not in nodes_of(f, job), 60)
    check(len(nodes_of(f, job)) == 2, str(nodes_of(f, job)))
    takes_steps(f, prefix)
    check_blameless(f, f.show(job))
    f.cli("cancel", job, expect=0)
    f.wait_phase(job, "cancelled")
    f.cli("drain", "n3", "--undo", expect=0)

    got = read_digests(prefix)
    last = reached(got)
    truth = run_undisturbed(f, last + 50)  # at its end a rank has nothing to send ahead
    check_same(up_to(last, truth), up_to(last, got))


@machines(nodes=3, gpus=2)
def connections_live_on_when_ranks_go_to_a_machine_that_is_new_to_them(f):
    """The network of those that stay reaches it before they go on: nobody is restored but who changes node."""
    digits, talk = elastic(0, 900), examples(300)[3]
    truth = run_talking(f, digits, talk, f.top / "truth", lambda job: None)
    guest = f.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 4\n"))
    f.wait_phase(guest, "running")

    def change(job):
        start = f.show(job)
        here = nodes_of(f, job).pop()
        check(nodes_of(f, job) == {here} and not f.links(here, "vxlan"), f"{start['ranks']} {f.links(here)}")
        (f.top / "go").touch()
        f.wait_phase(guest, "done")
        for n in (6, 2, 4):
            resize(f, job, n)
            check(f.show(job)["row"]["generation"] == start["row"]["generation"], "it was moved as a whole")
        check(f.carried(here) > 0, "VXLAN carried nothing")
        check(len(read_digests(f.top / "resized.tcp")) < len(read_digests(f.top / "truth.tcp")), "all had been said before the last resize")
    check_same(truth, run_talking(f, digits, talk, f.top / "resized", change))


@machines(nodes=2, slots=8)
def what_a_machine_that_died_had_is_removed(f):
    """kill -9 of its host, keepers and ranks: what these had made in the kernel stays until the next host."""
    job, _ = started(f, examples(100000)[3], "tcp", extra=SPREAD)
    before = set(f.links("n1", "vxlan")) | set(f.links("n1", "bridge"))
    check(len(before) == 2, str(f.links("n1")))
    f.kill_node("n1")
    check(before <= set(f.links("n1")), f"gone already: {f.links('n1').keys()}")
    f.start("n1")
    wait_for("what it had is gone", lambda: not before & set(f.links("n1")), 60)
    f.cli("cancel", job, expect=0)
    f.wait_phase(job, "cancelled")


if __name__ == "__main__":
    main(connections_live_on_over_machines,
         soak=[connections_live_on_when_ranks_go_to_a_machine_that_is_new_to_them, what_a_machine_that_died_had_is_removed])
