"""Files that may be anything, and calls that may never return."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from accl.errors import BusyError, DamagedError
from accl.files import NotAFileError, open_regular
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


def test_a_file_of_another_user_is_not_to_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    with pytest.raises(DamagedError) as caught:
        read_text(tmp_path / "file")
    assert caught.value.hint == "Ask its owner for permission."


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND | os.O_CREAT])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere")])
def test_what_is_no_file_is_never_opened_written_or_made(
    tmp_path: Path, make: Callable[[Path], None], flags: int
) -> None:
    make(tmp_path / "x")
    with pytest.raises(NotAFileError, match=r"it is (not a file|a symbolic link)"):
        open_regular(tmp_path / "x", flags)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with open(open_regular(tmp_path / "link", follow=True)) as file:
        assert file.read() == "text"
    with pytest.raises(NotAFileError, match="it is not a file"):
        open_regular(tmp_path / "zero", follow=True)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none", follow=True)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_an_error_of_the_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotAFileError, match="no file can have this name"):
        open_regular(tmp_path / name)


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


@pytest.mark.parametrize(("last", "code"), [("sys.exit(3)", 3), ("", 0)])
def test_a_process_ends_with_its_code_while_a_query_runs_in_a_thread_left_behind(last: str, code: int) -> None:
    script = f"""
import sys, threading, duckdb
from accl.store.deadline import ending

begun = threading.Event()

def query():
    connection = duckdb.connect()
    begun.set()
    connection.execute("SELECT count(*) FROM range(100000000) WHERE hash(range) = 1").fetchall()

with ending():
    threading.Thread(target=query, daemon=True).start()
    begun.wait()
    print("shown")
    {last}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "shown\n", "")
