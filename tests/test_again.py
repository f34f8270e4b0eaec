"""A run again, as it was or with a change: its configuration is the base, and the new run says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from factory import finished_run
from typer.testing import CliRunner

from accl.cli.train import restart, train
from accl.config import difference
from accl.errors import AbsentError, AcclError, ConfigError, RunError
from accl.launch import process
from accl.store.facts import read_facts
from accl.store.rundir import RunDir, list_runs

SETS = ("loss.temperature=0.2", "optim.lr=2e-3")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    """The runs whose trainer would have been started."""
    runs: list[RunDir] = []
    monkeypatch.setattr(process, "start", runs.append)
    return runs


def call(command: object, *arguments: str) -> str:
    """What a command prints on stdout; raises what it raises."""
    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_run_is_trained_again_with_one_change(tmp_path: Path, started: list[RunDir]) -> None:
    old = finished_run(tmp_path, "full", seed=3, overrides=SETS)
    printed = call(train, "--like", "full-s3", "--set", "optim.lr=5e-5", "-d", "--runs", str(tmp_path))
    (new,) = started
    assert printed.strip() == new.id == list_runs(tmp_path)[-1].id
    assert difference(old.load_config(), new.load_config()) == {"optim.lr": (2e-3, 5e-5)}
    assert new.read_json(new.provenance)["based_on"] == old.id
    origins = read_facts(new).origins
    assert origins["loss.temperature"] == f"run {old.id}"
    assert ("based_on", old.id) in read_facts(new).provenance


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["--set", "optim.lr=5e-5"], "with optim.lr 0.002 → 5e-05"),
        (["--set", "optim.lr=2e-3"], "with nothing changed"),
        ([], "with nothing changed"),
    ],
)
def test_what_is_changed_of_a_run_is_said(
    tmp_path: Path, started: list[RunDir], sets: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = finished_run(tmp_path, "full", seed=3, overrides=SETS)
    with pytest.raises(typer.Exit):
        train(like=old.id, overrides=sets[1:], detach=True, runs=tmp_path)
    assert f"as {old.id}, {words}\n" in capsys.readouterr().err
    assert len(started) == 1


def test_a_restarted_run_is_a_new_one_with_the_same_configuration(tmp_path: Path, started: list[RunDir]) -> None:
    old = finished_run(tmp_path, "baseline", seed=5, overrides=SETS)
    call(restart, old.id, "-d", "--runs", str(tmp_path))
    (new,) = started
    assert new.id != old.id
    assert new.load_config() == old.load_config()
    assert new.read_json(new.provenance)["based_on"] == old.id


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ((), ConfigError, "There is no recipe"),
        (("full", "--like", "last"), ConfigError, "the recipe full would replace"),
        (("--like", "last", "-p", "demo"), ConfigError, "--profile demo would replace"),
        (("--like", "nothing"), RunError, "No run named 'nothing'"),
        (("--like", "last", "--set", "optim.lrr=1"), ConfigError, "optim.lr"),
    ],
)
def test_mistakes_make_no_run(
    tmp_path: Path, started: list[RunDir], arguments: tuple[str, ...], kind: type[AcclError], words: str
) -> None:
    finished_run(tmp_path, curves=False)
    with pytest.raises(kind) as caught:
        call(train, *arguments, "--runs", str(tmp_path))
    assert words in str(caught.value)
    assert len(list_runs(tmp_path)) == 1
    assert started == []


def test_a_run_without_a_configuration_says_so(tmp_path: Path, started: list[RunDir]) -> None:
    old = finished_run(tmp_path, curves=False)
    old.config.unlink()
    with pytest.raises(AbsentError, match=r"config\.yaml is missing"):
        call(restart, old.id, "--runs", str(tmp_path))
    assert started == []
