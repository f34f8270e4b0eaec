"""What people write about a run, and the experiment that it belongs to, are read whatever their files hold."""

from __future__ import annotations

import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from accl.errors import BusyError, ConfigError, DamagedError
from accl.store import files
from accl.store.experiment import checked_name, read_experiment, write_experiment
from accl.store.labels import Labels, edit_labels, read_labels
from accl.store.rundir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def test_an_edit_changes_what_it_names_and_keeps_the_rest(run: RunDir) -> None:
    edit_labels(run, add=["paper", "#rerun"], note="with the new bank")
    edit_labels(run, name="the long one", add=["paper"], remove=["rerun"])
    assert read_labels(run) == Labels("the long one", ("paper",), "with the new bank")
    assert edit_labels(run, name="", note="") == Labels(tags=("paper",))


@pytest.mark.parametrize(
    "edit",
    [{"add": [""]}, {"add": ["two words"]}, {"name": "\x1b[2J"}, {"note": "\u202e"}, {"name": "n" * 101}],
    ids=["empty tag", "tag of two words", "name that acts", "note that is reversed", "long name"],
)
def test_labels_that_no_table_could_show_are_refused(run: RunDir, edit: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        edit_labels(run, **edit)  # type: ignore[arg-type]
    assert not run.labels.exists()


@pytest.mark.parametrize("content", ["no json", "[]", '{"name": 7, "tags": {}, "note": []}', '{"tags": [1, null]}'])
def test_labels_without_texts_are_none(run: RunDir, content: str) -> None:
    run.labels.write_text(content)
    assert read_labels(run) == Labels()


def test_a_damaged_file_of_labels_is_not_overwritten(run: RunDir) -> None:
    run.labels.write_text("no json")
    with pytest.raises(DamagedError):
        edit_labels(run, note="lost")
    assert run.labels.read_text() == "no json"


def test_no_edit_is_lost_to_another_at_the_same_time(run: RunDir) -> None:
    tags = [f"tag{i}" for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda tag: edit_labels(run, add=[tag]), tags))
    assert sorted(read_labels(run).tags) == sorted(tags)


def test_an_edit_that_another_keeps_waiting_says_so(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ALONE_S", 0.0)
    descriptor = os.open(run.path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BusyError):
        edit_labels(run, note="late")
    os.close(descriptor)
    assert edit_labels(run, note="late").note == "late"


def test_an_experiment_is_known_by_its_members(run: RunDir) -> None:
    assert read_experiment(run) == ""
    write_experiment(run, checked_name(" three weights "))
    assert read_experiment(run) == "three weights"
    for content in ("no json", "[]", '{"name": 7}'):
        run.experiment.write_text(content)
        assert read_experiment(run) == ""
    run.experiment.write_text(json.dumps({"name": "\x1b]0;title\a" + "n" * 1000}))
    assert "\x1b" not in read_experiment(run)


@pytest.mark.parametrize("name", ["", "  ", "n" * 101, "\x1b[2J", "a\nb"])
def test_a_name_that_no_table_could_show_names_no_experiment(name: str) -> None:
    with pytest.raises(ConfigError):
        checked_name(name)
