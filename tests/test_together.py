"""Several runs in one training process: each is what a run of its own would be, and ends by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import typer
from conftest import SHORT, run_accl
from safetensors.torch import load_file
from test_life import kill, until
from typer.testing import CliRunner

from accl.cli import control
from accl.cli import queue as queue_commands
from accl.cli.show import show
from accl.config import resolve
from accl.errors import BusyError, ConfigError, RunError
from accl.launch import process
from accl.store import stop
from accl.store.lock import TRAINING, RunLock, holder
from accl.store.manifest import MODEL, OPTIMIZER
from accl.store.provenance import Launch
from accl.store.reader import query
from accl.store.rundir import RunDir
from accl.store.state import START_MARK, State, observe, read_state, write_state
from accl.store.waiting import Waiting, write_waiting
from accl.training import __main__ as training
from accl.training import setup
from accl.training.interrupt import Interrupt, StoppedAtOnce
from accl.training.together import SWITCH_S, SharedProcess, train_together

SETS = [option.removeprefix("--set=") for option in SHORT]
FOR_EVER = "train.max_steps=100000"


def prepare(root: Path, recipe: str, *sets: str) -> RunDir:
    return process.prepare(root, resolve(recipe, "demo", [*SETS, "train.device=cpu", *sets]).config, ["accl", "train"])


def start_together(*runs: RunDir) -> subprocess.Popen[bytes]:
    """Start runs in one process, as the worker of the queue does."""
    for position, run in enumerate(runs):
        write_waiting(run, Waiting(0.0, float(position)))
    trainer, refused = process.start_together(runs, process.Turn(("accl", "train"), str(runs[0].path.parent), {}))
    assert trainer is not None
    assert refused == {}
    return trainer


def steps(run: RunDir) -> list[tuple[object, ...]]:
    """Every measurement of a step that is no time."""
    asked = "SELECT step, name, value FROM run.metrics WHERE name NOT LIKE '%per_second%' ORDER BY step, name"
    [rows] = query(run.database, (asked, ()))
    return rows


def events(run: RunDir, kind: str) -> list[str]:
    [rows] = query(run.database, ("SELECT message FROM run.events WHERE kind = ?", (kind,)))
    return [message for (message,) in rows]


def assert_same_weights(run: RunDir, other: RunDir) -> None:
    """Hold the last checkpoints of two runs against each other, to the last bit."""
    name = read_state(run).checkpoint_last
    assert name == read_state(other).checkpoint_last != ""
    for file in (MODEL, OPTIMIZER):
        mine, theirs = (load_file(each.checkpoints / name / file) for each in (run, other))
        assert mine.keys() == theirs.keys()
        assert [key for key in mine if mine[key].numpy().tobytes() != theirs[key].numpy().tobytes()] == []


def test_runs_of_one_process_are_what_they_would_be_alone_and_end_by_themselves(tmp_path: Path) -> None:
    alone = prepare(tmp_path, "full", "train.seed=1")
    one = prepare(tmp_path, "full", "train.seed=1")
    other = prepare(tmp_path, "baseline", "train.seed=2", "train.backend=reference")
    stopped, failing = prepare(tmp_path, "full", FOR_EVER), prepare(tmp_path, "full", "model.name=/nowhere")
    trainer = start_together(one, stopped, other, failing)
    try:
        until(lambda: read_state(stopped).step > 0)
        assert {held.pid for held in map(holder, (stopped, other)) if held} == {trainer.pid}
        process.stop(stopped)
        assert trainer.wait() == ConfigError.exit_code  # of the one that failed
    finally:
        trainer.kill()
    done = run_accl("resume", alone.id, "--runs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [observe(run).state for run in (one, other)] == [State.FINISHED] * 2, one.console.read_text()
    assert "stopped as asked after step" in observe(stopped).reason
    assert observe(failing).state is State.FAILED
    assert "/nowhere" in observe(failing).reason
    assert_same_weights(one, alone)
    assert steps(one) == steps(alone)
    assert read_state(one).latest["test/accuracy"] == read_state(alone).latest["test/accuracy"]
    assert steps(other) != steps(one)
    [shared] = events(one, "shared")
    assert f"shares process {trainer.pid} with {stopped.id}, {other.id}, {failing.id}" in shared
    assert "take turns" in events(other, "shared")[1]
    assert events(alone, "shared") == []
    for run in (one, other, stopped, failing):
        text = run.console.read_text(encoding="utf-8")
        assert text.count(START_MARK) == 1
        assert text.count("info: ready for the first step") == (run != failing)
        assert ("/nowhere" in text) == (run == failing)


# --- without training: who is started, and who is asked to stop


@pytest.fixture(name="idle_pair")
def _idle_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunDir, RunDir]]:
    """Two runs of one process that does nothing, and dies of the first signal."""
    idle = tmp_path / "idle"
    code = "import signal; signal.pthread_sigmask(signal.SIG_SETMASK, ()); signal.pause()"
    idle.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" accl.training "$@"\n', encoding="utf-8")
    idle.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(idle))
    one, other = prepare(tmp_path / "runs", "full"), prepare(tmp_path / "runs", "baseline")
    start_together(one, other)
    yield one, other
    kill(one)


def test_a_run_that_shares_its_process_is_stopped_and_killed_by_its_mark_alone(
    idle_pair: tuple[RunDir, RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = idle_pair
    held = holder(one)
    assert held is not None
    assert process.shares_process(held.pid)
    process.stop(one)
    assert (stop.marked(one), stop.killed(one), stop.marked(other)) == (True, False, False)
    process.stop(one, kill=True)
    assert (stop.killed(one), stop.marked(other)) == (True, False)
    monkeypatch.setattr(control, "KILL_GRACE_S", 0.0)
    app = typer.Typer()
    app.command()(control.stop)
    told = CliRunner().invoke(app, [one.id, "--kill", "--runs", str(one.path.parent)]).exception
    assert isinstance(told, RunError)
    assert f"It trains other runs too; this ends all of them: kill -KILL {held.pid}" in told.hint
    assert [holder(run) for run in idle_pair] == [held, holder(other)]
    assert holder(other) is not None


def test_a_process_that_is_just_being_replaced_by_its_program_is_known_to_share(
    idle_pair: tuple[RunDir, RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, words = holder(idle_pair[0]), psutil.Process.cmdline
    assert held is not None
    until(lambda: words(psutil.Process(held.pid)))
    looks: list[int] = []

    def look(self: psutil.Process) -> list[str]:
        looks.append(self.pid)
        return words(self) if len(looks) % 3 == 0 else []

    with monkeypatch.context() as patched:
        patched.setattr(psutil.Process, "cmdline", look)
        patched.setattr(os, "kill", lambda *_: pytest.fail("the signal would reach the other too"))
        process.stop(idle_pair[0])
    assert len(looks) == 6  # once for whether it trains the run, once for whether it trains others
    assert stop.marked(idle_pair[0])


def test_the_queue_and_a_run_say_that_a_process_is_shared(
    idle_pair: tuple[RunDir, RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_commands.queue, "ensure_worker", lambda _root: None)
    root = str(idle_pair[0].path.parent)
    (pid,) = {held.pid for held in map(holder, idle_pair) if held}

    def listed(pids: Sequence[int]) -> str:
        for run, number in zip(idle_pair, pids, strict=True):
            write_state(run, read_state(run).changed(state=State.RUNNING, pid=number))
        return CliRunner().invoke(queue_commands.app, ["--runs", root]).stdout

    assert "process" not in listed([pid, pid + 1])
    head, _, *rows = listed([pid, pid]).splitlines()
    assert [line.split()[-1] for line in (head, *rows)] == ["process", f"{pid}", f"{pid}"]
    app = typer.Typer()
    app.command()(show)
    shown = CliRunner().invoke(app, [idle_pair[0].id, "--runs", root]).stdout
    assert f"{pid}, shared with other runs" in shown
    write_state(idle_pair[0], read_state(idle_pair[0]).changed(state=State.FINISHED))
    assert "shared" not in CliRunner().invoke(app, [idle_pair[0].id, "--runs", root]).stdout


def test_of_runs_to_be_started_together_those_that_wait_no_more_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    runs = [prepare(tmp_path, "full") for _ in range(3)]
    for run, paused in zip(runs, ("", "by hand", ""), strict=True):
        write_waiting(run, Waiting(0.0, 1.0, paused=paused))
    runs[2].config.write_text("train: 3", encoding="utf-8")
    trainer, refused = process.start_together(runs, process.Turn((), str(tmp_path), {}))
    assert trainer is not None
    assert list(refused) == runs[1:]
    assert isinstance(refused[runs[1]], BusyError)
    assert isinstance(refused[runs[2]], ConfigError)
    assert process.TOGETHER not in trainer.args  # type: ignore[operator]
    trainer.wait()
    assert process.start_together(runs[1:], process.Turn((), str(tmp_path), {}))[0] is None
    assert [holder(run) for run in runs] == [None] * 3


def test_runs_of_which_one_cannot_be_written_stay_as_they_were(tmp_path: Path) -> None:
    runs = [prepare(tmp_path, "full") for _ in range(2)]
    for run in runs:
        write_waiting(run, Waiting(0.0, 1.0))
    runs[1].console.mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        process.start_together(runs, process.Turn((), str(tmp_path), {}))
    assert [observe(run).state for run in runs] == [State.QUEUED] * 2
    assert [holder(run) for run in runs] == [None] * 2


class Threads:
    """Runs that train until they are asked to stop, in threads of this process."""

    def __init__(self, root: Path) -> None:
        self.runs = [prepare(root, "full") for _ in range(3)]
        self.ends: dict[RunDir, tuple[str, bool]] = {}

    def train(self, run: RunDir, interrupt: Interrupt) -> int:
        assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
        until(lambda: interrupt.asked)
        self.ends[run] = (interrupt.signal, interrupt.at_once)
        return len(self.ends)


def test_marks_ask_their_run_alone_and_a_signal_asks_all(tmp_path: Path) -> None:
    threads, signals = Threads(tmp_path), Interrupt()
    stop.mark(threads.runs[0])
    stop.mark(threads.runs[1], kill=True)

    def ask() -> None:
        until(lambda: len(threads.ends) == 2)
        signals.ask("SIGUSR1")

    threading.Thread(target=ask).start()
    assert train_together(SharedProcess(threads.runs), signals, threads.train) == 3
    assert [threads.ends[run] for run in threads.runs] == [("SIGTERM", False), ("SIGTERM", True), ("SIGUSR1", False)]
    assert sys.getswitchinterval() > SWITCH_S


def test_a_later_interrupt_ends_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(tmp_path)
    monkeypatch.setattr(stop, "marked", lambda _run: (_ for _ in ()).throw(KeyboardInterrupt))
    train_together(SharedProcess(threads.runs), Interrupt(), threads.train)
    assert set(threads.ends.values()) == {("SIGINT", True)}
    with pytest.raises(StoppedAtOnce):
        Interrupt(asked=True, at_once=True).check()


def test_runs_prepare_one_after_the_other(tmp_path: Path) -> None:
    shared, waited = SharedProcess([prepare(tmp_path, "full") for _ in range(2)]), threading.Event()
    inside: list[int] = []

    def prepare_one(number: int) -> None:
        with shared.preparing(waited.set):
            inside.append(number)
            assert number or waited.wait(60)
            inside.append(number)

    threads = [threading.Thread(target=prepare_one, args=(number,)) for number in range(2)]
    threads[0].start()
    until(lambda: inside)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert inside == [0, 0, 1, 1]


def test_an_error_of_the_gpu_says_that_another_run_may_have_caused_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(training, "_train", fail)
    run, other = prepare(tmp_path, "full"), prepare(tmp_path, "full")
    with RunLock.acquire(run, TRAINING) as lock:
        code = training._run(run, lock, Launch(), Interrupt(), SharedProcess([run, other]))
    assert code == training.EXIT_FAILED
    assert "illegal memory access" in observe(run).reason
    assert "ends all runs of a process, and another of them may have caused it" in observe(run).reason
    assert "Traceback" in run.console.read_text(encoding="utf-8")
    assert other.console.read_text(encoding="utf-8") == ""


# --- a process that is killed


@pytest.mark.slow
def test_runs_of_a_killed_process_go_on_as_if_nothing_had_happened_alone_or_together(tmp_path: Path) -> None:
    sets = ("train.max_steps=40", "train.checkpoint_every=2")
    runs = [prepare(tmp_path, "full", *sets, f"train.seed={seed}") for seed in (1, 2, 3)]
    alone = [prepare(tmp_path, "full", *sets, f"train.seed={seed}") for seed in (1, 2, 3)]
    trainer = start_together(*runs)
    until(lambda: all(4 < read_state(run).step < 36 for run in runs))
    os.killpg(trainer.pid, signal.SIGKILL)
    trainer.wait()
    assert [observe(run).state for run in runs] == [State.CRASHED] * 3
    for run in runs[1:]:
        write_state(run, read_state(run).changed(state=State.QUEUED))
    others = [process.start(runs[0]), start_together(*runs[1:]), *map(process.start, alone)]
    assert [other.wait() for other in others] == [0] * 5
    for run, reference in zip(runs, alone, strict=True):
        assert_same_weights(run, reference)
        assert steps(run) == steps(reference)


@pytest.mark.slow
def test_a_run_that_is_killed_beside_others_keeps_its_last_checkpoint_and_they_go_on(tmp_path: Path) -> None:
    killed, other = prepare(tmp_path, "full", FOR_EVER), prepare(tmp_path, "full", FOR_EVER)
    trainer = start_together(killed, other)
    try:
        until(lambda: all(read_state(run).step > 6 for run in (killed, other)))
        process.stop(killed, kill=True)
        assert "stopped at once, without a checkpoint" in process.wait_until_ended(killed, 60.0).reason
        assert holder(killed) is None
        reached = read_state(other).step
        until(lambda: read_state(other).step > reached)
        process.stop(other)
        assert trainer.wait() == 130
    finally:
        trainer.kill()
    assert "as asked" in observe(other).reason


def test_runs_of_one_process_read_and_tokenise_the_same_questions_once(monkeypatch: pytest.MonkeyPatch) -> None:
    phases: list[str] = []
    loaded: setup.LoadedData = {}

    def build(recipe: str, *sets: str) -> setup.TrainingContext:
        phases.clear()
        return setup.build_context(resolve(recipe, "demo", ["train.device=cpu", *sets]).config, phases.append, loaded)

    one = build("full", "train.seed=1")
    assert "tokenising" in phases
    monkeypatch.setattr(setup, "prepare", lambda *_arguments: pytest.fail("the questions are read again"))
    other = build("baseline", "train.seed=2")
    assert "tokenising" not in phases
    assert other.blob is one.blob
    assert other.provenance.data == one.provenance.data
    assert other.baselines == one.baselines
    monkeypatch.undo()
    assert build("full", "data.split_seed=7").blob is not one.blob


@pytest.mark.parametrize("fails", [False, True])
def test_the_first_run_of_a_process_prepares_before_others_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr("accl.training.together.FIRST_ALONE_S", 3600.0)
    first, other = RunDir(tmp_path / "first"), RunDir(tmp_path / "other")
    process, order, other_began = SharedProcess([first, other]), [], threading.Event()

    def train(run: RunDir, _interrupt: Interrupt) -> int:
        process.wait_for_first(run)
        order.append(run)
        if run == other:
            other_began.set()
        elif not fails:
            with process.preparing(lambda: None):
                assert not other_began.is_set()
            other_began.wait()  # while the first one trains
        return 0

    assert train_together(process, Interrupt(), train) == 0
    assert order == [first, other]
    assert process.waited[other] > process.waited[first] == 0
