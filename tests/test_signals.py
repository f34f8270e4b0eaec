"""Signals: every one that asks for a stop gets a checkpoint, and a scheduler is told from a person."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from conftest import run_accl, wait
from test_resume import COMMAND, assert_equal, uninterrupted  # noqa: F401 - a fixture

from accl.cli import foreground as foreground_module
from accl.cli.foreground import ONE_PRESS_S, Foreground
from accl.errors import INTERRUPTED
from accl.store import stop
from accl.store.lock import holder
from accl.store.rundir import RunDir, create_run, list_runs
from accl.store.state import State, observe, read_state
from accl.training import interrupt as interrupt_module
from accl.training.interrupt import REPEAT_S, Interrupt, StoppedEarly

LONG = [word if "max_steps" not in word else "--set=train.max_steps=100000" for word in COMMAND if word != "--detach"]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Iterator[Path]:
    """A runs folder whose trainers are killed at the end."""
    yield tmp_path
    for run in list_runs(tmp_path):
        if (held := holder(run)) is not None:
            with suppress(ProcessLookupError):
                os.killpg(held.pid, signal.SIGKILL)


def in_foreground(root: Path, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a command that trains in the foreground."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", "accl.cli.main", *words, "--runs", str(root)],
        stderr=subprocess.PIPE,
        text=True,
        # What a shell runs in the background, this suite perhaps, ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def the_run(root: Path, step: int) -> RunDir:
    """Wait until the only run has done so many steps."""
    until(lambda: list_runs(root))
    [run] = list_runs(root)
    assert wait(run, step) is State.RUNNING, observe(run)
    return run


def assert_stopped_with_a_checkpoint(run: RunDir, interrupted_by: str) -> None:
    state = observe(run)
    assert state.state is State.STOPPED, state
    assert state.interrupted_by == interrupted_by
    assert state.exit_code == (INTERRUPTED if interrupted_by else 0)
    assert (interrupted_by or "as asked") in state.reason
    assert f"accl resume {run.id}" in state.reason
    assert state.checkpoint_last == f"step-{state.step:08d}"
    assert (run.checkpoints / state.checkpoint_last).is_dir()


@pytest.mark.parametrize("first", stop.SIGNALS)
@pytest.mark.parametrize("second", stop.SIGNALS)
def test_a_second_signal_soon_after_the_first_belongs_to_it(first: int, second: int) -> None:
    interrupt = Interrupt()
    interrupt.check()
    interrupt.handle(first, None)
    interrupt.handle(second, None)
    assert interrupt.signal == signal.Signals(first).name
    with pytest.raises(StoppedEarly):
        interrupt.check()


def test_long_after_the_first_signal_ctrl_c_ends_at_once_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(interrupt_module.time, "monotonic", lambda: now)
    interrupt = Interrupt()
    interrupt.handle(signal.SIGTERM, None)
    now += REPEAT_S + 1
    for number in set(stop.SIGNALS) - {signal.SIGINT}:
        interrupt.handle(number, None)
    with pytest.raises(KeyboardInterrupt):
        interrupt.handle(signal.SIGINT, None)


def test_presses_within_a_second_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(foreground_module.time, "monotonic", lambda: now)
    child = partial(subprocess.Popen, ["cat"], stdin=subprocess.PIPE)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Foreground(child) as foreground:
            for later, presses in ((0.0, 1), (0.1, 1), (ONE_PRESS_S, 2), (0.0, 2)):
                now += later
                signal.raise_signal(signal.SIGINT)
                assert foreground.presses == presses
            foreground.process.communicate()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


# In a process of its own: one that dies of the signal is not the suite's.
SIGNALLED = """
import os, signal, subprocess, sys, threading
from accl.cli.foreground import Foreground
number = int(sys.argv[1])
threading.Thread(target=threading.Event().wait, daemon=True).start()  # would take what the first one blocks
code = "import signal; signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals()); signal.pause()"

def start():
    os.kill(os.getpid(), number)
    return subprocess.Popen([sys.executable, "-c", code])

def refuse():
    raise ValueError

with Foreground(start) as foreground:
    assert foreground.process.wait() == -number
    os.kill(os.getpid(), number)  # to a trainer that has ended
assert signal.getsignal(number) is signal.SIG_DFL
try:
    Foreground(refuse)
except ValueError:
    assert signal.getsignal(number) is signal.SIG_DFL
    print("passed on")
