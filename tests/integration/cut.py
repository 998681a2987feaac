# SPDX-License-Identifier: Apache-2.0
"""cut.py - cut a region's host off from the other voters, while it and everybody else live on.

Every TCP socket between the host's ledger and the others gets a filter that drops all packets, at both of its ends, and so does
the host's listener. Nothing is closed: as on a broken wire, each side sends and hears nothing. Needs no proxy, no network
namespace and no rule of the machine; it needs the right to take a descriptor of another process (root, or the same user
where ptrace is allowed), else PermissionError.
"""
import contextlib
import ctypes
import os
import re
import socket
import struct

SYS_PIDFD_GETFD = 438
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 bytes are let through

libc = ctypes.CDLL(None, use_errno=True)


def take(pid, fd):
    """Our own descriptor of a socket of another process."""
    pidfd = os.pidfd_open(pid)
    try:
        number = libc.syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return socket.socket(fileno=number)
    finally:
        os.close(pidfd)


def tcp_rows():
    """inode -> (local, remote), each (ip, port)."""
    def end(text):
        ip, port = text.split(":")
        return socket.inet_ntoa(struct.pack("=I", int(ip, 16))), int(port, 16)
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return {row[9]: (end(row[1]), end(row[2])) for row in rows}


def sockets_of(pid):
    """(fd, inode) of each socket of a process."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inode = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
            if inode:
                yield int(fd), inode[1]


class Cut:
    """with Cut(pids of the voters' hosts, their ledger addresses, "r1-2"): ...; both are dicts by host."""

    def __init__(self, pids, addresses, host):
        self.pids, self.host = pids, host
        self.addresses = {name: (a.split(":")[0], int(a.split(":")[1])) for name, a in addresses.items()}
        self.held = []

    def __enter__(self):
        table, ledgers = tcp_rows(), set(self.addresses.values())
        own = [(fd, table[inode]) for fd, inode in sockets_of(self.pids[self.host]) if inode in table]
        own = [(fd, ends) for fd, ends in own if ledgers & set(ends)]
        others = {(remote, local) for _, (local, remote) in own}  # the same connections, seen from there
        try:
            for fd, _ in own:
                self._hold(self.pids[self.host], fd)
            for name, pid in self.pids.items():
                for fd, inode in sockets_of(pid):
                    if name != self.host and table.get(inode) in others:
                        self._hold(pid, fd)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _hold(self, pid, fd):
        sock = take(pid, fd)
        self.held.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(DROP_ALL)))

    def __exit__(self, *_):
        for sock in self.held:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            sock.close()
        self.held = []
