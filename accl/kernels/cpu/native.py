"""The kernels in `c/`, compiled once by the system's C compiler into a cache, and called with the memory of tensors.

No header of Python or torch is needed, so that it takes a second. ctypes lets go of Python's lock during a call.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from ctypes import c_double, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FOLDER = Path(__file__).with_name("c")
# Not -ffast-math: a library that gcc links with it turns denormal numbers off for the whole process.
FLAGS = (
    *("-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"),
    *("-fvisibility=hidden", "-fPIC", "-shared", "-pthread"),
)
# Where c/product_apple.c finds its products.
LIBRARIES = ("-framework", "Accelerate") if sys.platform == "darwin" else ("-lm",)
# What some compilers do not know of some machines.
NATIVE = "-march=native"
WARNINGS = ("-Wall", "-Wextra")

_DROPOUT = (c_uint64, c_uint32, c_double)  # seed, site, probability
_ROWS = (c_void_p, c_int64, c_int64, c_void_p)  # begin, n, longest, row_X
_LAYER = (c_int64, c_int64, c_int64)  # tokens, inputs, outputs
_ENCODER = (c_void_p, c_void_p, c_void_p, c_int64, c_void_p)  # team, shape, parts, how many, weights
# Those of single kernels, which `encode` is made of, are for whoever checks them one by one.
_SIGNATURES: dict[str, tuple[type[Any] | None, tuple[type[Any], ...]]] = {
    "team_open": (c_void_p, (c_int64,)),
    "team_close": (None, (c_void_p,)),
    "dropout": (None, (c_void_p, c_void_p, c_int64, *_DROPOUT)),
    "gelu": (None, (c_void_p, c_void_p, c_int64, c_int64, c_void_p)),
    "gelu_back": (None, (c_void_p, c_void_p, c_int64, c_int64, c_void_p)),
    "norm": (None, (*(c_void_p,) * 5, c_int64, c_int64, c_float, *_DROPOUT, c_void_p, c_void_p)),
    "norm_back": (None, (*(c_void_p,) * 4, c_int64, c_int64, *_DROPOUT, *(c_void_p,) * 5)),
    "product_scratch": (c_int64, _LAYER),
    "product": (None, (*(c_void_p,) * 3, *_LAYER, c_void_p, c_void_p)),
    "product_back": (None, (c_void_p, c_void_p, *_LAYER, c_int32, c_void_p, c_void_p)),
    "product_weights": (None, (c_void_p, c_void_p, *_LAYER, c_int32, c_void_p, c_void_p)),
    "adamw": (None, (*(c_void_p,) * 6, c_int64, c_double, c_void_p, c_void_p)),
    "attention_scratch": (c_int64, (c_int64, c_int64)),
    "attention": (None, (c_void_p, c_void_p, *_ROWS, c_int64, c_int64, c_float, *_DROPOUT, *(c_void_p,) * 3)),
    "attention_back": (
        None,
        (*(c_void_p,) * 4, *_ROWS, c_int64, c_int64, c_int64, c_float, *_DROPOUT, *(c_void_p,) * 5),
    ),
    "encode_room": (c_int64, (c_void_p, c_void_p)),
    "encode": (c_int64, (*_ENCODER, c_void_p, c_void_p)),
    "encode_back": (None, (*_ENCODER, *(c_void_p,) * 5)),
}


class CompilerError(Exception):
    """Why there are no kernels on this machine, in a few words."""


def load(folder: Path) -> ctypes.CDLL:
    """The functions of `c/*.c`, by name.

    Args:
        folder: compiled libraries are kept there. It may be shared by different machines: a file is named by a hash of
            the source, the flags, the compiler and what the processor can do.

    Raises:
        CompilerError: there is no C compiler, it fails, or what it made cannot be kept or loaded.
    """
    name, *arguments = shlex.split(os.environ.get("CC", "")) or ["cc"]
    program = shutil.which(name)
    if program is None:
        raise CompilerError(f"no C compiler ({name}) was found")
    return _load(folder, (program, *arguments))


def obstacle(folder: Path) -> str | None:
    """Why `load` would fail, or None."""
    try:
        load(folder)
    except CompilerError as error:
        return str(error)
    return None


def pointer(tensor: Tensor) -> int:
    """Where the elements lie, for a kernel."""
    assert tensor.dtype in (torch.float32, torch.int64), tensor.dtype
    assert tensor.is_contiguous()
    return tensor.data_ptr()


@cache
def _load(folder: Path, compiler: tuple[str, ...]) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(_compiled(folder, compiler)))
    except OSError as error:
        raise CompilerError(f"no compiled code can be kept in {folder}: {error.strerror or error}") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _compiled(folder: Path, compiler: tuple[str, ...]) -> Path:
    real = Path(compiler[0]).resolve()
    state = real.stat()
    text = [file.read_text() for file in sorted(FOLDER.iterdir())]
    known = [*text, *FLAGS, *LIBRARIES, NATIVE, *compiler, real, state.st_mtime_ns, state.st_size, _processor()]
    digest = hashlib.sha256("\0".join(map(str, known)).encode()).hexdigest()[:16]
    library = folder / f"kernels-{digest}.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Aside, then renamed: whoever starts at the same moment sees all of it or nothing.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".kernels-") as aside:
            made = Path(aside) / library.name
            _compile(compiler, made)
            made.replace(library)
    return library


def _compile(compiler: tuple[str, ...], made: Path) -> None:
    sources = sorted(map(str, FOLDER.glob("*.c")))
    for native in ([NATIVE], []):
        command = [*compiler, *FLAGS, *native, *WARNINGS, "-o", str(made), *sources, *LIBRARIES]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return
    lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
    said = next((line for line in lines if "error" in line), lines[0])
    raise CompilerError(f"the C compiler ({compiler[0]}) failed: {said.strip()}")


def _processor() -> str:
    """What the processor can do, as far as the system tells."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(errors="replace").splitlines() if told.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {features}"
