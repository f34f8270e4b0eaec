"""The file that a command writes beside what it prints, checked before the work is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from accl.errors import AcclError, ConfigError
from accl.text import listed


def checked_output(path: Path, suffixes: Sequence[str]) -> Path:
    """Return the absolute path of a file that can be written, as far as that can be told before.

    Args:
        suffixes: those that name the formats that can be written, such as ``.pdf``.

    Raises:
        ConfigError: it has another suffix.
        AcclError: it is a folder, or its folder does not exist or cannot be written.
    """
    if path.suffix.lower() not in suffixes:
        what = f"--output {path} has the suffix {path.suffix!r}, which names no format that can be written."
        raise ConfigError(what, f"Let the name end in {listed(list(suffixes), 'or')}.")
    path = Path(os.path.abspath(path.expanduser()))
    if path.is_dir():
        raise AcclError(f"{path} is a folder.", f"Name a file in it: {path / f'figure{suffixes[0]}'}")
    if not path.parent.is_dir():
        raise AcclError(
            f"{path} cannot be written: there is no folder {path.parent}.", f"Make it: mkdir -p {path.parent}"
        )
    if not os.access(path.parent, os.W_OK):
        raise AcclError(f"{path} cannot be written: its folder is read-only.", "Name a file in another folder.")
    return path
