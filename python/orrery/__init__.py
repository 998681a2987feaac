# SPDX-License-Identifier: Apache-2.0
"""Barrier points and saved state for Python programs that run as ranks of Orrery (include/orrery/rank.h).

    import orrery
    model = {"step": 0}
    orrery.state("model", lambda: pickle.dumps(model), lambda data: model.update(pickle.loads(data)))
    orrery.restored()                     # loads what an earlier run of this rank has saved
    while model["step"] < 1000:
        orrery.point()                    # may be stopped here, and only here
        ...                               # one step, collectives and all

Pure ctypes: nothing is built or installed.  Outside of Orrery, or without liborrery-rank.so, every call does nothing.
"""
import ctypes
import os

__all__ = ["state", "region", "restored", "point", "RestoreError"]

_BYTES = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)
_COPY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class RestoreError(RuntimeError):
    """There is saved state, and it does not fit what is registered, or a load failed: do not go on."""


class _Callbacks(ctypes.Structure):
    _fields_ = [("bytes", _BYTES), ("save", _COPY), ("load", _COPY), ("arg", ctypes.c_void_p)]


def _load():
    """The copy that is preloaded with CUDA's and NCCL's, so that there is one of it; else the one beside the program orrery."""
    here = ctypes.CDLL(None)
    if hasattr(here, "orr_rank_point"):
        return here
    folder = os.environ.get("ORRERY_LIB", "")
    for path in (os.environ.get("ORRERY_RANK_LIB"), os.path.join(folder, "rank", "liborrery-rank.so"), "liborrery-rank.so"):
        try:
            return ctypes.CDLL(path) if path else None
        except OSError:
            continue
    return None


def _find():
    if not os.environ.get("ORRERY_RANK_LINK"):
        return None
    lib = _load()
    if lib is not None:
        lib.orr_rank_region.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
        lib.orr_rank_state.argtypes = [ctypes.c_char_p, ctypes.POINTER(_Callbacks)]
        lib.orr_rank_point.restype = None
    return lib


_lib = _find()
_kept = []  # callbacks and buffers that the library points to
_failed = []  # what a load raised


def state(name, save, load):
    """save() returns the state as bytes, load(data) takes it back.  They run in the thread that calls point()."""
    if _lib is None:
        return
    saved = {}

    def bytes_(_arg):
        saved["data"] = bytes(save())
        return len(saved["data"])

    def save_(_arg, to, n):
        ctypes.memmove(to, saved.pop("data"), n)
        return 0

    def load_(_arg, data, n):
        try:
            load(ctypes.string_at(data, n))
        except Exception as why:  # it may not pass through C
            _failed.append(why)
            return 1
        return 0

    callbacks = _Callbacks(_BYTES(bytes_), _COPY(save_), _COPY(load_), None)
    _kept.append(callbacks)
    if _lib.orr_rank_state(name.encode(), ctypes.byref(callbacks)) != 0:
        raise ValueError(f"{name!r}: empty, longer than 63 bytes, or registered already")


def region(name, buffer):
    """Memory with a fixed place and size: anything with a writable buffer (bytearray, array, numpy)."""
    if _lib is None:
        return
    view = (ctypes.c_char * memoryview(buffer).nbytes).from_buffer(buffer)
    _kept.append(view)
    if _lib.orr_rank_region(name.encode(), ctypes.addressof(view), len(view)) != 0:
        raise ValueError(f"{name!r}: empty, longer than 63 bytes, registered already, or without bytes")


def restored():
    """True: all that is registered was loaded from a checkpoint.  False: begin."""
    if _lib is None:
        return False
    code = _lib.orr_rank_restored()
    if code < 0:
        raise RestoreError("the checkpoint does not fit what this program has registered") from (_failed or [None])[-1]
    return code == 1


def point():
    """A barrier point: every rank comes to the same ones in the same order."""
    if _lib is not None:
        _lib.orr_rank_point()
