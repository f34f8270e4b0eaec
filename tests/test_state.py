from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from accl.errors import RunError
from accl.store.rundir import RunDir, create_run
from accl.store.state import (
    HEARTBEAT_LOST_S,
    STALLED_AFTER_S,
    START_MARK,
    STARTUP_TIMEOUT_S,
    RunState,
    State,
    last_exception_line,
    observe,
    process_start_time,
    read_state,
    write_state,
)


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path, "full", 1)


def running(**changes: object) -> RunState:
    now = time.time()
    here = RunState(
        State.RUNNING,
        pid=os.getpid(),
        pid_started=process_start_time(os.getpid()) or 0.0,
        host=socket.gethostname(),
        started=now,
        heartbeat=now,
        progressed=now,
    )
    return here.changed(**changes)


def test_a_living_process_that_moves_is_running(run: RunDir) -> None:
    write_state(run, running(step=3, latest={"train/loss": 1.5}))
    assert observe(run).state is State.RUNNING
    assert read_state(run).latest == {"train/loss": 1.5}


def test_a_killed_process_is_crashed_at_once_even_before_it_is_reaped(run: RunDir) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    write_state(run, running(pid=process.pid, pid_started=process_start_time(process.pid)))
    assert observe(run).state is State.RUNNING
    process.kill()
    while process_start_time(process.pid) is not None:
        time.sleep(0.01)
    observed = observe(run)
    assert observed.state is State.CRASHED
    assert str(process.pid) in observed.reason
    process.wait()
    assert observe(run).state is State.CRASHED


def test_a_reused_pid_is_not_taken_for_the_run(run: RunDir) -> None:
    write_state(run, running(pid_started=1.0))
    assert observe(run).state is State.CRASHED


def test_the_last_exception_is_the_reason_of_a_crash(run: RunDir) -> None:
    run.console.write_text("step 1\nTraceback (most recent call last):\ntorch.OutOfMemoryError: no room\nbye bye: x\n")
    write_state(run, running(pid_started=1.0))
    assert observe(run).reason == "torch.OutOfMemoryError: no room"
    assert last_exception_line(run) == "torch.OutOfMemoryError: no room"


def test_alive_without_progress_is_stalled_and_new_evidence_revives_it(run: RunDir) -> None:
    long_ago = time.time() - STALLED_AFTER_S - 1
    write_state(run, running(started=long_ago, progressed=long_ago))
    assert observe(run).state is State.STALLED
    write_state(run, running())
    assert observe(run).state is State.RUNNING


def test_another_machine_is_judged_by_its_heartbeat(run: RunDir) -> None:
    now = time.time()
    write_state(run, running(host="elsewhere", pid_started=1.0))
    assert observe(run, now).state is State.RUNNING
    observed = observe(run, now + HEARTBEAT_LOST_S + 1)
    assert observed.state is State.CRASHED
    assert "elsewhere" in observed.reason


def test_a_process_that_never_came_up_is_crashed_after_a_while(run: RunDir) -> None:
    now = time.time()
    write_state(run, RunState(State.STARTING, started=now))
    assert observe(run, now).state is State.STARTING
    assert observe(run, now + STARTUP_TIMEOUT_S + 1).state is State.CRASHED
    run.console.write_text("ModuleNotFoundError: No module named 'torch'\n")
    assert observe(run, now).reason == "ModuleNotFoundError: No module named 'torch'"
    with open(run.console, "a") as console:
        console.write(f"{START_MARK} started again\n")
    assert observe(run, now).state is State.STARTING  # the error was of an earlier life


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED, State.STOPPED, State.QUEUED])
def test_what_a_run_says_of_its_own_end_stands(run: RunDir, state: State) -> None:
    write_state(run, running(state=state, pid_started=1.0))
    assert observe(run).state is state


def test_a_state_that_cannot_be_understood_is_one_clear_error(run: RunDir) -> None:
    run.state.write_text('{"state": "dreaming"}')
    with pytest.raises(RunError, match="dreaming"):
        observe(run)
    run.state.write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        observe(run)


def test_every_state_has_a_sign_of_its_own() -> None:
    assert len({state.icon for state in State}) == len(State)


def test_time_left_is_known_only_while_it_runs_at_a_known_speed() -> None:
    running = RunState(State.RUNNING, step=40, total_steps=100, latest={"steps_per_second": 4.0})
    assert running.left_seconds == 15.0
    assert running.changed(latest={}).left_seconds is None
    assert running.changed(latest={"steps_per_second": 0.0}).left_seconds is None
    assert running.changed(state=State.FINISHED).left_seconds is None
