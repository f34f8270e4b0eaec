"""The list of runs shows what tells runs apart, as much of it as fits, in the order that is asked for."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from click.testing import Result
from factory import finished_run, running_run
from hostile import EVIL, acting, hostile_run
from typer.testing import CliRunner

from accl.analysis.differing import differing
from accl.cli.runs import runs
from accl.errors import ConfigError
from accl.store.experiment import write_experiment
from accl.store.labels import edit_labels
from accl.store.rundir import RunDir, find_run
from accl.store.state import State, read_state, write_state
from accl.store.summary import SummaryReader, read_summaries


def made(root: Path, recipe: str = "full", seed: int = 1, correct: float = 0.5, *overrides: str) -> RunDir:
    return finished_run(
        root, recipe, seed=seed, correct=correct, overrides=overrides, curves=False, predictions=False, questions=400
    )


def command(root: Path, *words: str, columns: int = 80) -> Result:
    app = typer.Typer()
    app.command()(runs)
    return CliRunner().invoke(app, [*words, "--runs", str(root)], env={"COLUMNS": str(columns)})


def printed(root: Path, *words: str, columns: int = 80) -> str:
    done = command(root, *words, columns=columns)
    assert done.exception is None, done.output
    return done.stdout


def rows(root: Path, *words: str) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(printed(root, *words, "-f", "json"))
    return listed


@pytest.fixture(name="sweep", scope="module")
def _sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two learning rates of full over two seeds, and a baseline."""
    root = tmp_path_factory.mktemp("sweep")
    for lr, correct in (("1e-05", 0.4), ("2e-05", 0.6)):
        for seed in (1, 2):
            made(root, "full", seed, correct + 0.01 * seed, f"optim.lr={lr}")
    made(root, "baseline", 1, 0.3, "optim.lr=1e-05")
    return root


def test_keys_within_a_recipe_come_before_those_that_recipes_differ_by(sweep: Path) -> None:
    found = differing(read_summaries([SummaryReader(run) for run in map(RunDir, sorted(sweep.iterdir()))], 0.0))
    assert found.within == ("optim.lr",)
    assert "loss.contrastive_weight" in found.between
    assert "train.seed" not in (*found.within, *found.between)
    assert {values["optim.lr"] for values in found.values} == {1e-5, 2e-5}


def test_a_configuration_that_cannot_be_read_makes_nothing_differ(tmp_path: Path) -> None:
    made(tmp_path)
    made(tmp_path, seed=2).config.write_text("recipe: [\n")
    assert rows(tmp_path)[0]["config"] == {}
    strange = made(tmp_path, seed=3)
    strange.config.write_text(strange.config.read_text() + "elsewhere:\n  key: 1\n")
    assert rows(tmp_path)[0]["config"] == {}


def test_the_keys_that_differ_are_columns_as_far_as_they_fit(sweep: Path) -> None:
    narrow, wide = printed(sweep, columns=70), printed(sweep, columns=200)
    assert all(len(line) <= 70 for line in narrow.splitlines())
    assert "2e-05" in narrow
    assert "No room for " in narrow
    assert "contrastive weight" in wide
    assert "No room" not in wide
    one = printed(sweep, "recipe:full", columns=200)
    assert "2e-05" in one
    assert "contrastive" not in one
    assert "2e-05" not in printed(sweep, "lr:1e-5", columns=200)


def test_short_ids_name_their_runs(sweep: Path) -> None:
    names = [line.split()[0] for line in printed(sweep, columns=70).splitlines() if "finished" in line]
    assert len(names) == 5
    for name, row in zip(names, rows(sweep), strict=True):
        assert find_run(sweep, name).id == row["id"] != name
    for line in printed(sweep, columns=200).splitlines()[2:]:
        assert find_run(sweep, line.split()[0]).id == line.split()[0]


def test_json_has_every_key_that_differs_and_csv_a_column_of_each(sweep: Path) -> None:
    listed = rows(sweep)
    config = [row["config"] for row in listed]
    assert all(isinstance(each, dict) and {"optim.lr", "loss.contrastive_weight"} <= each.keys() for each in config)
    table = list(csv.DictReader(printed(sweep, "-f", "csv").splitlines()))
    assert [float(row["optim.lr"]) for row in table] == [row["config"]["optim.lr"] for row in listed]  # type: ignore[index]
    assert table[0].keys() >= {"id", "seed", "validation/accuracy"}


def test_columns_are_asked_for_by_short_names_metrics_and_keys(sweep: Path) -> None:
    text = printed(sweep, "-f", "csv", "--columns", "val,lr,max_length,train/loss,seed")
    head, *lines = csv.reader(text.splitlines())
    assert head == ["id", "validation/accuracy", "optim.lr", "data.max_length", "train/loss", "seed"]
    assert {line[3] for line in lines} == {"64.0"}
    assert {line[2] for line in lines} == {"1e-05", "2e-05"}
    assert {line[4] for line in lines} == {"0.5"}
    assert printed(sweep, "--columns", "id,lr", columns=200).split()[:2] == ["id", "lr"]


