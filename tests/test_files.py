"""Files that may be anything, and calls that may never return."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from accl.errors import BusyError, DamagedError
from accl.store.deadline import each_within, within
from accl.store.files import read_tail, read_text


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("Größe")
    assert read_text(file) == "Größe"
    assert read_tail(file, 2) == b"\x9fe"


def test_a_missing_file_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")


@pytest.mark.parametrize("kind", ["folder", "link", "loop", "fifo", "socket", "long", "binary"])
def test_what_is_no_readable_file_is_damage_and_nothing_waits_for_it(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / kind, tmp_path / "other"
    other.write_text("text")
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(other)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "long":
        path.write_bytes(b"x" * 101)
    else:
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DamagedError, match=str(path)):
        read_text(path, limit=100)


def test_a_call_that_never_returns_is_left_behind_and_the_others_are_made() -> None:
    never = threading.Event()
    results = dict(each_within(0.2, lambda item: never.wait() if item == "b" else item.upper(), ["a", "b", "c"]))
    assert results["a"] == "A"
    assert results["c"] == "C"
    assert isinstance(results["b"], BusyError)


def test_an_exception_of_one_call_is_its_result() -> None:
    results = [result for _, result in each_within(5, lambda x: 1 // x, [1, 0, 2])]
    assert results[0] == 1
    assert results[2] == 0
    assert isinstance(results[1], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
    assert within(5, lambda: 3) == 3
