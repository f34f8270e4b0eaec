"""What a run needs is looked for before the run is made, and what slows it down is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import DATA_REPO, MODEL_REPO

from accl.config import Config, resolve
from accl.data import hub
from accl.errors import ConfigError, RunError
from accl.launch import preflight


def config(*overrides: str, profile: str = "demo") -> Config:
    return resolve("full", profile, list(overrides)).config


def notes(wanted: Config) -> list[str]:
    said: list[str] = []
    preflight.check(wanted, said.append)
    return said


def a_file(cache: Path) -> None:
    cache.touch()


def writable_by_all(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)


@pytest.mark.parametrize("make", [a_file, writable_by_all])
def test_a_cache_that_keeps_nothing_is_said_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("ACCL_CACHE", str(tmp_path / "cache"))
    assert notes(config()) == []
    make(tmp_path / "cache")
    (note,) = notes(config())
    assert note.startswith("warning: nothing is cached: ")
    monkeypatch.setenv("ACCL_CACHE", "~no-such-user/cache")
    (note,) = notes(config())
    assert "no home folder is known" in note
    monkeypatch.setenv("ACCL_CACHE", "/proc/cache")  # not even root can write there
    (note,) = notes(config())
    assert "cannot be written" in note


def test_a_current_folder_that_was_removed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        with pytest.raises(RunError, match="current folder has been removed"):
            notes(config())
    finally:
        os.chdir(tmp_path)


def test_a_local_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        notes(config(f"model.name={tmp_path / 'nowhere'}"))


def test_what_is_not_cached_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(hub, "fetch_model", lambda name, _: fetched.append(name))
    monkeypatch.setattr(preflight, "load_corpus", lambda _, path, __: fetched.append(path))
    monkeypatch.setattr(hub, "cached_model", lambda *_: None)
    wanted = config("train.device=cpu", profile="paper")
    assert notes(wanted) == [f"fetching {MODEL_REPO} from the Hub", f"fetching {DATA_REPO} from the Hub"]
    assert fetched == [MODEL_REPO, DATA_REPO]
    monkeypatch.setattr(hub, "cached_model", lambda *_: tmp_path)
    assert notes(wanted) == [f"fetching {DATA_REPO} from the Hub"]
