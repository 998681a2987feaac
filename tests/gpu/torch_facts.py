# SPDX-License-Identifier: Apache-2.0
"""torch_facts.py - how this machine's PyTorch finds CUDA and NCCL, read from its libraries; it is not started.

Prints `torch: ` and on one line the versions and the search path, then what libtorch_cuda.so needs and which names it takes from NCCL.
Whether LD_PRELOAD of a library with NCCL's SONAME is honoured follows from it: it is unless NCCL is linked in statically.
"""
import glob
import importlib.metadata
import importlib.util
import mmap
import os
import struct

PT_LOAD, PT_DYNAMIC, SHT_DYNSYM = 1, 2, 11
DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRTAB, DT_STRSZ = 1, 15, 29, 5, 10


class Elf:
    """The dynamic section of a 64-bit little-endian ELF file."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path}: not a 64-bit ELF file")
        offset, size, count = *struct.unpack_from("<Q", self.data, 32), *struct.unpack_from("<HH", self.data, 54)
        heads = [struct.unpack_from("<IIQQQQQQ", self.data, offset + i * size) for i in range(count)]
        self.loads = [(h[3], h[2], h[5]) for h in heads if h[0] == PT_LOAD]
        at, length = next((h[2], h[5]) for h in heads if h[0] == PT_DYNAMIC)
        self.entries = [struct.unpack_from("<qQ", self.data, at + i) for i in range(0, length, 16)]

    def file_offset(self, address):
        return next(address - a + o for a, o, n in self.loads if a <= address < a + n)

    def value(self, tag):
        return next((v for t, v in self.entries if t == tag), None)

    def strings(self):
        start = self.file_offset(self.value(DT_STRTAB))
        return self.data[start:start + self.value(DT_STRSZ)]

    def texts(self, tag):
        table = self.strings()
        return [table[v:table.index(b"\0", v)].decode() for t, v in self.entries if t == tag]

    def undefined(self, prefix):
        """Names with this prefix that another library must have."""
        offset, size, count = *struct.unpack_from("<Q", self.data, 40), *struct.unpack_from("<HH", self.data, 58)
        sections = [struct.unpack_from("<IIQQQQ", self.data, offset + i * size) for i in range(count)]
        _, _, _, _, start, length = next(s for s in sections if s[1] == SHT_DYNSYM)
        table, found = self.strings(), set()
        for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", self.data[start:start + length]):
            if section == 0 and table.startswith(prefix, name):
                found.add(table[name:table.index(b"\0", name)].decode())
        return sorted(found)


def version(*names):
    for name in names:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"no {names[0]}"


def main():
    spec = importlib.util.find_spec("torch")
    if not spec or not spec.origin:
        print("torch: not there")
        return
    folder = os.path.join(os.path.dirname(spec.origin), "lib")
    found = glob.glob(os.path.join(folder, "libtorch_cuda.so"))
    nccl = version("nvidia-nccl-cu13", "nvidia-nccl-cu12")
    if not found:
        print(f"torch: {version('torch')}, {nccl}, without CUDA")
        return
    elf = Elf(found[0])
    names = elf.undefined(b"nccl")
    print(f"torch: {version('torch')}, {nccl}, RPATH {elf.texts(DT_RPATH)}, RUNPATH {elf.texts(DT_RUNPATH)}, {len(names)} names of NCCL")
    print("needs:", *elf.texts(DT_NEEDED))
    print("takes from NCCL:", *names)


main()
