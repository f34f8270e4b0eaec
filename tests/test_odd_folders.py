"""Data folders that hold what is no data, or more than can be read: ignored, or refused by file."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from data_folders import COLUMNS, arrow_folder, csv_folder, good, parquet_folder, questions, refusal

from accl.data import builder, files, parquet, typed_rows
from accl.errors import DataError

# --- files that are none


def test_what_systems_and_editors_leave_behind_is_no_data(tmp_path: Path) -> None:
    csv_folder(tmp_path, good(2))
    expected = questions(tmp_path)
    for name in (
        "._anatomy_test.csv",
        ".~lock.anatomy_test.csv",
        "~$anatomy_test.csv",
        "anatomy_test.csv.swp",
        ".DS_Store",
    ):
        csv_folder(tmp_path, b"\0\5\x16\7", name)
    csv_folder(tmp_path, good(1), ".ipynb_checkpoints/anatomy_test.csv")
    hidden = tmp_path / ".ipynb_checkpoints" / "anatomy-checkpoint.csv"
    hidden.parent.mkdir()
    hidden.write_text(good(1))
    (tmp_path / "._test-00000-of-00001.parquet").write_bytes(b"\0\5\x16\7")
    assert questions(tmp_path) == expected


def test_a_suffix_in_capitals_is_read_as_well(tmp_path: Path) -> None:
    csv_folder(tmp_path, good(2), "anatomy_test.CSV")
    assert len(questions(tmp_path)) == 2


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_socket(path: Path) -> None:
    os.chdir(path.parent)  # an address has room for 100 bytes only
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, "cannot be read (it is not a file)"),
        (os.mkfifo, "cannot be read (it is not a file)"),
        (make_loop, "cannot be read (Too many levels of symbolic links)"),
        (make_socket, "cannot be read (it is not a file)"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read (No such file or directory)"),
    ],
)
@pytest.mark.parametrize("name", ["test/anatomy_test.csv", "test.parquet", "saved"])
def test_what_is_named_like_data_and_is_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], None], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "saved":
        arrow_folder(tmp_path, pa.table(COLUMNS))
        path = tmp_path / "data-00000-of-00001.arrow"
        path.unlink()
    else:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
    make(path)
    assert refusal(tmp_path).startswith(f"{path} {says}")


def test_a_folder_that_is_none_or_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read (Too many levels" in refusal(tmp_path / "loop")
    assert "cannot be read (File name too long" in refusal(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is not a folder" in refusal(tmp_path / "pipe")
    assert "embedded null byte" in refusal(Path(f"{tmp_path}\0"))
    assert "~nobody-of-that-name" in refusal(Path("~nobody-of-that-name"))


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = csv_folder(tmp_path, good(1))
    os.truncate(path, files.MOST_BYTES + 1)  # sparse: it takes no room
    assert refusal(tmp_path).startswith(f"{path} has 536,870,913 bytes, more than the 536,870,912 that are read.")


def test_a_folder_of_two_layouts_is_refused(tmp_path: Path) -> None:
    csv_folder(tmp_path, good(1))
    parquet_folder(tmp_path, pa.table(COLUMNS))
    assert "several layouts: parquet in" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["exp:v2", "s3:", "a'b", "a[1]", "b*", "c?", "{x,y}", "a::b", "d\\e", "é \u202e"])
def test_a_folder_name_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for decoy in ("a1", "bx", "cx", "x", "y"):
        parquet_folder(tmp_path / decoy, pa.table(COLUMNS | {"question": ["another one", "and one more"]}))
    for write in (parquet_folder, arrow_folder):
        write(Path(name) / write.__name__, pa.table(COLUMNS))
        assert [row[1] for row in questions(Path(name) / write.__name__)] == COLUMNS["question"]


# --- more than can be read


def test_files_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = ["x" * 100_000] * 1000  # 100 MB of text in a file of some kilobytes
    rows = {"question": long, "subject": ["anatomy"] * 1000, "choices": [["1", "2"]] * 1000, "answer": [0] * 1000}
    path = parquet_folder(tmp_path, pa.table(rows))
    assert path.stat().st_size < 2**20
    monkeypatch.setattr(typed_rows, "MOST_CHARACTERS", 2**26)
    assert "column question has 100,000,000 bytes of text, more than the 67,108,864 read" in refusal(tmp_path)
    monkeypatch.setattr(parquet, "_MOST_VALUES", 1500)
    assert "unpacks to" in refusal(tmp_path)


def test_reading_has_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typed_rows, "MOST_SECONDS", 0.05)
    with (
        pytest.raises(DataError, match=r"x\.parquet takes longer than 0\.05 s to read"),
        typed_rows.hardened(Path("x.parquet")) as connection,
    ):
        connection.execute("SELECT count(*) FROM range(100000000) a, range(100000000) b").fetchall()


def test_the_database_that_reads_opens_nothing_else(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("secret")
    for statement in (f"FROM read_text('{other}')", "INSTALL httpfs", "LOAD httpfs", "SET memory_limit = '1TB'"):
        with pytest.raises(DataError), typed_rows.hardened(tmp_path / "x", "/dev/fd/9") as connection:
            connection.execute(statement).fetchall()


def test_too_much_text_or_too_many_subjects_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv_folder(tmp_path, good(3))
    monkeypatch.setattr(builder, "MOST_CHARACTERS", 60)
    assert "row 3: with this row there are more than 1,048,576 questions or 60 characters" in refusal(tmp_path)
    monkeypatch.undo()
    csv_folder(tmp_path, good(3), "virology_test.csv")
    monkeypatch.setattr(builder, "MOST_TASKS", 1)
    assert "has 2 subjects, more than 1." in refusal(tmp_path)


@pytest.mark.parametrize("name", ["Anatomy_test.csv", "anatomy _test.csv", "ａnatomy_test.csv"])
def test_two_subjects_that_read_alike_are_refused(tmp_path: Path, name: str) -> None:
    csv_folder(tmp_path, good(4))
    csv_folder(tmp_path, good(4), name)
    assert "two subjects of one name" in refusal(tmp_path)
