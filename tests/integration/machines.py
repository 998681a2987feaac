# SPDX-License-Identifier: Apache-2.0
"""machines.py - a fleet on several machines: network namespaces of this one, with an Ethernet switch between them.

  machine 1          machine 2          machine 3       each: its own lo, u0 192.0.2.N, and what its node's host makes there
     u0                 u0                 u0
      └──── p1 ── bridge `sw` ── p2 ──── p3 ┘           in a namespace of their own: nothing is added to the machine's network

Each namespace belongs to a child of this process that does nothing and dies with it; it goes with the last process in it, so
nothing is left by whatever end. Hosts reach each other by ipc://, as TCP beyond loopback wants keys; ranks by VXLAN only.
"""
import ctypes
import json
import os
import pathlib
import signal
import subprocess

from fleet import ORRERY, Fleet, check, wait_for

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def cannot_make():
    """Why there can be no machines here, or an empty text."""
    try:
        done = subprocess.run(["unshare", "--net", "ip", "link", "add", "x", "type", "vxlan", "id", "1", "dstport", "4789"],
                              capture_output=True, text=True, timeout=30)
    except OSError as e:
        return str(e)
    return f"no network namespaces with VXLAN: {done.stderr.strip()}" if done.returncode else ""


class Machines(Fleet):
    """with Machines(nodes=3, ...) as f: the host of n1 is on machine 1, that of n2 on machine 2, ..."""

    def __enter__(self):
        super().__enter__()
        try:
            self.nodes = [f"n{i + 1}" for i in range(self.shape["nodes"])]
            self.spaces = {node: self._space() for node in self.nodes}
            self._wire()
            for node in self.nodes:
                self.kill_host(node)
                self._configure(node)
                self.start(node)
            wait_for("doctor knows the machines", lambda: f"ranks on {len(self.nodes)} of {len(self.nodes)} nodes" in
                     self.cli("doctor").out, 30)
        except BaseException:
            self.close(failed=True)
            raise
        return self

    def _space(self):
        """Of a new namespace the pid whose it is."""
        child = subprocess.Popen(["unshare", "--net", "sleep", "infinity"],
                                 preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        self.children.append(child)
        own = os.readlink("/proc/self/ns/net")
        wait_for("a network namespace", lambda: os.readlink(f"/proc/{child.pid}/ns/net") != own, 10)
        return child.pid

    @staticmethod
    def within(space, *command, text_in=None):
        done = subprocess.run(["nsenter", f"--net=/proc/{space}/ns/net", *command], input=text_in, capture_output=True, text=True,
                              timeout=60)
        check(done.returncode == 0, f"{command}: {done.stderr}")
        return done.stdout

    def address(self, node):
        return f"192.0.2.{self.nodes.index(node) + 1}"

    def _wire(self):
        switch = self._space()
        lines = ["link add sw type bridge", "link set sw up"]
        for i, node in enumerate(self.nodes):
            lines += [f"link add p{i} type veth peer name u0 netns {self.spaces[node]}", f"link set p{i} master sw up"]
        self.within(switch, "ip", "-batch", "-", text_in="\n".join(lines) + "\n")
        for node in self.nodes:
            self.within(self.spaces[node], "ip", "-batch", "-", text_in=f"link set lo up\naddr add {self.address(node)}/24 dev u0\n"
                                                                        "link set u0 up\n")

    def _configure(self, node):
        """A store of its own, and an address for the networks of ranks."""
        path = self.state / node / "host.yaml"
        shared = f"{self.state}/c1/store"
        text = path.read_text()
        check(shared in text, text)
        text = text.replace(shared, f"{self.state}/{node}/store")
        path.write_text(text.replace("    store: {", f"    overlay: {{address: {self.address(node)}}}\n    store: {{"))

    def start(self, node):
        """As `orrery dev up` does, on the node's machine."""
        folder = self.state / node
        with open(folder / "host.log", "a") as log:
            host = subprocess.Popen(["nsenter", f"--net=/proc/{self.spaces[node]}/ns/net", ORRERY, "host", "--config", folder / "host.yaml"],
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                    env=dict(self.env, ORRERY_RUN=f"{self.state}/run"))
        started = pathlib.Path(f"/proc/{host.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        (folder / "pid").write_text(f"{host.pid} {started}\n")
        self.children.insert(0, host)
        wait_for(f"{node} is up", lambda: self.is_up(node), 30)

    def is_up(self, node):
        rows = self.cli("tree", "-o", "json", expect=0).json()["nodes"]
        return any(row["node"] == node and row["state"] == "up" for row in rows)

    # ---- what is on a machine ----

    def links(self, node, kind=None):
        """Name -> row of `ip -s link`, of what hosts have made there."""
        of_kind = ["type", kind] if kind else []
        rows = json.loads(self.within(self.spaces[node], "ip", "-s", "-d", "-j", "link", "show", *of_kind) or "[]")
        return {row["ifname"]: row for row in rows if row and row["ifname"] not in ("lo", "u0")}

    def carried(self, node):
        """Bytes that came by VXLAN."""
        return sum(row["stats64"]["rx"]["bytes"] for row in self.links(node, "vxlan").values())

    def widths(self, node):
        """Longest packets of the ranks' interfaces there."""
        return {row["mtu"] for row in self.links(node, "veth").values()}
