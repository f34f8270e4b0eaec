"""Load the kernels in `c/`, and call them with the memory of tensors.

They are called through ctypes, which releases Python's lock during a call.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accl.kernels.cpu.compiler import UnavailableError, compiled_library, find_compiler

_SIGNATURES: dict[str, tuple[type[Any] | None, tuple[type[Any], ...]]] = {
    "thread_pool_open": (c_void_p, (c_int64,)),
    "thread_pool_close": (None, (c_void_p,)),
    "encode_buffer_size": (c_int64, (c_void_p, c_void_p)),  # pass, shard
    "encode": (c_int64, (c_void_p, c_void_p)),  # pool, pass
    "encode_backward": (None, (c_void_p, c_void_p)),
    "adamw": (None, (*(c_void_p,) * 6, c_int64, c_double, c_void_p, c_void_p)),
}


def load(cache_folder: Path) -> ctypes.CDLL:
    """Return the functions of `c/*.c`, by name.

    Args:
        cache_folder: compiled libraries are kept in its folder ``native``; see `accl.kernels.cpu.compiler`.

    Raises:
        UnavailableError: compiled code is switched off, there is no C compiler, it fails, or what it makes cannot be
            kept where no other user can change it.
    """
    return _load(cache_folder / "native", find_compiler())


def unavailable_reason(cache_folder: Path) -> str | None:
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
        library = ctypes.CDLL(str(compiled_library(folder, compiler)))
    except OSError as error:
        raise UnavailableError(f"no compiled code can be kept in {folder}: {error.strerror or error}") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
