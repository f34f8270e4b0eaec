"""Which files of ``checkpoints/`` are ours, and what is in them.

The last file of a checkpoint to be written is its ``manifest.json``, with size and SHA-256 of every other one. It is
what tells a whole checkpoint from a damaged one, and our files from those that a person keeps beside them: a folder
without a manifest of its own step is never touched, and of the others only files that a checkpoint consists of are.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from accl.errors import DamagedError
from accl.store.files import open_run_file, read_text

MODEL, OPTIMIZER, PROGRESS, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"
FILES = (MODEL, OPTIMIZER, PROGRESS)
FORMAT = 1

_FOLDER = re.compile(r"step-(\d{8})")
_PARTIAL = re.compile(r"\.step-\d{8}\.partial")


@dataclass(frozen=True)
class Entry:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str


def folder_name(step: int) -> str:
    """Return the name of the folder of a step's checkpoint; names sort by step."""
    return f"step-{step:08d}"


def render(step: int, entries: Mapping[str, Entry]) -> bytes:
    """Return the content of a manifest."""
    files = {name: asdict(entry) for name, entry in entries.items()}
    return json.dumps({"format": FORMAT, "step": step, "files": files}, indent=1).encode()


def read(folder: Path) -> dict[str, Entry]:
    """Read the manifest of a checkpoint.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is no manifest of this folder's step.
    """
    path = folder / MANIFEST
    try:
        text = read_text(path)
        content = json.loads(text)
        entries = {name: Entry(**entry) for name, entry in content["files"].items()}
        # To the byte: there is one way to write it.
        known = folder_name(content["step"]) == folder.name and render(content["step"], entries) == text.encode()
        typed = all(type(entry.size) is int and type(entry.sha256) is str for entry in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: it is no manifest.") from error
    if not known or not typed or not {MODEL, PROGRESS} <= entries.keys() <= set(FILES):
        raise DamagedError(f"{path} is damaged: it is no manifest of {folder.name}.")
    return entries


def verify(folder: Path, names: tuple[str, ...] = FILES) -> bool:
    """Read files of a checkpoint through, and hold them against the manifest; False when it was made without one.

    Raises:
        DamagedError: a file is missing or not what was written.
    """
    try:
        entries = read(folder)
    except FileNotFoundError:
        return False
    with ThreadPoolExecutor(len(names)) as pool:  # hashing releases Python's lock
        for _ in pool.map(lambda name: _verify_file(folder / name, entries.get(name)), names):
            pass
    return True


def _verify_file(path: Path, entry: Entry | None) -> None:
    if entry is None:
        raise DamagedError(f"{path} is not in the manifest.")
    try:
        descriptor = open_run_file(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing.") from error
    with open(descriptor, "rb") as file:
        if (size := os.fstat(descriptor).st_size) != entry.size:
            raise DamagedError(f"{path} is damaged: it has {size:,} bytes and had {entry.size:,}.")
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DamagedError(f"{path} cannot be read ({error.strerror}).") from error
    if digest != entry.sha256:
        raise DamagedError(f"{path} is damaged: its checksum is not that of what was written.")


def is_whole(folder: Path, names: tuple[str, ...] = FILES) -> bool:
    """Return whether files of a checkpoint are there in the size that its manifest says, without reading them."""
    try:
        entries = read(folder)
        sizes = {name: os.lstat(folder / name) for name in names}
    except (OSError, DamagedError):
        return False
    return all(
        name in entries and stat.S_ISREG(found.st_mode) and found.st_size == entries[name].size
        for name, found in sizes.items()
    )


def step_folders(root: Path) -> list[Path]:
    """Return the folders directly in ``root`` that are named as checkpoints are, newest step first."""
    if not root.is_dir():
        return []
    return sorted((path for path in root.iterdir() if _FOLDER.fullmatch(path.name) and path.is_dir()), reverse=True)


def is_ours(folder: Path) -> bool:
    """Whether this is a folder of its own, no link, with a manifest of its own step."""
    try:
        return not folder.is_symlink() and bool(read(folder))
    except (FileNotFoundError, DamagedError):
        return False


def remove(folder: Path, names: tuple[str, ...] = FILES) -> None:
    """Remove files of a checkpoint, and all of it when ``names`` are all of them, but nothing else.

    A folder that is a link, or has no manifest of its own step, stays as it is, unless a kill left it empty.
    """
    if not is_ours(folder):
        if folder.is_dir() and not folder.is_symlink():
            _unlink(folder, ())
        return
    entries = read(folder)
    # The manifest last: what a kill leaves behind is known as ours by it.
    last = (MANIFEST,) if entries.keys() <= set(names) else ()
    _unlink(folder, (*(name for name in names if name in entries), *last))


def partials(root: Path) -> list[Path]:
    """Return the folders that a kill while saving has left behind."""
    if not root.is_dir():
        return []
    return [p for p in root.iterdir() if _PARTIAL.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]


def remove_partials(root: Path) -> None:
    """Remove what a kill while saving has left behind."""
    for path in partials(root):
        _unlink(path, (*FILES, MANIFEST))


def _unlink(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # what is left in it is a person's, or to be kept
            raise


def set_aside(folder: Path) -> None:
    """Make way for a new checkpoint of that name: what is ours is removed, and a folder with more in it renamed."""
    remove(folder)
    if os.path.lexists(folder):
        number = next(n for n in count(1) if not os.path.lexists(folder.with_name(f"{folder.name}.old{n}")))
        folder.rename(folder.with_name(f"{folder.name}.old{number}"))


def sync(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
