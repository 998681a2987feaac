# SPDX-License-Identifier: Apache-2.0
"""Jobs whose devices change in number end as if nothing had been: the same digest of every buffer at every step, no step twice.

RESIZES=N (default 1) says how often each job goes 8 -> 4 -> 2 -> 1 -> 8 devices, RESIZE_SEED when.
"""
import array
import json
import os
import random
import subprocess
import time

from fleet import Fleet, check, main, shell, wait_for
from stops import FAST, can_image, check_same, examples, finished, read_digests, result, started, undisturbed

RESIZES = int(os.environ.get("RESIZES", "1"))
FAST_TOLERANCE = 1e-5  # docs/elastic.md
SEED = int(os.environ.get("RESIZE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


def elastic(index, steps, shards=1):
    """By default any ranks may share a device: mlp and pipeline have fewer replicas than the sequences here ask for."""
    example = examples(steps)[index]
    example.gpus, example.least, example.shards = 8, 1, shards
    return example


def devices(f, job):
    """(node, device) of its ranks, as the region has it."""
    return {(r["node"], r["device"]) for r in f.show(job)["ranks"]}


def resize(f, job, n):
    f.cli("resize", job, str(n), expect=0, timeout=120)
    detail = f.show(job)
    check(detail["row"]["gpus"] == n and len(devices(f, job)) == n, json.dumps(detail["row"]))
    return detail


def free(f):
    return sum(n["gpus_free"] for n in f.cli("tree", "-o", "json", expect=0).json()["nodes"])


def in_place(index):
    """Two nodes of four devices: the same processes all the time."""
    rng, example = random.Random(SEED), elastic(index, 150 + 500 * RESIZES)
    with Fleet(nodes=2, gpus=4, **FAST) as f:
        truth = undisturbed(f, example, example.name)
        job, prefix = started(f, example, example.name)
        generation = f.show(job)["row"]["generation"]
        for n in [4, 2, 1, 8] * RESIZES:
            resize(f, job, n)
            wait_for("the others are free", lambda: free(f) == 8 - n, 20)
            time.sleep(rng.uniform(0, 0.5))  # the moment is what is random here
        detail = finished(f, job, prefix, truth)
        check(detail["restarts"] == 0 and detail["row"]["generation"] == generation, json.dumps(detail["row"]))


def elsewhere(index):
    """Four nodes of two devices: two do not suffice for ranks on four nodes, so some change node.  A job whose actor is a new one
    is saved as a whole: a new one does not know the network of its ranks."""
    rng, example = random.Random(SEED), elastic(index, 300 + 500 * RESIZES)
    with Fleet(nodes=4, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, example, example.name)
        job, prefix = started(f, example, example.name)
        for n, is_new in [(4, False), (2, False), (8, False), (2, True), (8, False)] * RESIZES:
            before = f.show(job)["row"]["generation"]
            if is_new:
                f.kill_host("c1")
                f.restart()
                f.wait_phase(job, "running")
            row = resize(f, job, n)["row"]
            check((row["generation"] == before) == (not is_new), json.dumps(row))
            wait_for("the others are free", lambda: free(f) == 8 - n, 20)
            time.sleep(rng.uniform(0, 0.5))  # the moment is what is random here
        detail = finished(f, job, prefix, truth)
        check(detail["restarts"] == 0, json.dumps(detail["row"]))


def digits_in_place():
    in_place(0)


def mlp_in_place():
    in_place(1)


def pipeline_in_place():
    in_place(2)


def adam_in_place():
    in_place(4)


def digits_elsewhere():
    elsewhere(0)


def pipeline_elsewhere():
    elsewhere(2)


def migrated_job_is_resized_and_resumed_where_it_is():
    """Its processes saw the devices of the node that they came from."""
    example = elastic(0, 500)
    example.gpus = 4
    with Fleet(nodes=2, gpus=4, **FAST) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, example, example.name)
        job, prefix = started(f, example, example.name)
        for node in ("n2", "n1"):
            if {n for n, _ in devices(f, job)} != {node}:
                f.cli("migrate", job, "--to", f"node:{node}", expect=0, timeout=120)
            generation = f.show(job)["row"]["generation"]
            resize(f, job, 2)
            f.cli("suspend", job, expect=0)
            guest = f.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 4\nplacement: {spread: spread}\n"))  # leaves two of each
            f.wait_phase(guest, "running")
            f.cli("resume", job, expect=0, timeout=120)
            f.cli("cancel", guest, expect=0)
            f.wait_phase(guest, "cancelled")
            resize(f, job, 4)
            check(f.show(job)["row"]["generation"] == generation, "it was restored")
        finished(f, job, prefix, truth)


def places(f, job):
    return {r["rank"]: r["node"] for r in f.show(job)["ranks"]}


def on_one_of_three_nodes(f, example):
    """A job that may grow onto other nodes: they were full when it started."""
    guest = f.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 4\n"))
    f.wait_phase(guest, "running")
    job, prefix = started(f, example, example.name)
    check(len(set(places(f, job).values())) == 1, str(places(f, job)))
    (f.top / "go").touch()
    f.wait_phase(guest, "done")
    return job, prefix


def kept(f, node, job):
    """Directories of its ranks on the node: the environment of a restored one still names the node that it comes from."""
    return [d.name for d in (f.state / node / "ranks").iterdir() if d.name.startswith(job)]


def grows_onto_other_nodes(index):
    """Ranks that stay where they are stay who they are; only the others are saved and restored."""
    example = elastic(index, 600)
    with Fleet(nodes=3, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, example, example.name)
        job, prefix = on_one_of_three_nodes(f, example)
        before, pids = places(f, job), {r: f.rank_pid(job, r) for r in range(8)}
        generation = f.show(job)["row"]["generation"]
        resize(f, job, 4)
        after = places(f, job)
        stay = {r for r in before if after[r] == before[r]}
        check(len(stay) == 4 and len(set(after.values())) == 2, f"{before} {after}")
        check(all(f.rank_pid(job, r) == pids[r] for r in stay), "a rank that stayed was restored")
        check(f.show(job)["row"]["generation"] == generation, "a new generation")
        wait_for("the others are free", lambda: free(f) == 2, 20)
        resize(f, job, 2)
        check(f.show(job)["row"]["generation"] == generation, "a new generation")
        check(all(f.rank_pid(job, r) == pids[r] for r in stay), "a rank that stayed was restored")
        resize(f, job, 4)
        check(f.show(job)["row"]["generation"] == generation, "a new generation")
        detail = finished(f, job, prefix, truth)
        check(detail["restarts"] == 0 and detail["row"]["generation"] == generation, json.dumps(detail["row"]))


def talking(digits, tcp, prefix):
    """A job of which each rank's program has a child that talks to those of all other ranks, as in examples/tcp."""
    spec = digits.spec(prefix)
    line = spec.splitlines()[1]
    talk = " ".join(tcp.command(f"{prefix}.tcp")[2:])
    compute = " ".join(digits.command(prefix)[2:])
    return spec.replace(line, 'command: ["/usr/bin/env", "%s", "/bin/sh", "-c", "MASTER_PORT=31999 %s & %s && wait $!"]' %
                        (digits.command(prefix)[1], talk, compute))


def run_talking(f, digits, tcp, prefix, change):
    job = f.submit(talking(digits, tcp, prefix))
    f.wait_phase(job, "running")
    wait_for("both talk and compute", lambda: os.path.exists(f"{prefix}.tcp.0") and os.path.exists(f"{prefix}.0"), 60)
    change(job)
    f.wait_phase(job, "done", seconds=240)
    return read_digests(prefix)


def connections_between_ranks_live_on_wherever_these_go():
    digits, tcp = elastic(0, 900), examples(300)[3]
    with Fleet(nodes=3, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        truth = run_talking(f, digits, tcp, f.top / "truth", lambda job: None)

        def change(job):
            generation = f.show(job)["row"]["generation"]
            for n in (2, 6, 1):
                resize(f, job, n)
            check(f.show(job)["row"]["generation"] == generation, "a new generation")
            check(len(read_digests(f.top / "resized.tcp")) < len(read_digests(f.top / "truth.tcp")), "all had been said before the last resize")
        check_same(truth, run_talking(f, digits, tcp, f.top / "resized", change))


def target_that_dies_in_the_transfer_changes_nothing():
    """kill -9 of the host of a node that ranks come to, before they have: the job goes on where it was; with the next order there."""
    example = elastic(0, 900)
    with Fleet(nodes=2, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, example, example.name)
        guest = f.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 2\n"))
        f.wait_phase(guest, "running")
        job, prefix = started(f, example, example.name)
        here = set(places(f, job).values())
        (f.top / "go").touch()
        f.wait_phase(guest, "done")
        target = ({"n1", "n2"} - here).pop()
        before, pids = places(f, job), {r: f.rank_pid(job, r) for r in range(8)}
        running = f.start_cli("resize", job, "4")
        wait_for("ranks come to the other node", lambda: kept(f, target, job), 60)
        f.kill_host(target)
        is_late = running.wait(timeout=60) == 0  # all was done before the host was dead: nothing may be noticed of that either
        if is_late:
            print("     (the transfer was over before the host was dead)", flush=True)
            f.restart()
            f.wait_phase(job, "running")
        else:
            f.wait_phase(job, "running")
            check(places(f, job) == before and all(os.path.exists(f"/proc/{pid}") for pid in pids.values()), "ranks are elsewhere")
            f.restart()
            wait_for("what came to it is gone", lambda: not kept(f, target, job), 60)
            wait_for("its devices are free", lambda: free(f) == 2, 30)
            resize(f, job, 4)
        check(set(places(f, job).values()) == {"n1", "n2"}, str(places(f, job)))
        detail = finished(f, job, prefix, truth)
        check(detail["restarts"] == 0, json.dumps(detail["row"]))


def digits_grows_onto_other_nodes():
    grows_onto_other_nodes(0)


def pipeline_grows_onto_other_nodes():
    grows_onto_other_nodes(2)


def host_that_dies_in_between_changes_nothing():
    """kill -9 of any host of the control plane, at any moment of a resize: it goes on with the devices of one map or the other."""
    rng, example = random.Random(SEED), elastic(0, 2500)
    with Fleet(nodes=2, gpus=4, **FAST) as f:
        truth = undisturbed(f, example, example.name)
        job, prefix = started(f, example, example.name)
        generation = f.show(job)["row"]["generation"]
        for host, n in (("n1", 4), ("c1", 8), ("r1", 2), (rng.choice(["n1", "n2", "c1"]), 8)):
            running = f.start_cli("resize", job, str(n))
            time.sleep(rng.uniform(0, 0.6))  # the moment is what is random here
            f.kill_host(host)
            f.restart()
            try:
                running.wait(timeout=90)
            except subprocess.TimeoutExpired:
                running.kill()
            f.wait_phase(job, "running", seconds=60)
            wait_for("as many devices as the region says are held", lambda: 8 - free(f) == f.show(job)["row"]["gpus"], 30)
        detail = finished(f, job, prefix, truth)
        check(detail["restarts"] == 0 and detail["row"]["generation"] == generation, json.dumps(detail["row"]))


def host_that_dies_while_ranks_change_node_changes_nothing():
    """kill -9 of any host at any moment of a resize in which ranks change node: one map or the other, and nothing left of the other."""
    rng, example = random.Random(SEED), elastic(0, 2500)
    with Fleet(nodes=3, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        truth = undisturbed(f, example, example.name)
        job, prefix = on_one_of_three_nodes(f, example)
        for n, host in ((4, "n1"), (2, "n2"), (4, "n3"), (2, "c1"), (4, "c1"), (2, "r1"), (4, rng.choice(["n1", "n2", "n3", "c1"]))):
            running = f.start_cli("resize", job, str(n))
            time.sleep(rng.uniform(0, 3))  # the moment is what is random here
            f.kill_host(host)
            f.restart()
            try:
                running.wait(timeout=90)
            except subprocess.TimeoutExpired:
                running.kill()
            f.wait_phase(job, "running", seconds=90)
            wait_for("as many devices as the region says are held", lambda: 6 - free(f) == f.show(job)["row"]["gpus"], 30)
            wait_for("each rank is in one place", lambda: sorted(d for node in ("n1", "n2", "n3") for d in kept(f, node, job)) ==
                     sorted({d for node in ("n1", "n2", "n3") for d in kept(f, node, job)}), 30)
        detail = finished(f, job, prefix, truth)
        check(detail["restarts"] == 0, json.dumps(detail["row"]))


def what_cannot_be_is_said_before_anything_stops():
    example = elastic(0, 1200)
    example.least = 2
    with Fleet(nodes=1, gpus=8, **FAST) as f:
        truth = undisturbed(f, example, example.name)
        job, prefix = started(f, example, example.name)
        for n, word in (("9", "2..8"), ("1", "gpus"), ("many", "number")):
            done = f.cli("resize", job, n)
            check(done.code != 0 and word in done.err, f"{n}: {done.code} {done.err}")
        resize(f, job, 4)
        guest = f.submit(shell("while [ ! -e go ]; do sleep 0.05; done", "gpus: 4\n"))
        f.wait_phase(guest, "running")
        stops = f.show(job)["cut"]
        done = f.cli("resize", job, "8", timeout=60)
        check(done.code != 0 and "1..4" in done.err, f"{done.code} {done.err}")
        check(f.show(job)["cut"] == stops, "it was stopped for nothing")
        f.cli("suspend", job, expect=0)
        done = f.cli("resize", job, "2")
        check(done.code != 0 and "suspended" in done.err, done.err)
        f.cli("resume", job, expect=0)
        (f.top / "go").touch()
        f.wait_phase(guest, "done")
        resize(f, job, 8)
        finished(f, job, prefix, truth)


def communicators_say_who_shares_a_device():
    """Nothing in the spec: seen at the first stop, told by `show`, and kept to by each map."""
    for index, shards, groups, refused in ((1, 2, "{0,2,4,6},{1,3,5,7}", 1), (2, 4, "{0,4},{1,5},{2,6},{3,7}", 2)):
        example = elastic(index, 100000, shards=0)
        with Fleet(nodes=1, gpus=8, **FAST) as f:
            job, _ = started(f, example, example.name)
            check(f.show(job)["shards"] == 0 and "not known" in f.cli("show", job, expect=0).out, "nobody can know yet")
            done = f.cli("resize", job, str(refused), timeout=60)
            check(done.code != 0 and f"too few for {shards} shards" in done.err and groups in done.err, f"{done.code} {done.err}")
            check(f.show(job)["row"]["gpus"] == 8, "it is where it was")
            detail = resize(f, job, 4)
            check(detail["shards"] == shards and groups in detail["why_shards"], json.dumps(detail["why_shards"]))
            check(f"{shards}: data-parallel groups {groups}" in f.cli("show", job, expect=0).out, "`show` does not say it")
            on = {}
            for rank in detail["ranks"]:
                on.setdefault(rank["device"], set()).add(rank["rank"] % shards)
            check(len(on) == 4 and all(len(held) == 1 for held in on.values()), f"ranks of different shards share a device: {on}")
            cost = detail["resize_cost"]
            check(cost["stops"] == 1 and cost["bytes"] > 0 and cost["fewer"] == (2 if shards == 2 else 0) and cost["more"] == 8, json.dumps(cost))
            check("resize cost" in f.cli("show", job, expect=0).out, "`show` does not say what the next one costs")
            resize(f, job, 8)
            f.cli("cancel", job, expect=0)
            f.wait_phase(job, "cancelled")


def replicas_meet_again_after_a_move():
    """Ranks of a shard are on four nodes: on two devices they meet by a move only, of some ranks or of the whole job."""
    example = elastic(1, 100000, shards=0)
    with Fleet(nodes=4, gpus=2, **FAST) as f:
        if not can_image(f):
            return
        wait_for("all nodes are there", lambda: free(f) == 8, 30)
        job, _ = started(f, example, example.name)
        detail = resize(f, job, 2)
        check(detail["shards"] == 2, json.dumps(detail["row"]))
        on = {}
        for rank in detail["ranks"]:
            on.setdefault((rank["node"], rank["device"]), set()).add(rank["rank"])
        check(sorted(map(sorted, on.values())) == [[0, 2, 4, 6], [1, 3, 5, 7]], f"{on}")
        f.cli("cancel", job, expect=0)
        f.wait_phase(job, "cancelled")


def guest_on_the_devices_that_were_left_is_suspended_like_any():
    """Ranks still see devices that they have left: who has them now is not to notice."""
    example = elastic(0, 1200)
    with Fleet(nodes=1, gpus=8, **FAST) as f:
        truth = undisturbed(f, example, example.name)
        job, prefix = started(f, example, example.name)
        resize(f, job, 4)
        guest_example = examples(300)[0]
        guest, guest_prefix = started(f, guest_example, "guest")
        f.cli("suspend", guest, expect=0)
        resize(f, job, 8)
        f.cli("resume", guest, "--no-wait", expect=0)
        resize(f, job, 2)
        f.wait_phase(guest, "running", seconds=60)
        f.wait_phase(guest, "done", seconds=240)
        finished(f, job, prefix, truth)


def trained(f, n, reduce, steps, least=None):
    """A job on n devices from its start, whose weights are wanted."""
    example = elastic(0, steps)
    example.gpus, example.least = n, least
    prefix = f.top / f"{reduce}.{n}.{steps}."
    example.options = (*example.options, "--save", str(f.top / f"weights.{prefix.name}"))
    return f.submit(example.spec(prefix, extra=f"reduce: {reduce}\n")), prefix


def weights(f, job, prefix):
    f.wait_phase(job, "done", seconds=240)
    return array.array("f", (f.top / f"weights.{prefix.name}").read_bytes())


def difference(some, others):
    """The greatest of two weights, in terms of the greatest weight."""
    check(len(some) == len(others), "other weights")
    return max(abs(a - b) for a, b in zip(some, others)) / max(map(abs, others))


def fast_differs_by_no_more_than_is_stated():
    """Sums are taken in another order, so weights are a little different: docs/elastic.md says how much."""
    with Fleet(nodes=1, gpus=8, **FAST) as f:
        truth = weights(f, *trained(f, 8, "ordered", 400))
        job, prefix = trained(f, 8, "fast", 400, least=1)
        wait_for("it has taken a step", lambda: list(f.top.glob(f"{prefix.name}*")), 60)
        for n in (5, 7, 6, 1):
            resize(f, job, n)
        are_close({"5, 7, 6, 1": weights(f, job, prefix), "3": weights(f, *trained(f, 3, "fast", 400))}, truth)


def are_close(got, truth):
    differences = {n: difference(w, truth) for n, w in got.items()}
    print(f"     greatest difference: { {n: f'{d:.1e}' for n, d in differences.items()} }", flush=True)
    check(max(differences.values()) <= FAST_TOLERANCE, f"fast: {differences}")
    check(any(differences.values()), "no sum was taken in another order: nothing was tested")


def eight_ranks_start_on_any_number_of_devices():
    with Fleet(nodes=1, gpus=8, **FAST) as f:
        ordered = {n: trained(f, n, "ordered", 100) for n in (8, 4, 2, 1)}
        fast = {n: trained(f, n, "fast", 100) for n in (7, 6, 5, 3, 1)}
        got = {n: weights(f, *job) for n, job in ordered.items()}
        check(all(w == got[8] for w in got.values()), "ordered: other weights")
        check(len({result(f, job) for job, _ in ordered.values()}) == 1, "ordered: other digests")
        are_close({n: weights(f, *job) for n, job in fast.items()}, got[8])


if __name__ == "__main__":
    main(digits_in_place, digits_elsewhere, digits_grows_onto_other_nodes,
         migrated_job_is_resized_and_resumed_where_it_is, what_cannot_be_is_said_before_anything_stops,
         communicators_say_who_shares_a_device, replicas_meet_again_after_a_move, fast_differs_by_no_more_than_is_stated,
         soak=[eight_ranks_start_on_any_number_of_devices, mlp_in_place, pipeline_in_place, adam_in_place, pipeline_elsewhere,
               pipeline_grows_onto_other_nodes,
               connections_between_ranks_live_on_wherever_these_go, target_that_dies_in_the_transfer_changes_nothing,
               guest_on_the_devices_that_were_left_is_suspended_like_any, host_that_dies_in_between_changes_nothing,
               host_that_dies_while_ranks_change_node_changes_nothing])