def test_metrics_are_read_from_the_databases_where_no_state_has_them(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "full", correct=0.5, measured=(0.9, 0.05, 0.4))
    finished_run(tmp_path, "baseline", correct=0.5, measured=(0.9, 0.01, 0.4))
    damaged = made(tmp_path, "contrastive")
    damaged.database.write_bytes(b"no database")
    done = command(tmp_path, "-c", "recipe,test/ece,train/lr,val", "-s", "test/ece", "-f", "csv")
    first, second, third = csv.DictReader(done.stdout.splitlines())
    assert [float(row["test/ece"]) for row in (first, second)] == [0.01, 0.05]
    assert float(first["train/lr"]) == 0.0
    assert float(first["validation/accuracy"]) > 0
    assert (third["id"], third["test/ece"]) == (damaged.id, "")
    assert "measurements of 1 run cannot be read" in done.stderr
    write_state(run, read_state(run).changed(latest={"validation/accuracy/best": 0.75}))
    both = rows(tmp_path, "full", "-c", "validation/accuracy/best,test/brier")
    assert [(row["validation/accuracy/best"], row["test/brier"]) for row in both] == [(0.75, 0.4)]
    misspelt = command(tmp_path, "full", "--sort", "test/acuracy").exception
    assert isinstance(misspelt, ConfigError)
    assert "val" in misspelt.hint
    assert run.id in printed(tmp_path, "-c", "test/brier,id", columns=200)


def test_a_metric_that_is_called_as_a_column_takes_nothing_of_it(tmp_path: Path) -> None:
    run = made(tmp_path)
    write_state(run, read_state(run).changed(latest={"id": 1.0, "state": 2.0, "optim.lr": 3.0}))
    text = printed(tmp_path, "-c", "id,state,optim.lr", columns=200)
    assert run.id in text
    assert "finished" in text
    assert "0.001" in text


def test_two_keys_with_one_last_part_are_told_apart(sweep: Path) -> None:
    asked = printed(sweep, "--columns", "loss.temperature,curriculum.temperature", columns=200)
    assert "loss.temperature" in asked
    assert "curriculum.temperature" in asked


@pytest.mark.parametrize(("name", "near"), [("vall", "val"), ("optim.lrr", "optim.lr"), ("", "lr,val")])
def test_a_column_that_there_is_not_is_refused_with_the_nearest(sweep: Path, name: str, near: str) -> None:
    for option in ("--columns", "--sort"):
        error = command(sweep, option, name).exception
        assert isinstance(error, ConfigError)
        assert near in error.hint


def test_a_key_that_ends_as_a_column_is_titled_as_a_whole(tmp_path: Path) -> None:
    made(tmp_path, "full", 1, 0.5, "eval.test=false")
    made(tmp_path, "full", 2)
    head = " ".join(printed(tmp_path).splitlines()[:2])
    assert "eval.test" in head
    assert head.split().count("test") == 1


def test_steps_that_nobody_knows_yet_are_no_number(tmp_path: Path) -> None:
    run = made(tmp_path)
    write_state(run, replace(read_state(run), step=0, total_steps=0, state=State.STOPPED))
    assert printed(tmp_path, "--columns", "step").split()[-1] == "–"


def test_runs_are_sorted_by_any_column_and_unknown_values_come_last(tmp_path: Path) -> None:
    best, worst, unknown = made(tmp_path, correct=0.9), made(tmp_path, seed=2, correct=0.1), made(tmp_path, seed=3)
    write_state(unknown, read_state(unknown).changed(latest={"validation/accuracy": math.nan}))
    broken = made(tmp_path, seed=4)
    broken.state.write_text("no json")
    for sort, order in (("val", [worst, best]), ("-val", [best, worst])):
        listed = [row["id"] for row in rows(tmp_path, "--sort", sort)]
        assert listed[:2] == [run.id for run in order]
        assert set(listed[2:]) == {unknown.id, broken.id}
    assert [row["seed"] for row in rows(tmp_path, "--sort", "-seed")] == [4, 3, 2, 1]


def test_names_tags_and_experiments_are_shown_when_a_run_has_one(tmp_path: Path) -> None:
    named, other = made(tmp_path), made(tmp_path, seed=2)
    assert "tags" not in printed(tmp_path, columns=200)
    edit_labels(named, name="small bank", add=["paper"])
    write_experiment(other, "weights")
    text = printed(tmp_path, columns=200)
    assert {"experiment", "tags", "seed", "recipe"} <= set(text.splitlines()[0].split())
    assert "small bank" in text
    assert named.id not in text
    assert other.id in text
    edit_labels(other, name="small bank")  # now it names neither
    assert named.id in printed(tmp_path, columns=200)
    assert {row["name"] for row in rows(tmp_path)} == {"small bank"}


@pytest.mark.parametrize("columns", [20, 80, 300])
def test_hostile_names_experiments_and_values_are_shown_harmlessly(tmp_path: Path, columns: int) -> None:
    for seed, name in ((1, EVIL[:20]), (2, EVIL)):
        run = hostile_run(tmp_path, seed=seed)
        run.write_json(run.labels, {"name": name, "tags": [EVIL], "note": EVIL})
        run.write_json(run.experiment, {"name": EVIL})
    for words in ([], ["--columns", "id,name,tag,note,experiment,data.path"], ["--sort", "name"], ["-f", "md"]):
        done = command(tmp_path, *words, columns=columns)
        assert done.exception is None, done.output
        assert not acting(done.output)
        assert "owned" in "".join(done.output.split())


def test_what_is_not_known_of_all_runs_takes_no_room(tmp_path: Path) -> None:
    made(tmp_path)
    assert "ETA" not in printed(tmp_path, columns=200)
    live = running_run(tmp_path)
    latest = {"train/loss": 1.0, "steps_per_second": 2.0}
    write_state(live, read_state(live).changed(latest=latest))
    text = printed(tmp_path, columns=200)
    assert "ETA" in text
    assert "80/200" in text
