"""Tags, notes and names are written and read on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from click.testing import Result
from factory import finished_run
from hostile import acting, hostile_run
from typer.testing import CliRunner

from accl.cli.labels import note, rename, tag
from accl.cli.show import show
from accl.errors import ConfigError, DamagedError, RunError
from accl.store.labels import edit_labels, read_labels
from accl.store.rundir import RunDir, find_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return finished(tmp_path)


def finished(root: Path, recipe: str = "full") -> RunDir:
    return finished_run(root, recipe, curves=False, predictions=False)


def command(function: Callable[..., None], run: RunDir, *words: str) -> Result:
    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, [*words, "--runs", str(run.path.parent)])


def test_tags_are_added_and_taken_away_of_several_runs(run: RunDir) -> None:
    other, third = finished(run.path.parent, "baseline"), finished(run.path.parent, "contrastive")
    assert command(tag, run, run.id, other.id, "--add", "paper", "-a", "old").exit_code == 0
    done = command(tag, run, "tag:paper", "--remove", "old", "--format", "json")
    assert json.loads(done.stdout) == [{"id": each.id, "tags": ["paper"]} for each in (other, run)]
    assert read_labels(third).tags == ()
    assert "paper" in command(tag, run, run.id).stdout  # which only lists
    assert read_labels(run).tags == ("paper",)


def test_a_run_whose_labels_are_damaged_does_not_keep_others_from_their_tag(run: RunDir) -> None:
    damaged = finished(run.path.parent, "baseline")
    damaged.labels.write_text("no json")
    done = command(tag, run, "state:finished", "--add", "paper")
    assert isinstance(done.exception, DamagedError)
    assert read_labels(run).tags == ("paper",)
    assert damaged.labels.read_text() == "no json"


def test_a_tag_of_two_words_is_refused(run: RunDir) -> None:
    assert isinstance(command(tag, run, "last", "--add", "two words").exception, ConfigError)
    assert read_labels(run).tags == ()


def test_a_note_is_written_printed_and_taken_away(run: RunDir) -> None:
    assert "no note" in command(note, run, "last").output
    command(note, run, "last", "with the new bank: 50 %")
    assert command(note, run, "last").stdout == "with the new bank: 50 %\n"
    command(note, run, "last", "")
    assert read_labels(run).note == ""


def test_a_name_means_the_run_and_neither_id_nor_folder_change(run: RunDir) -> None:
    root = run.path.parent
    command(rename, run, run.id, " small bank ")
    assert find_run(root, "small bank") == run
    other = finished(root, "baseline")
    done = command(rename, run, other.id, "small bank")
    assert f"{run.id} has this name too" in done.output
    command(rename, run, other.id, "")
    assert find_run(root, "small bank") == run


def test_one_run_is_shown_with_its_labels(run: RunDir) -> None:
    assert "tags" not in command(show, run, "last").stdout
    edit_labels(run, name="small bank", note="smoother", add=["paper", "new"])
    words = " ".join(command(show, run, "small bank").stdout.split())
    assert "name small bank tags paper, new note smoother recipe full" in words
    assert json.loads(command(show, run, "last", "-f", "json").stdout)["tags"] == ["paper", "new"]


def test_last_is_no_name(run: RunDir) -> None:
    assert isinstance(command(rename, run, run.id, "last").exception, ConfigError)
    another = "20261122-101500-full-s1-7f3a"
    assert "id of another" in str(command(rename, run, run.id, another).exception)
    assert read_labels(run).name == ""


def test_hostile_labels_are_printed_harmlessly(tmp_path: Path) -> None:
    run = hostile_run(tmp_path)
    for function in (tag, note):
        done = command(function, run, "last")
        assert done.exit_code == 0
        assert not acting(done.output)
        assert "owned" in done.output


def test_tags_that_are_typed_without_their_option_are_told_with_it(tmp_path: Path) -> None:
    finished_run(tmp_path, curves=False, predictions=False)
    with pytest.raises(RunError, match="matches: last best slow") as refused:
        tag(["last", "best", "slow"], runs=tmp_path)
    assert refused.value.hint == "Did you mean: accl tag last --add best --add slow"
