"""Screens as text, kept in files: what is seen changes only where somebody means it to.

``ACCL_WRITE_SNAPSHOTS=1 python -m pytest tests/test_X.py`` writes the files anew; `git diff` then shows what changed.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from factory import STARTED

from accl.store import rundir

FOLDER = Path(__file__).parent / "snapshots"
SIZES = ((80, 24), (120, 36), (160, 45))
NOW = STARTED + 7200  # seconds since the epoch

# What differs from one time to another, each replaced by something of the same width.
_CHANGING = (
    (re.compile(r"\b\d{8}-\d{6}\b(?=-)"), "00000000-000000"),  # the time in an id
    (re.compile(r"(?<=\b00000000-000000-)([\w-]*?-s\d+)-[0-9a-f]{4}\b"), r"\1-0000"),
)
_PATH = re.compile(r"/\S*pytest-\S*|/\S*…(?=\s*$)")  # or what is left of one at the end of a line


def freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock that ages are told by at `NOW`, and number the ids of runs made from now on.

    Clocks that waiting goes by go on.
    """
    number = itertools.count(1)
    monkeypatch.setattr(time, "time", lambda: NOW)
    # Of runs alone: libraries ask for such numbers too.
    monkeypatch.setattr(rundir, "secrets", SimpleNamespace(token_hex=lambda size: f"{next(number):0{2 * size}x}"))


def scrub(line: str) -> str:
    """Replace what differs from one time to another: ids of runs, and paths of tests with all that follows them."""
    for pattern, constant in _CHANGING:
        line = pattern.sub(constant, line)
    return _PATH.sub(lambda path: "/…".ljust(len(path.group())), line).rstrip()


def is_kept(name: str, lines: Iterable[object]) -> bool:
    """Say whether lines of a screen, strings or strips of Textual, are those kept as ``tests/snapshots/NAME.txt``."""
    file = FOLDER / f"{name}.txt"
    return file.exists() and file.read_text(encoding="utf-8").splitlines() == _shown(lines)


def _shown(lines: Iterable[object]) -> list[str]:
    return [scrub(getattr(line, "text", None) or str(line)) for line in lines]


def assert_snapshot(name: str, lines: Iterable[object]) -> None:
    """Compare lines of a screen with those kept; see `is_kept`."""
    shown, file = _shown(lines), FOLDER / f"{name}.txt"
    if os.environ.get("ACCL_WRITE_SNAPSHOTS") == "1":
        FOLDER.mkdir(exist_ok=True)
        file.write_text("\n".join(shown) + "\n", encoding="utf-8")
        return
    assert file.exists(), f"There is no {file}: set ACCL_WRITE_SNAPSHOTS=1 to write it. On screen:\n" + "\n".join(shown)
    kept = file.read_text(encoding="utf-8").splitlines()
    if shown != kept:
        diff = "\n".join(difflib.unified_diff(kept, shown, "kept", "on screen", lineterm="", n=1))
        pytest.fail(f"{name} looks different (ACCL_WRITE_SNAPSHOTS=1 keeps it as it is now):\n{diff}", pytrace=False)
