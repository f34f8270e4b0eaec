"""The mistakes of a newcomer: one clear line, a next step, an exit code of its own, nothing half-written."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from command_line import modules_after
from conftest import Accl, run_accl
from factory import finished_run
from typer.testing import CliRunner

from accl.cli.main import COMMANDS, app
from accl.errors import (
    AcclError,
    CompareError,
    ConfigError,
    DataError,
    DeviceError,
    HubError,
    RunError,
    TerminalError,
    TrainingError,
)


def fails(tmp_path: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit code and stderr of a command that must leave nothing behind in the runs folder."""
    root = tmp_path / "runs"
    done = run_accl(*arguments, cwd=tmp_path, ACCL_RUNS=str(root), **env)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout == ""
    assert not root.exists() or not any(root.iterdir())
    lines = done.stderr.strip().splitlines()
    assert lines[-2].startswith("error: ")
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train", "ful", "--profile", "demo"), ConfigError.exit_code, ["'full'"]),
        (("train", "full", "--profile", "dem"), ConfigError.exit_code, ["'demo'"]),
        (("train", "full", "--profile", "demo", "--set", "optim.lrr=1"), ConfigError.exit_code, ["'optim.lr'"]),
        (("train", "full", "--profile", "demo", "--set", "train.epochs=ten"), ConfigError.exit_code, ["number"]),
        (("train", "full"), DeviceError.exit_code, ["no NVIDIA GPU", "--profile demo"]),
        (
            ("train", "full", "--set", "train.device=cpu"),
            HubError.exit_code,
            ["microsoft/deberta-v3-base", "model.name=DIR"],
        ),
        (
            ("train", "full", "--profile", "demo", "--set", "data.path=nowhere"),
            DataError.exit_code,
            ["nowhere"],
        ),
        (
            ("train", "full", "--profile", "demo", "--set", "model.name=./nowhere"),
            ConfigError.exit_code,
            ["./nowhere"],
        ),
        (("compare", "baseline", "full"), CompareError.exit_code, ["accl train baseline"]),
        (("show", "last"), RunError.exit_code, ["accl runs"]),
        (("stop", "7f3a"), RunError.exit_code, ["7f3a"]),
        (("resume", "7f3a"), RunError.exit_code, ["7f3a"]),
        (("tui",), TerminalError.exit_code, ["accl runs"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_end_in_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: list[str]
) -> None:
    returned, said = fails(tmp_path, *arguments, CUDA_VISIBLE_DEVICES="")
    assert returned == code, said
    for word in words:
        assert word in said


def test_a_malformed_question_is_named_by_file_and_row(tmp_path: Path) -> None:
    folder = tmp_path / "mmlu" / "test"
    folder.mkdir(parents=True)
    (folder / "anatomy_test.csv").write_text("one,a,b,c,d,A\ntwo,a,b,c,d,E\n")
    code, said = fails(tmp_path, "train", "full", "--profile", "demo", "--set", "data.path=mmlu")
    assert code == DataError.exit_code
    assert "anatomy_test.csv" in said
    assert "2" in said


def test_a_runs_folder_that_is_a_file_is_one_clear_line(tmp_path: Path, accl: Accl) -> None:
    (tmp_path / "runs").write_text("")
    done = accl("train", "full", "--profile", "demo", "--runs", str(tmp_path / "runs"))
    assert done.returncode == RunError.exit_code
    assert "cannot be written" in done.stderr
    assert "--runs" in done.stderr
    assert "Traceback" not in done.stderr


def test_exit_codes_tell_errors_apart() -> None:
    family = [AcclError, ConfigError, DataError, HubError, DeviceError, RunError, CompareError, TrainingError]
    codes = [kind.exit_code for kind in (*family, TerminalError)]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert 2 not in codes  # typer's own, for a command line that cannot be read


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_command_says_of_itself(name: str) -> None:
    module, attribute, words = COMMANDS[name]
    found = getattr(import_module(module), attribute)
    own = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found)
    assert own.splitlines()[0] == words


def test_no_summary_is_cut_at_80_columns() -> None:
    done = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    listed = " ".join(done.stdout.split())
    assert [words for _, _, words in COMMANDS.values() if words not in listed] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert COMMANDS[name][2].split(".")[0] in " ".join(done.stdout.split())


def test_help_imports_nothing_heavy() -> None:
    modules, _ = modules_after("--help")
    assert not modules & {"torch", "transformers", "duckdb", "numpy", "textual", "pydantic"}


def test_a_command_that_has_read_a_database_ends_in_silence(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    # As the script that pip installs does it.
    script = tmp_path / "accl"
    script.write_text("import sys\nfrom accl.cli.main import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    command = [sys.executable, str(script), "show", run.id, "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert run.id in done.stdout


def test_a_list_of_runs_imports_no_database_and_no_schema(tmp_path: Path) -> None:
    finished_run(tmp_path, curves=False)
    modules, printed = modules_after("runs", "--runs", str(tmp_path))
    assert "finished" in printed
    assert not modules & {"torch", "duckdb", "numpy", "textual", "psutil", "accl.config.schema", "rich.table"}


def test_a_run_whose_configuration_is_damaged_is_listed_with_the_reason(tmp_path: Path, accl: Accl) -> None:
    whole = finished_run(tmp_path, "full", curves=False)
    damaged = finished_run(tmp_path, "baseline", curves=False)
    damaged.config.write_text("recipe: [\n", encoding="utf-8")
    done = accl("runs", "--runs", str(tmp_path))
    assert done.returncode == 0
    assert whole.id in done.stdout
    assert f"{damaged.id}: " in done.stdout
    assert "config.yaml, line 1: a list is not accepted" in done.stdout


def test_a_run_that_did_not_measure_its_steps_is_shown_without(tmp_path: Path, accl: Accl) -> None:
    finished_run(tmp_path, training_seconds=12.5)
    done = accl("show", "last", "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.search(r"training +12 s\n", done.stdout)


def test_no_runs_yet_says_how_to_start_one(tmp_path: Path, accl: Accl) -> None:
    done = accl("runs", cwd=tmp_path)
    assert done.returncode == 0
    assert "accl train full --profile demo" in done.stdout


def test_config_show_prints_values_with_their_origin_as_yaml(accl: Accl) -> None:
    import yaml

    done = accl("config", "show", "baseline", "--profile", "demo", "--set", "optim.lr=1e-4")
    assert yaml.safe_load(done.stdout)["optim"]["lr"] == 1e-4
    assert "# --set" in done.stdout
    assert "# recipe baseline" in done.stdout
