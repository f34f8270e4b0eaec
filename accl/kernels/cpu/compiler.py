"""Compile the C files in `c/` once, into a folder that only this user can write to.

A shared library runs as soon as it is loaded, so it must be what this user compiled: no folder and no file is accepted
that another user could have written (see `accl.files`), and no library whose content differs from what the compiler
wrote. No header of Python or torch is needed, so that compiling takes a second.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accl.files import lock_within, read_trusted, untrusted_folder

SOURCES = Path(__file__).with_name("c")
# Not -ffast-math: a library that gcc links with it turns denormal numbers off for the whole process.
FLAGS = (
    *("-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"),
    *("-fvisibility=hidden", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra"),
)
# c/linear.c calls Accelerate's matrix products.
LIBRARIES = ("-framework", "Accelerate") if sys.platform == "darwin" else ("-lm",)
# Left out where the compiler does not know it for the processor.
NATIVE = "-march=native"
LONGEST_WAIT_S = 60.0


class UnavailableError(Exception):
    """The kernels cannot be used on this machine; the message says why in one line."""


def find_compiler() -> tuple[str, ...]:
    """Return the full path of the C compiler that ``CC`` names, or of ``cc``, and the arguments that ``CC`` adds.

    Raises:
        UnavailableError: ``ACCL_NATIVE=0`` is set, or there is no such compiler.
    """
    if os.environ.get("ACCL_NATIVE") == "0":
        raise UnavailableError("ACCL_NATIVE=0 switches compiled code off; unset it to switch it on")
    try:
        name, *arguments = shlex.split(os.environ.get("CC", "")) or ["cc"]
    except ValueError as error:
        raise UnavailableError(f"CC={os.environ['CC']} is no command ({error})") from error
    program = shutil.which(name)
    if program is None:
        raise UnavailableError(f"no C compiler ({name}) was found")
    return program, *arguments


def compiled_library(folder: Path, compiler: tuple[str, ...]) -> Path:
    """Return the path of the shared library, compiled now if ``folder`` does not hold it.

    A library is named ``kernels-KEY-SUM.so``. KEY is a hash of the sources, the flags, the compiler and the features of
    the processor, so that different machines may share the folder. SUM is the SHA-256 of the library as it was
    compiled: a library that is damaged, or not this user's own, is deleted and compiled again.

    Args:
        folder: for compiled libraries alone; made with mode 0700 if it does not exist.
        compiler: as from `find_compiler`.

    Raises:
        UnavailableError: others can write to the folder, or the compiler fails.
        OSError: the folder or a file in it cannot be read or written.
    """
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if reason := refusal(folder):
        raise UnavailableError(reason)
    key = _key(compiler)
    if library := _find_library(folder, key):
        return library
    with _compiling_alone(folder):
        return _find_library(folder, key) or _make_library(folder, key, compiler)


def _find_library(folder: Path, key: str) -> Path | None:
    for library in sorted(folder.glob(f"kernels-{key}-*.so")):
        with suppress(OSError, ValueError):
            read_library(library)
            return library
        _remove(library)
    return None


@contextmanager
def _compiling_alone(folder: Path) -> Iterator[None]:
    """Let one process at a time compile: those that start at the same moment wait for the same library."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # one that takes so long, or a file system without locks: then all of them compile
            lock_within(descriptor, LONGEST_WAIT_S)
        yield
    finally:
        os.close(descriptor)


def _make_library(folder: Path, key: str, compiler: tuple[str, ...]) -> Path:
    # Compiled aside, then renamed: whoever looks at the same moment sees the whole file or none.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".kernels-") as aside:
        made = Path(aside) / "kernels.so"
        _compile(compiler, made)
        made.chmod(0o700)
        library = folder / f"kernels-{key}-{_checksum(made.read_bytes())}.so"
        made.replace(library)
    return library


def refusal(folder: Path) -> str | None:
    """Return why no library is loaded from a folder, or None; one that does not exist yet is fine."""
    if reason := untrusted_folder(folder, follow=False):
        where = f"compiled code is not loaded from {folder}, which {reason}"
        return f"{where}: remove it, or set ACCL_CACHE to another folder"
    return None


def read_library(library: Path) -> bytes:
    """Return the content of a library that `compiled_library` made.

    Raises:
        OSError: it cannot be read.
        ValueError: it may be another user's, or is not as it was compiled.
    """
    content = read_trusted(library)
    if library.stem.rpartition("-")[2] != _checksum(content):
        raise ValueError(f"{library} is not as it was compiled")
    return content


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)  # another process may have removed it


def _key(compiler: tuple[str, ...]) -> str:
    real = Path(compiler[0]).resolve()
    state = real.stat()
    text = [file.read_text() for file in sorted(SOURCES.iterdir())]
    known = [*text, *FLAGS, *LIBRARIES, NATIVE, *compiler, real, state.st_mtime_ns, state.st_size, _processor()]
    return hashlib.sha256("\0".join(map(str, known)).encode()).hexdigest()[:16]


def _compile(compiler: tuple[str, ...], made: Path) -> None:
    sources = sorted(map(str, SOURCES.glob("*.c")))
    for native in ([NATIVE], []):
        command = [*compiler, *FLAGS, *native, "-o", str(made), *sources, *LIBRARIES]
        # The folder for temporary files may be one that cannot be written; without PATH no linker would be found.
        environment = {"PATH": os.defpath, **os.environ, "TMPDIR": str(made.parent)}
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, env=environment
        )
        if done.returncode == 0 and made.is_file():
            return
    lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
    said = next((line for line in lines if "error" in line), lines[0])
    raise UnavailableError(f"the C compiler ({compiler[0]}) failed: {said.strip()}")


def _processor() -> str:
    """Return the architecture and the features of the processor, as far as the system tells them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {features}"
