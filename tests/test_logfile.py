"""Logs of any size, read by offset."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from accl.errors import DamagedError
from tui.logfile import BLOCK, CHUNK, SLICE, LogFile, Search


def searched(file: LogFile, text: str) -> list[int]:
    search = Search(text)
    while search.more:
        file.search(search)
    return list(search.hits)


def walked(file: LogFile, size: int) -> list[tuple[int, str]]:
    """Return all lines, gathered from parts that overlap."""
    lines = {line.start: line.text for at in range(0, size, BLOCK) for line in file.around(at).lines}
    return sorted(lines.items())


def test_parts_agree_on_where_lines_begin_and_cover_the_whole_file(tmp_path: Path) -> None:
    texts = [f"line {i} {'x' * (i % 300)}." for i in range(2000)]
    path = tmp_path / "console.log"
    path.write_text("\n".join(texts) + "\n")
    file = LogFile(path)
    assert [text for _, text in walked(file, path.stat().st_size)] == texts
    end = file.around(None)
    assert end.is_last
    assert not end.is_first
    assert end.lines[-1].text == texts[-1]
    assert all(a.end == b.start for a, b in pairwise(end.lines))


def test_a_large_file_is_read_in_parts_only(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    with open(path, "wb") as file:
        file.truncate(2**40)  # a sparse terabyte of NUL: whoever read it whole would not come back
        file.seek(2**40)
        file.write(b"\nthe end\n")
    part = LogFile(path).around(None)
    assert part.lines[-1].text == "the end"
    assert len(LogFile(path).around(2**39).lines) == 3, "blocks without a line feed count as lines"


def test_of_a_rewritten_line_only_the_last_version_is_shown_and_found(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"10 %\r50 %\r100 %\nnext\r\n\x1b[2J\xff\ttab\n")
    file = LogFile(path)
    assert [line.text for line in file.around(0).lines] == ["100 %", "next", "␛[2J\ufffd   tab"]
    assert searched(file, "50 %") == []
    assert searched(file, "100") == [10]
    assert searched(file, "NEXT") == [16]


def test_a_progress_line_without_an_end_is_shown_by_its_last_version(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"".join(b"%d %%\r" % i for i in range(20_000)))
    assert LogFile(path).around(None).lines[-1].text == "19999 %"


def test_a_search_finds_each_line_once_across_chunks_and_goes_on_as_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    filler = b"y" * 999 + b"\n"
    content = bytearray(filler * (2 * CHUNK // 1000))
    places = [0, CHUNK - CHUNK % 1000, 2 * CHUNK - 5000 - 2 * CHUNK % 1000]
    for place in places:
        content[place : place + 13] = b"Needle needle"
    path.write_bytes(bytes(content) + b"a last need")
    file, search = LogFile(path), Search("needle")
    file.search(search)
    assert list(search.hits) == places
    assert not search.more
    with open(path, "ab") as stream:
        stream.write(b"le\n")
    file.search(search)
    file.search(search)
    assert list(search.hits) == [*places, len(content) + 7]
    assert len(content) < SLICE


def test_a_truncated_or_replaced_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text("one\ntwo\n")
    file = LogFile(path)
    first = file.around(None)
    with open(path, "a") as stream:
        stream.write("three\n")
    grown = file.around(None)
    assert grown.generation == first.generation
    path.write_text("new\n")
    shorter = file.around(10**6)
    assert shorter.generation != grown.generation
    assert [line.text for line in shorter.lines] == ["new"]
    path.write_text("another text that is longer\n")
    assert file.around(None).generation != shorter.generation
    path.unlink()
    assert file.around(None).lines == ()


def test_the_line_of_a_step_is_the_last_one_up_to_it(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text("start\nstep 200: a\nstep 1,400: b\n--- resumed\nstep 400: c\nstep of none\n")
    file = LogFile(path)
    lines = {line.text: line.start for line in file.around(0).lines}
    assert file.at_step(100) is None
    assert file.at_step(399) == lines["step 200: a"]
    assert file.at_step(1e9) == lines["step 400: c"]


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "console.log")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("console.log", "link"):
        with pytest.raises(DamagedError, match="cannot be read"):
            LogFile(tmp_path / name).around(None)
