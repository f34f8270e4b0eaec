"""What can become of a file that somebody relies on."""

from __future__ import annotations

import os
from pathlib import Path


def flip(path: Path, where: float = 0.7) -> None:
    """Change one bit, at a share of the file's length."""
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)


def put_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "note").write_text("mine")


def put_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
