"""A cache that is lost, damaged, planted or out of reach changes no result and ends no run."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SHORT, Accl
from spoil import flip, put_a_folder, put_a_link, put_a_pipe

from accl.data.cache import Cache, cache_folder, refusal
from accl.files import replace_file
from accl.store.columns import RunReader
from accl.store.rundir import list_runs, write_atomically

NAME, CONTENT = "words-0123", b"derived"


class Maker:
    """Makes the one item that the tests keep, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> bytes:
        self.made += 1
        return CONTENT


def load(folder: Path | None) -> tuple[int, list[str]]:
    """Load or make the item as a new process would; return how often it was made, and the warnings."""
    cache, maker = Cache(folder), Maker()
    assert cache.load_or_make(NAME, maker, bytes, bytes) == CONTENT
    return maker.made, cache.warnings


def test_what_is_made_is_kept_and_found_again(tmp_path: Path) -> None:
    assert load(tmp_path / "new") == (1, [])
    assert load(tmp_path / "new") == (0, [])
    assert [path.name for path in (tmp_path / "new").iterdir()] == [NAME]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def plant_another_items_file(path: Path) -> None:
    Cache(path.parent).load_or_make("other", lambda: b"planted", bytes, bytes)
    (path.parent / "other").replace(path)


def put_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def let_others_write(path: Path) -> None:
    path.chmod(0o666)


def make_huge(path: Path) -> None:
    os.truncate(path, 2**40)  # sparse: takes no room on the disk, and all of the memory when it is read


@pytest.mark.parametrize(
    "damage",
    [
        *(truncate, empty, flip, plant_another_items_file, put_a_folder, put_a_pipe, put_a_link, put_a_circle),
        *(let_others_write, make_huge),
    ],
)
def test_a_file_that_is_not_what_was_kept_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    load(tmp_path)
    damage(tmp_path / NAME)
    made, (warning,) = load(tmp_path)
    assert made == 1
    assert warning.startswith(f"{tmp_path / NAME}, which ")
    assert warning.endswith("was not used and is made again")
    assert load(tmp_path) == (0, [])  # replaced
    assert (damage is put_a_folder) == any(path.is_dir() for path in tmp_path.iterdir())  # set aside, not deleted


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_or_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    load(tmp_path)
    os.chown(tmp_path / NAME, 12345, -1)
    made, (warning,) = load(tmp_path)
    assert (made, "belongs to another user" in warning) == (1, True)
    os.chown(tmp_path, 12345, -1)
    for _ in range(2):
        made, (warning,) = load(tmp_path)
        assert (made, "belongs to another user" in warning) == (1, True)


def test_what_does_not_decode_is_made_again(tmp_path: Path) -> None:
    load(tmp_path)

    def refuse(_: bytes) -> bytes:
        raise ValueError("is of another kind")

    cache, maker = Cache(tmp_path), Maker()
    assert cache.load_or_make(NAME, maker, bytes, refuse) == CONTENT
    assert (maker.made, len(cache.warnings)) == (1, 1)


def in_a_file(folder: Path) -> Path:
    folder.write_text("in the way")
    return folder


def below_a_file(folder: Path) -> Path:
    return in_a_file(folder) / "cache"


def for_all(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def in_a_circle(folder: Path) -> Path:
    folder.symlink_to(folder.name)
    return folder


@pytest.mark.parametrize("place", [in_a_file, below_a_file, for_all, in_a_circle])
def test_a_folder_that_cannot_keep_anything_is_one_warning(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    cache, maker = Cache(place(tmp_path / "cache")), Maker()
    for name in ("a", "b"):
        assert cache.load_or_make(name, maker, bytes, bytes) == CONTENT
    assert maker.made == 2
    assert len(cache.warnings) == 1
    assert "ACCL_CACHE" in cache.warnings[0]


def test_a_full_disk_is_one_warning_and_leaves_no_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    made, (warning,) = load(tmp_path)
    assert (made, "No space left on device" in warning) == (1, True)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_a_folder_that_cannot_be_written_still_gives_what_it_has(tmp_path: Path) -> None:
    load(tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert load(tmp_path) == (0, [])
        cache = Cache(tmp_path)
        cache.load_or_make("other", Maker(), bytes, bytes)
        assert "Permission denied" in cache.warnings[0]
    finally:
        tmp_path.chmod(0o700)


def test_without_a_home_nothing_is_kept_and_no_folder_is_made(tmp_path: Path) -> None:
    code = (
        "from accl.data.cache import Cache, cache_folder\n"
        "assert cache_folder() is None\n"
        "cache = Cache(cache_folder())\n"
        "assert cache.load_or_make('a', lambda: b'x', bytes, bytes) == b'x'\n"
        "assert len(cache.warnings) == 1, cache.warnings\n"
    )
    # A user that the system does not know, as in a container.
    nobody = "import pwd\ndef getpwuid(uid): raise KeyError(uid)\npwd.getpwuid = getpwuid\n"
    env = {key: value for key, value in os.environ.items() if key not in ("HOME", "ACCL_CACHE", "XDG_CACHE_HOME")}
    root = str(Path(__file__).resolve().parent.parent)
    subprocess.run([sys.executable, "-c", nobody + code], check=True, cwd=tmp_path, env=env | {"PYTHONPATH": root})
    assert [*tmp_path.iterdir()] == []


def test_a_home_that_nobody_has_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCL_CACHE", "~no-such-user/cache")
    assert cache_folder() is None
    assert refusal(None) is not None


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o022, 0o755, 0o644), (0, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_the_cache_follows_the_umask_but_is_never_others_to_write(
    tmp_path: Path, umask: int, folder: int, file: int
) -> None:
    before = os.umask(umask)
    try:
        load(tmp_path / "cache")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache", tmp_path / "cache" / NAME)]
    assert modes == [folder, file]
    assert load(tmp_path / "cache") == (0, [])


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_that_are_replaced_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "state.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o666 & ~umask


def test_a_file_that_cannot_be_replaced_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_run_is_the_same_with_a_whole_a_damaged_and_no_cache(tmp_path: Path, accl: Accl) -> None:
    def train(cache: Path) -> tuple[list[float], list[str]]:
        done = accl("train", "full", "-p", "demo", "--runs", str(tmp_path / "runs"), *SHORT, ACCL_CACHE=str(cache),
                    ACCL_NATIVE="0")  # fmt: skip
        assert done.returncode == 0, done.stderr
        reader = RunReader(list_runs(tmp_path / "runs")[-1])
        reader.refresh()
        # Whoever trains, the group can read all of a run.
        assert all(path.stat().st_mode & stat.S_IRGRP for path in reader.run.path.rglob("*"))
        said = [event.message for event in reader.last.events if event.kind == "cache"]
        return reader.last.curves["train/loss"].median.tolist(), said

    cache = tmp_path / "cache"
    before = os.umask(0o022)
    try:
        losses, said = train(cache)
        assert said == []
        files = sorted(cache.iterdir())
        assert [path.name.partition("-")[0] for path in files] == ["tokenizer", "tokens"]
        for path in files:
            flip(path)
        again, said = train(cache)
        assert (again, len(said)) == (losses, 2)
        without, said = train(files[0])
        assert (without, len(said)) == (losses, 1)
    finally:
        os.umask(before)
