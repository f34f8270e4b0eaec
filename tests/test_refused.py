"""What cannot work is refused on the command line before a run is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run_accl
from factory import finished_run
from typer.testing import CliRunner

from accl.cli.main import app
from accl.cli.options import local_folder
from accl.errors import ConfigError

Typed = Callable[..., str]


def in_process(*arguments: str) -> str:
    """Return what is said of a refused command, which is run in this process."""
    refused = CliRunner().invoke(app, arguments).exception
    assert isinstance(refused, ConfigError)
    return f"{refused.what} {refused.hint}"


def in_a_process_of_its_own(*arguments: str) -> str:
    done = run_accl(*arguments)
    assert done.returncode == ConfigError.exit_code
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["full", "--set", "train.epochs=.inf"], "train.epochs='.inf'"),
        (["full", "--set", f"train.seed={2**64}"], "train.seed='18446744073709551616'"),
        (["full", "--seed", "1_0"], "train.seed='1_0'"),
        (["full", "--seed", "9" * 5000], "train.seed='999"),
        (["full", "--set", "loss.negatives=hardest(inf)"], "hardest(k) takes"),
        (["full", "--set", "data.path="], "data.path is empty"),
        (["full", "--set", b"data.path=a\xff"], "U+DCFF"),
        (
            ["full", "--set", "curriculum.policy=fixed", "--set", "curriculum.weights_file=none.yaml"],
            "no file none.yaml",
        ),
        (
            ["full", "--set", "curriculum.policy=fixed", "--set", "curriculum.weights_file=mine.yaml"],
            "unknown train.seed",
        ),
        (["full", "--set", "model.name=random:foo"], "Unknown architecture random:foo"),
        (["full", "--set", "train.backend=cudagraph"], "does not run on train.device=cpu"),
        (["base[v2].yaml"], "for example to base-v2.yaml"),
        (["mine.yaml"], "mine.yaml, line 3: 'train.seed' is written in line 1"),
        (["full", "--runs", ""], "--runs is empty"),
        (["full", "--runs", "s3://bucket"], "is a URL"),
    ],
    ids=range(15),
)
@pytest.mark.parametrize("typed", [in_process, pytest.param(in_a_process_of_its_own, marks=pytest.mark.slow)])
def test_a_command_that_cannot_work_makes_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Typed, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base[v2].yaml").write_text("")
    double = "train.seed: 1\ntrain:\n  seed: 2\n"
    (tmp_path / "mine.yaml").write_text("train.seed: 1\n" if "full" in arguments else double)
    before = sorted(tmp_path.iterdir())
    said = typed("train", "--profile", "demo", *map(os.fsdecode, arguments))
    assert words in " ".join(said.split())
    assert "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "stem", ["-x", ".x", "_x", "a b", "[red]x", "a\nb", "é", "a:b", "x" * 65, "%s", "a'b", "\x1b[2J", "a\\b", "*"]
)
@pytest.mark.parametrize("kind", ["recipe", "profile"])
def test_a_file_whose_name_cannot_be_part_of_an_id_is_refused(tmp_path: Path, kind: str, stem: str) -> None:
    from accl.config import resolve

    file = tmp_path / f"{stem}.yaml"
    file.write_text("")
    with pytest.raises(ConfigError, match="cannot be part of a run's id") as refused:
        resolve(*((str(file), "demo") if kind == "recipe" else ("full", str(file))))
    assert refused.value.what.isprintable()
    proposed = refused.value.hint.rpartition(" ")[2]
    (tmp_path / proposed).write_text("")
    resolve(str(tmp_path / proposed), "demo")


@pytest.mark.parametrize("command", ["show", "logs", "stop", "resume", "compare"])
@pytest.mark.parametrize("name", ["", "  "])
@pytest.mark.parametrize("typed", [in_process, pytest.param(in_a_process_of_its_own, marks=pytest.mark.slow)])
def test_a_blank_name_means_no_run(typed: Typed, command: str, name: str) -> None:
    assert "name of the run is empty" in typed(command, name)


def test_a_runs_folder_is_an_absolute_path_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    for text, path in (
        ("runs", tmp_path / "runs"),
        ("exp:v2", tmp_path / "exp:v2"),
        ("memory:", tmp_path / "memory:"),
        (":memory:", tmp_path / ":memory:"),
        ("md:x", tmp_path / "md:x"),
        ("s3:/x", tmp_path / "s3:" / "x"),
        ("../x", tmp_path.parent / "x"),
        ("/a/../b", Path("/b")),
        ("~/r", Path("/home/someone/r")),
        (" r", tmp_path / " r"),
    ):
        assert local_folder(text) == path
    for url in ("s3://x", "HTTPS://host/x", "hf://datasets/x", "file:///x"):
        with pytest.raises(ConfigError, match="is a URL"):
            local_folder(url)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    with pytest.raises(ConfigError, match="current folder has been removed"):
        local_folder("runs")
    assert local_folder("/r") == Path("/r")


def test_a_runs_folder_with_a_colon_holds_runs(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "exp:v2", curves=False)
    shown = run_accl("show", "last", "--runs", "exp:v2", "--format", "json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert run.id in shown.stdout
