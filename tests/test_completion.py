"""Shells complete runs, keys, values, recipes and profiles, at once and whatever lies in the folder of the runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from command_line import Printed, run_command

from accl.bench.runs import new_run
from accl.config.choosable import choosable
from accl.config.values import FIELDS, registry_of
from accl.store.experiment import write_experiment
from accl.store.labels import edit_labels
from accl.store.trash import remove_runs

STATES = ["queued", "starting", "running", "stalled", "finished", "failed", "stopped", "crashed"]


@pytest.fixture(scope="module", name="root")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with two runs, one of them named, of an experiment and tagged, and one in the trash."""
    root = tmp_path_factory.mktemp("completion") / "elsewhere"
    full, _, removed = (new_run(root, recipe, seed) for recipe, seed in (("full", 1), ("baseline", 2), ("full", 3)))
    edit_labels(full, name="warm", add=["paper"])
    write_experiment(full, "lr-grid")
    remove_runs([removed])
    return root


def ask(*words: str, cwd: Path | None = None, **env: str) -> Printed:
    """Ask as bash does for the completions of the last word."""
    line = "\n".join(["accl", *words])
    return run_command(cwd=cwd, _ACCL_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words)), **env)


def completions(*words: str, cwd: Path | None = None, **env: str) -> list[str]:
    done = ask(*words, cwd=cwd, **env)
    assert (done.code, done.stderr) == (0, b"")
    return done.stdout.decode().splitlines()


def short(root: Path, recipe: str) -> str:
    """The id of the run of a recipe, without its time."""
    (path,) = root.glob(f"*-{recipe}-*")
    return path.name.split("-", 2)[2]


@pytest.mark.parametrize("command", ["show", "logs", "restart", "ask", "note", "rename", "queue add"])
def test_runs_are_completed_by_id_and_name(root: Path, command: str) -> None:
    words = [*command.split(), "--runs", str(root)]
    assert set(completions(*words, "")) == {"last", "warm", short(root, "full"), short(root, "baseline")}
    assert completions(*words, "ba") == [short(root, "baseline")]
    assert completions(*words, "wa") == ["warm"]
    whole = {path.name for path in root.iterdir() if "-s" in path.name}
    assert set(completions(*words, "20")) == whole


def test_the_folder_of_the_runs_is_the_one_that_the_line_or_the_environment_names(root: Path, tmp_path: Path) -> None:
    assert "warm" in completions("show", "", ACCL_RUNS=str(root))
    assert "warm" in completions("show", "--runs", "=", str(root), "w")
    assert "warm" in completions("queue", "--runs", str(root), "add", "w")
    assert completions("show", "", cwd=tmp_path) == []
    new_run(tmp_path / "runs", "full", 9)
    assert [word for word in completions("show", "", cwd=tmp_path) if "s9" in word]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "b"], ["baseline"]),
        (["sweep", "contr"], ["contrastive"]),
        (["train", "full", "--profile", ""], ["demo", "minilm", "paper"]),
        (["train", "full", "--profile", "=", "mi"], ["minilm"]),
        (["train", "--like", "wa"], ["warm"]),
        (["doctor", "-p", "d"], ["demo"]),
        (["train", "full", "--set", "optim.w"], ["optim.warmup_ratio=", "optim.weight_decay="]),
        (["train", "full", "--set", "optim.lr"], ["optim.lr=", "optim.lr=2e-05"]),
        (["train", "full", "--set", "train.device", "="], ["auto", "cpu", "cuda"]),
        (["train", "full", "--set", "train.device", "=", "cu"], ["cuda"]),
        (["config", "show", "--set", "data.permute_options", "=", "t"], ["true"]),
        (["sweep", "full", "-g", "data.protocol", "=", "pooled,"], ["pooled,official"]),
        (["sweep", "full", "--grid", "memory_bank.s"], ["memory_bank.size=", "memory_bank.start_step="]),
        (["runs", "st"], ["state:", "step:"]),
        (["runs", "state", ":"], STATES),
        (["runs", "state", ":", "fi"], ["finished"]),
        (["wait", "experiment", ":", "l"], ["lr-grid"]),
        (["runs", "exp"], ["experiment:", "experiment:lr-grid"]),
        (["claims", "cfg.optim.l"], ["cfg.optim.lr"]),
        (["rm", "tag", ":"], ["paper"]),
        (["tag", "last", "--remove", ""], ["paper"]),
        (["compare", "lr"], ["lr-grid"]),
        (["figure", "forest", "lr"], ["lr-grid"]),
        (["report", "--reference", "full"], ["full", "full-s1-"]),
        (["sql", ".tables", "wa"], ["warm"]),
        (["export", "wa"], ["warm"]),
        (["compare", "warm", "--reference", "baseline"], ["baseline", "baseline-s2-"]),
        (["restore", "fu"], ["full-s3-"]),
        (["config", "explain", "metr"], ["metrics"]),
        (["config", "explain", "eval.ev"], ["eval.every"]),
        (["show", "last", "--format", "m"], ["md"]),
        (["show", "last", "--quest"], ["--questions"]),
        (["sho"], ["show"]),
        (["queue", "mo"], ["move"]),
        (["--version", "sho"], ["show"]),
    ],
    ids=" ".join,
)
def test_what_can_be_typed_next_is_offered(root: Path, words: list[str], expected: list[str]) -> None:
    found = completions(*words, ACCL_RUNS=str(root))
    begun = [word[: len(begin)] if begin.endswith("-") else word for word, begin in zip(found, expected, strict=False)]
    assert (begun, len(found)) == (expected, len(expected))


