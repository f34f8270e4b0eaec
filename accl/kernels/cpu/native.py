"""Load the kernels in `c/`, and call them with the memory of tensors.

They are called through ctypes, which releases Python's lock during a call.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_double, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accl.kernels.cpu.compiler import UnavailableError, compiled_library, find_compiler, read_library

_SIGNATURES: dict[str, tuple[type[Any] | None, tuple[type[Any], ...]]] = {
    "thread_pool_open": (c_void_p, (c_int64,)),
    "thread_pool_close": (None, (c_void_p,)),
    "encode_buffer_size": (c_int64, (c_void_p, c_void_p)),  # pass, shard
    "encode": (c_int64, (c_void_p, c_void_p)),  # pool, pass
    "encode_backward": (None, (c_void_p, c_void_p)),
    "adamw": (None, (*(c_void_p,) * 6, c_int64, c_double, c_void_p, c_void_p)),
}


def load(cache_folder: Path | None) -> ctypes.CDLL:
    """Return the functions of `c/*.c`, by name.

    Args:
        cache_folder: compiled libraries are kept in its folder ``native``; see `accl.kernels.cpu.compiler`. None where
            nothing can be kept.

    Raises:
        UnavailableError: compiled code is switched off, there is no C compiler, it fails, or what it makes cannot be
            kept where no other user can change it.
    """
    compiler = find_compiler()
    if cache_folder is None:
        raise UnavailableError("no home folder is known that could keep compiled code: set ACCL_CACHE to a folder")
    return _load(cache_folder / "native", compiler)


def unavailable_reason(cache_folder: Path | None) -> str | None:
    """Return why `load` would fail, or None."""
    try:
        load(cache_folder)
    except UnavailableError as error:
        return str(error)
    return None


def pointer(tensor: Tensor) -> int:
    """Return the address of the first element, for a kernel."""
    assert tensor.dtype in (torch.float32, torch.int64), tensor.dtype
    assert tensor.is_contiguous()
    return tensor.data_ptr()


@cache
def _load(folder: Path, compiler: tuple[str, ...]) -> ctypes.CDLL:
    try:
        path = compiled_library(folder, compiler)
        library = _open(path, read_library(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except OSError as error:
        raise UnavailableError(f"no compiled code can be kept in {folder}: {error.strerror or error}") from error
    except (AttributeError, ValueError) as error:
        raise UnavailableError(f"what {compiler[0]} made cannot be used: {error}") from error
    return library


def _open(path: Path, content: bytes) -> ctypes.CDLL:
    """Load a library from memory, where the system can: what was checked is what runs, whatever happens to its file.

    A library that is mapped from a file ends the process with SIGBUS when the file is cut short.
    """
    try:
        # Kept open: the loader takes a path that it has seen before for the same library.
        memory = os.memfd_create("kernels.so")
        with open(memory, "wb", closefd=False) as file:
            file.write(content)
        return ctypes.CDLL(f"/proc/self/fd/{memory}")
    except (AttributeError, OSError):  # no such call, no /proc, or a policy against it
        return ctypes.CDLL(str(path))