"""


@pytest.mark.parametrize("number", foreground_module.FORWARDED)
def test_a_schedulers_signal_is_passed_on_and_one_while_the_trainer_starts_is_not_lost(number: int) -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED, str(number)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "passed on\n"), done.stderr


def test_a_mark_is_a_file_and_nothing_else(tmp_path: Path) -> None:
    run = create_run(tmp_path, "full", 1)
    assert not stop.marked(run)
    stop.mark(run)
    assert stop.marked(run)
    stop.unmark(run)
    assert not stop.marked(run)
    run.stop.symlink_to("target")
    stop.mark(run)
    assert not (run.path / "target").exists()
    assert not stop.marked(run)
    run.stop.unlink()
    os.mkfifo(run.stop)
    stop.mark(run)
    assert not stop.marked(run)


def stopped_by_its_scheduler(root: Path, *words: str) -> RunDir:
    """Train in the foreground until a scheduler asks for a stop."""
    step = in_foreground(root, *words)
    run = the_run(root, 9)
    # The scheduler signals the command and what it finds of the trainer, at once and again.
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        step.send_signal(number)
        os.kill(read_state(run).pid, number)
    _, said = step.communicate(timeout=120)
    assert step.returncode == INTERRUPTED, said
    # Python may see signals that come together in either order.
    first = observe(run).interrupted_by
    assert first in ("SIGUSR1", "SIGTERM")
    assert_stopped_with_a_checkpoint(run, first)
    return run


def test_a_run_that_its_scheduler_stops_exits_75(root: Path) -> None:
    stopped_by_its_scheduler(root, *LONG)


@pytest.mark.slow
def test_a_run_that_its_scheduler_stopped_resumes_to_the_very_same_end(
    root: Path,
    uninterrupted: RunDir,  # noqa: F811
) -> None:
    run = stopped_by_its_scheduler(root, *(word for word in COMMAND if word != "--detach"))
    resumed = run_accl("resume", run.id, "--runs", str(root))
    assert resumed.returncode == 0, resumed.stderr
    state = observe(run)
    assert state.state is State.FINISHED
    assert state.interrupted_by == ""
    assert_equal(run, uninterrupted)


@pytest.mark.slow
def test_a_run_goes_on_when_its_terminal_is_closed(root: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "accl.cli.main", *LONG, "--runs", str(root)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as terminal:
        os.close(theirs)
        run = the_run(root, 2)
        terminal.send_signal(signal.SIGHUP)
        os.close(ours)
        assert terminal.wait() == -signal.SIGHUP
    reached = read_state(run).step
    assert wait(run, reached + 2) is State.RUNNING
    # Two presses of a nervous finger, by hand: a person, although there is no mark.
    for _ in range(2):
        os.kill(read_state(run).pid, signal.SIGINT)
    wait(run)
    assert_stopped_with_a_checkpoint(run, "")


@pytest.mark.slow
def test_each_signal_twice_within_a_tenth_of_a_second_gets_its_checkpoint(root: Path) -> None:
    done = run_accl(*LONG, "--detach", "--runs", str(root))
    run = RunDir(root / done.stdout.strip())
    for count, number in enumerate(stop.SIGNALS):
        if count:
            assert run_accl("resume", run.id, "--detach", "--runs", str(root)).returncode == 0
        wait(run, read_state(run).step + 2)
        for _ in range(2):
            os.kill(read_state(run).pid, number)
        wait(run)
        assert_stopped_with_a_checkpoint(run, "" if number == signal.SIGINT else signal.Signals(number).name)
        until(lambda: holder(run) is None)


@pytest.mark.slow
def test_timeout_ends_a_run_with_a_checkpoint(root: Path) -> None:
    limited = in_foreground(root, *LONG, before=("timeout", "--preserve-status", "60"))
    run = the_run(root, 2)
    limited.send_signal(signal.SIGTERM)  # as when the time is over
    _, said = limited.communicate(timeout=120)
    assert limited.returncode == INTERRUPTED, said
    assert_stopped_with_a_checkpoint(run, "SIGTERM")


@pytest.mark.slow
def test_a_second_press_a_second_later_kills(root: Path) -> None:
    foreground = in_foreground(root, *LONG)
    run = the_run(root, 2)
    os.kill(read_state(run).pid, signal.SIGSTOP)  # a step that takes for ever
    assert foreground.stderr is not None
    foreground.send_signal(signal.SIGINT)
    until(lambda: stop.marked(run))
    until(lambda: foreground.send_signal(signal.SIGINT) or foreground.poll() is not None)
    assert "Ctrl-C again kills it now" in foreground.stderr.read()
    state = observe(run)
    assert state.state is State.CRASHED
    assert "a second Ctrl-C" in state.reason


UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc")


def can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.skipif(not can_unshare(), reason="no new process namespace is permitted here")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_as_the_first_process_of_a_container_a_signal_stops_the_run_and_is_waited_for(root: Path, number: int) -> None:
    container = in_foreground(root, *LONG, before=UNSHARE)
    run = the_run(root, 2)
    [first] = psutil.Process(container.pid).children()
    first.send_signal(number)
    _, said = container.communicate(timeout=120)
    assert container.returncode == INTERRUPTED, said
    assert_stopped_with_a_checkpoint(run, signal.Signals(number).name)


@pytest.mark.slow
@pytest.mark.skipif(not can_unshare(), reason="no new process namespace is permitted here")
def test_as_the_first_process_of_a_container_it_ends_although_nothing_trains_yet(tmp_path: Path) -> None:
    code = "from accl.cli.foreground import end_on_signals; end_on_signals(); print('on', flush=True); input()"
    pipe = subprocess.PIPE
    command = [*UNSHARE, sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=tmp_path) as container:
        assert container.stdout is not None
        assert container.stdout.readline() == "on\n"
        [first] = psutil.Process(container.pid).children()
        first.send_signal(signal.SIGTERM)
        assert container.wait() == 128 + signal.SIGTERM