def test_values_that_can_be_chosen_are_those_of_the_schema() -> None:
    expected = {}
    for key, field in FIELDS.items():
        if (registry := registry_of(field)) is not None:
            expected[key] = tuple(registry.names())
        elif get_origin(field.annotation) is Literal:
            expected[key] = get_args(field.annotation)
        elif field.annotation is bool:
            expected[key] = ("true", "false")
    assert choosable() == expected


def test_a_folder_that_cannot_be_understood_has_no_runs_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("file", "nowhere", "https://somewhere"):
        for words, offered in ((["show", ""], []), (["compare", "b"], ["baseline"]), (["runs", "tag", ":"], [])):
            assert completions(words[0], "--runs", folder, *words[1:], cwd=tmp_path) == offered
        assert ask("restore", "--runs", folder, "", cwd=tmp_path).text == ""


def test_a_line_that_cannot_be_understood_completes_nothing_and_says_nothing() -> None:
    assert ask("retrain", "").text == ""
    assert completions("train", "--foo", "") == completions("train", "")
    broken = {"_ACCL_COMPLETE": "complete_bash", "COMP_WORDS": "accl", "COMP_CWORD": "many"}
    assert run_command(**broken).text == ""
    assert run_command(**{**broken, "_ACCL_COMPLETE": "complete_csh"}).text == ""


def test_text_of_runs_that_a_shell_would_act_upon_is_not_offered(tmp_path: Path) -> None:
    for number, name in enumerate(("$(touch x)", "`x`", "two words", "a';x;'b", "\x1b[31m", "--yes", "a\nb")):
        run = new_run(tmp_path, "full", number)
        run.write_json(run.labels, {"name": name, "tags": [name]})
        write_experiment(run, name)
        os.rename(run.path, tmp_path / f"20260101-000000-{number}{name.replace('/', '')}-s1-abcd")
    damaged = new_run(tmp_path, "full", 9)
    damaged.labels.write_bytes(b"\xff\0")
    damaged.config.unlink()
    for words in (["show", ""], ["compare", ""], ["tag", "last", "--remove", ""], ["runs", "experiment", ":"]):
        for word in completions(*words, ACCL_RUNS=str(tmp_path)):
            assert word.replace("-", "").replace("_", "").isalnum()


def test_no_command_imports_anything_heavy_before_it_runs(root: Path) -> None:
    """A shell that completes a word waits for what the command imports, and so does who asks for its help."""
    asked = {"_ACCL_COMPLETE": "complete_bash", "COMP_WORDS": "accl\nwait\nexperiment\n:", "COMP_CWORD": "3"}
    code = (
        "import sys; from accl.cli.main import COMMANDS, app, load_command; from accl.cli.shell import answer_shell\n"
        "answer_shell(app); [load_command(name) for name in COMMANDS]; print(*sys.modules)"
    )
    environment = {**os.environ, **asked, "ACCL_RUNS": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    *offered, modules = done.stdout.splitlines()
    assert offered == ["lr-grid"]
    heavy = {"torch", "transformers", "duckdb", "numpy", "pandas", "pydantic", "textual", "psutil", "matplotlib"}
    assert not {*modules.split()} & heavy


def test_bash_completes_by_the_script_of_the_command(root: Path, tmp_path: Path) -> None:
    program = tmp_path / "accl"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m accl.cli.main \"$@\"\n")
    program.chmod(0o755)
    script = """
    eval "$(_ACCL_COMPLETE=source_bash accl)"
    ask() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _accl_completion accl; echo "${COMPREPLY[*]}"; }
    ask accl show --runs "$FOLDER" wa
    ask accl train full --set train.device = c
    """
    home = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FOLDER": str(root), "PYTHONPATH": home}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("warm\ncpu cuda\n", "")


def test_other_shells_ask_in_their_own_way(root: Path) -> None:
    env = {"_TYPER_COMPLETE_ARGS": "accl show wa", "ACCL_RUNS": str(root)}
    assert '"warm"' in run_command(_ACCL_COMPLETE="complete_zsh", **env).text
    fish = {"_ACCL_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert run_command(**fish, **env).text == "warm\n"
    words = run_command(**fish, **{**env, "_TYPER_COMPLETE_ARGS": "accl sho"}).text
    assert words.startswith("show\tShow one run: ")  # the word, and what it does
    fish["_TYPER_COMPLETE_FISH_ACTION"] = "is-args"
    assert run_command(**fish, **env).code == 0
    assert run_command(**fish, **{**env, "_TYPER_COMPLETE_ARGS": "accl show zz"}).code == 1
