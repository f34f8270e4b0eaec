"""`accl ablate`, `accl sweep` and `accl train --seeds`: one command is one experiment, whenever it is called."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from accl.cli import waiting
from accl.cli.grids import ablate, sweep
from accl.cli.train import train
from accl.config import flat
from accl.data.prepared import prepare
from accl.errors import AcclError, ConfigError, DataError, TrainingError
from accl.launch import preflight, process, queue
from accl.store.experiment import read_experiment
from accl.store.query import parse
from accl.store.run_subject import RunSubject
from accl.store.rundir import RunDir, list_runs, run_folders, typed_query
from accl.store.state import State, read_state, write_state
from accl.store.summary import SummaryReader, read_summaries

SHORT = ["--set=train.max_steps=12", "-p", "demo"]
ROBERTA = ["--set=model.name=random:roberta-base", *SHORT]
SWEEP = ["full", "--grid=loss.contrastive_weight=0.03,0.3", "--grid=optim.lr=1e-3,2e-3", "--seeds=2", *SHORT]


PREPARE = cache(prepare)  # reading the questions is most of what these commands do


class Trained:
    """Runs that were waited for, and how they end: as finished, with a validation that their weight decides."""

    def __init__(self) -> None:
        self.runs: list[RunDir] = []
        self.state = State.FINISHED
        self.test = False

    def wait_for(self, _root: Path, runs: Sequence[RunDir]) -> int:
        self.runs = list(runs)
        for run in runs:
            config = run.load_config()
            accuracy = 0.4 - config.loss.contrastive_weight + config.train.seed / 100
            latest = {"validation/accuracy": 0.1, "validation/accuracy/best": accuracy, "steps_per_second": 10.0}
            latest |= {"test/accuracy": accuracy - 0.05} if self.test else {}
            host = socket.gethostname()
            end = read_state(run).changed(
                state=self.state, step=12, total_steps=12, started=1.0, elapsed=6.2, latest=latest, host=host
            )
            write_state(run, end)
        return 0 if self.state is State.FINISHED else TrainingError.exit_code


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    found = Trained()
    monkeypatch.setattr(waiting, "wait_for", found.wait_for)
    monkeypatch.setattr(queue, "ensure_worker", lambda _root: None)
    monkeypatch.setattr(process, "running_commit", dict)
    monkeypatch.setattr(preflight, "prepare", PREPARE)
    monkeypatch.setattr(process, "start", lambda run: pytest.fail(f"{run.id} was started past the queue"))
    return found


class Printed:
    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr


def call(command: Callable[..., object], root: Path, *words: str) -> Printed:
    """Call a command in this process; raises what it raises."""
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [*words, "--runs", str(root)], env={"COLUMNS": "80"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Printed(done.exit_code, done.stdout, done.stderr)


def values(runs: Sequence[RunDir], *keys: str) -> set[tuple[object, ...]]:
    return {tuple(flat(run.load_config())[key] for key in keys) for run in runs}


def test_an_ablation_is_three_recipes_with_every_seed(tmp_path: Path, trained: Trained) -> None:
    trained.test = True
    done = call(ablate, tmp_path, *SHORT, "--seeds", "2", "--jobs", "2")
    runs = list_runs(tmp_path)
    arms = ("baseline", "contrastive", "full")
    assert values(runs, "recipe", "train.seed", "eval.test") == {(arm, s, True) for arm in arms for s in (1, 2)}
    (name,) = {read_experiment(run) for run in runs}
    assert name.startswith("ablate-demo-")
    assert set(trained.runs) == set(runs)
    assert done.code == 0
    assert "6 to train" in done.stderr
    assert f"accl compare {name}" in done.stderr
    # 0.4 - weight + mean of seeds / 100
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(arms)]
    assert rows == [
        ["baseline", "2", "41.50", "0.71", "36.50"],
        ["contrastive", "2", "11.50", "0.71", "6.50"],
        ["full", "2", "11.50", "0.71", "6.50"],
    ]


def test_five_seeds_are_the_default_of_an_ablation_and_three_of_a_sweep(tmp_path: Path) -> None:
    assert "15 to train" in call(ablate, tmp_path, *SHORT, "--dry-run").stdout
    assert "6 to train" in call(sweep, tmp_path, "full", "-g", "optim.lr=1e-3,2e-3", *SHORT, "--dry-run").stdout


def test_a_sweep_is_every_combination_and_is_chosen_on_validation(tmp_path: Path) -> None:
    done = call(sweep, tmp_path, *SWEEP)
    runs = list_runs(tmp_path)
    keys = ("loss.contrastive_weight", "optim.lr", "train.seed")
    assert values(runs, *keys) == {(w, lr, s) for w in (0.03, 0.3) for lr in (1e-3, 2e-3) for s in (1, 2)}
    assert values(runs, "eval.test") == {(False,)}
    assert "note: the test split stays unread (eval.test=false) until you type: accl test RUN" in done.stderr
    first = next(line for line in done.stdout.splitlines() if line.startswith("full "))
    assert first.split() == ["full", "contrastive_weight=0.03", "lr=0.001", "2", "38.50", "0.71"]
    assert "best on validation: full contrastive_weight=0.03 lr=0.001" in done.stderr
    best = [run for run in runs if values([run], *keys[:2]) == {(0.03, 1e-3)}]
    tests = next(line for line in done.stderr.splitlines() if line.startswith("to test it: accl test "))
    assert {run.id for run in best} == set(tests.removeprefix("to test it: accl test ").split()) - {
        "--runs",
        str(tmp_path),
    }


@pytest.mark.parametrize("words", [["--set", "eval.test=true"], ["--grid", "eval.test=true"]])
def test_a_sweep_is_tested_where_the_user_says_so(tmp_path: Path, words: list[str]) -> None:
    done = call(sweep, tmp_path, *SWEEP, *words)
    assert values(list_runs(tmp_path), "eval.test") == {(True,)}
    assert "stays unread" not in done.stderr


def test_the_same_command_again_makes_no_new_run(tmp_path: Path, trained: Trained) -> None:
    call(sweep, tmp_path, *SWEEP)
    runs, trained.runs = set(run_folders(tmp_path)), []
    swapped = [word for word in SWEEP if not word.startswith("--grid")]
    swapped += ["--grid=optim.lr=0.002,1e-3", "--grid=loss.contrastive_weight=0.3,0.03"]
    again = call(sweep, tmp_path, *swapped)
    assert set(run_folders(tmp_path)) == runs
    assert trained.runs == []
    assert "8 finished already" in again.stderr
    assert "best on validation" in again.stderr
    wider = call(sweep, tmp_path, *SWEEP, "--seeds=1,2,7")
    assert "4 to train and 8 finished already" in wider.stderr
    assert values(trained.runs, "train.seed") == {(7,)}
    assert len({read_experiment(run) for run in run_folders(tmp_path)}) == 1


def test_what_failed_is_resumed_by_the_same_command(tmp_path: Path, trained: Trained) -> None:
    trained.state = State.FAILED
    failed = call(ablate, tmp_path, *SHORT, "--seeds=1,2")
    assert failed.code == TrainingError.exit_code
    assert "6 of 6 runs have not finished" in failed.stderr
    runs, trained.state = set(run_folders(tmp_path)), State.FINISHED
    done = call(ablate, tmp_path, *SHORT, "--seeds=1,2")
    assert "6 to resume" in done.stderr
    assert done.code == 0
    assert set(run_folders(tmp_path)) == runs == set(trained.runs)


def test_ctrl_c_concludes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "wait_for", lambda _root, _runs: waiting.INTERRUPT)
    done = call(ablate, tmp_path, *SHORT, "--seeds=1")
    assert done.code == waiting.INTERRUPT
    assert done.stdout == ""


def test_a_dry_run_makes_nothing_and_tells_the_time_once_something_was_seen(tmp_path: Path, trained: Trained) -> None:
    root = tmp_path / "runs"
    first = call(ablate, root, *SHORT, "--seeds=1", "--dry-run")
    assert not root.exists()
    assert "how long that takes is unknown" in first.stdout
    assert "unknown" in first.stdout.splitlines()[3]
    call(ablate, root, *SHORT, "--seeds=1")
    trained.runs = []
    again = call(ablate, root, *SHORT, "--seeds=1,2,3", "--dry-run", "--jobs=2")
    assert trained.runs == []
    assert len(run_folders(root)) == 3
    # 12 steps at 10 a second and 5 s beside them, three times.
    assert [line.split() for line in again.stdout.splitlines()[3:6]] == [
        [arm, "2,", "3", "1", "12", "6.2", "s"] for arm in ("baseline", "contrastive", "full")
    ]
    assert "6 to train and 3 finished already" in again.stdout
    assert "about 19 s with 2 at a time; longer where they slow each other down" in again.stdout


def test_a_detached_experiment_prints_its_name_alone(tmp_path: Path, trained: Trained) -> None:
    done = call(ablate, tmp_path, *SHORT, "--seeds=2", "-d", "--name", 'my "first" try', "-j", "3")
    assert done.stdout == 'my "first" try\n'
    assert trained.runs == []
    entries = queue.waiting(tmp_path)
    assert [entry.waiting.jobs for entry in entries if entry.waiting] == [3] * 6
    assert [read_experiment(entry.run) for entry in entries] == ['my "first" try'] * 6
    # The first seed of all arms comes first.
    assert [entry.run.load_config().train.seed for entry in entries] == [1, 1, 1, 2, 2, 2]
    assert 'accl wait \'experiment="my ""first"" try"\'' in done.stderr


@pytest.mark.parametrize("name", ["sweep-full-demo-12ab56", 'a "b" c', "it's", "x(y)"])
def test_the_query_for_an_experiment_finds_its_runs(tmp_path: Path, name: str) -> None:
    import shlex

    call(ablate, tmp_path, *SHORT, "--seeds=1", "--name", name)
    call(ablate, tmp_path, *SHORT, "--seeds=1", "--name", f"{name}2")
    (query,) = shlex.split(typed_query(name))
    wanted = parse(query)
    summaries = read_summaries([SummaryReader(run) for run in run_folders(tmp_path)], 0.0)
    assert [s.experiment for s in summaries if wanted.matches(RunSubject(s, 0.0))] == [name] * 3


def test_a_named_experiment_grows_and_says_what_else_belongs_to_it(tmp_path: Path, trained: Trained) -> None:
    call(sweep, tmp_path, "full", "--grid=optim.lr=1e-3", "--seeds=1,", *SHORT, "--name=rates")
    done = call(sweep, tmp_path, "full", "--grid=optim.lr=2e-3", "--seeds=1,", *SHORT, "--name=rates")
    assert "note: rates has 1 more run, with other configurations than these." in done.stderr
    assert values(trained.runs, "optim.lr") == {(2e-3,)}


def test_several_seeds_of_a_recipe_are_an_experiment(tmp_path: Path, trained: Trained) -> None:
    call(train, tmp_path, "full", *SHORT, "--seeds", "4,5")
    runs = list_runs(tmp_path)
    assert values(runs, "recipe", "train.seed", "eval.test") == {("full", 4, True), ("full", 5, True)}
    assert {read_experiment(run)[:16] for run in runs} == {"train-full-demo-"}
    call(train, tmp_path, "full", *SHORT, "--seeds", "6")  # one number is this seed
    assert values(trained.runs, "train.seed") == {(6,)}
    assert len({read_experiment(run) for run in run_folders(tmp_path)}) == 1


def test_seeds_of_a_run_that_another_is_like_are_based_on_it(tmp_path: Path, trained: Trained) -> None:
    call(train, tmp_path, "full", *SHORT, "--seed=3", "--name=first")
    (old,) = trained.runs
    call(train, tmp_path, "--like", old.id, "--set", "optim.lr=5e-5", "--seeds=1,2")
    assert values(trained.runs, "train.seed", "optim.lr", "train.max_steps") == {(1, 5e-5, 12), (2, 5e-5, 12)}
    assert {run.read_json(run.provenance)["based_on"] for run in trained.runs} == {old.id}


def test_a_single_run_shows_its_plan_without_being_made(tmp_path: Path) -> None:
    done = call(train, tmp_path, "full", *SHORT, "--seed=3", "--dry-run")
    assert done.stdout.splitlines()[0] == "one run, of no experiment"
    assert "1 to train" in done.stdout
    assert run_folders(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "words", "kind", "says"),
    [
        (sweep, ["full", "--grid=optim.lr=1e-3,-1", *SHORT], ConfigError, "optim.lr='-1'"),
        (sweep, ["ful", "--grid=optim.lr=1e-3", *SHORT], ConfigError, "'full'"),
        (sweep, ["full", "--grid=data.path=nowhere,elsewhere", *SHORT], DataError, "nowhere"),
        (sweep, ["full", "--grid=data.max_length=64,600", *ROBERTA], ConfigError, "is more than the 512"),
        (sweep, ["full", "--grid=optim.lr=1e-3", "--seeds=x", *SHORT], ConfigError, "--seeds 'x'"),
        (ablate, ["--set=optim.lrr=1", *SHORT], ConfigError, "optim.lr"),
        (ablate, ["--name=  ", *SHORT], ConfigError, "cannot name an experiment"),
        (train, ["full", "--seed=1", "--seeds=1,2", *SHORT], ConfigError, "both given"),
    ],
)
def test_nothing_is_made_where_a_combination_cannot_run(
    tmp_path: Path, command: Callable[..., object], words: list[str], kind: type[AcclError], says: str
) -> None:
    root = tmp_path / "runs"
    with pytest.raises(kind) as caught:
        call(command, root, *words)
    assert says in str(caught.value)
    assert not root.exists()


def test_the_command_is_recorded_with_every_run(tmp_path: Path) -> None:
    call(ablate, tmp_path, *SHORT, "--seeds=1")
    (run, *_) = run_folders(tmp_path)
    assert json.loads(run.provenance.read_text())["command"]
