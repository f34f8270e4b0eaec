from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from accl.errors import AbsentError, BusyError, DamagedError, RunError
from accl.store import state as state_module
from accl.store.lock import MERGING, STARTING, TRAINING, RunLock, probe
from accl.store.rundir import RunDir, create_run
from accl.store.state import (
    HEARTBEAT_LOST_S,
    STALLED_AFTER_S,
    START_MARK,
    RunState,
    State,
    claim,
    observe,
    read_state,
    share_a_process,
    silence,
    write_state,
)


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    return create_run(tmp_path, "full", 1)


@pytest.fixture(name="living")
def _living(run: RunDir) -> Iterator[RunDir]:
    """A run whose lock a trainer holds."""
    with RunLock.acquire(run, TRAINING):
        yield run


@pytest.fixture(name="dead")
def _dead(run: RunDir) -> RunDir:
    """A run whose lock nobody holds."""
    RunLock.acquire(run, TRAINING).release()
    return run


def running(**changes: object) -> RunState:
    now = time.time()
    here = RunState(
        State.RUNNING,
        pid=os.getpid(),
        host=socket.gethostname(),
        started=now,
        heartbeat=now,
        progressed=now,
    )
    return here.changed(**changes)


def silent_for(run: RunDir, seconds: float) -> None:
    """Let ``state.json`` be so old."""
    then = run.state.stat().st_mtime - seconds
    os.utime(run.state, (then, then))


def test_a_held_lock_is_life_whatever_clocks_pids_and_hosts_say(living: RunDir) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ago = time.time() - 1e6
    for changes in (
        {"step": 3, "latest": {"train/loss": 1.5}},
        {"pid": gone.pid},
        {"pid": 0},
        {"pid_started": 1.0},  # as after a change of the boot time
        {"heartbeat": ago},
        {"heartbeat": time.time() + 1e6, "progressed": time.time() + 1e6},
        {"host": "elsewhere"},
        {"host": ""},
    ):
        write_state(living, running(**changes))
        assert observe(living).state in (State.RUNNING, State.STALLED), changes
        silent_for(living, 1e6)
        assert observe(living).state in (State.RUNNING, State.STALLED), changes
    with pytest.raises(BusyError):
        claim(living, STARTING)


def test_a_free_lock_is_death_at_once_and_the_reason_names_the_process(dead: RunDir) -> None:
    write_state(dead, running(pid=4711))
    observed = observe(dead)
    assert observed.state is State.CRASHED
    assert "4711" in observed.reason
    write_state(dead, running(state=State.STARTING, pid=0))
    observed = observe(dead)
    assert observed.state is State.CRASHED
    assert "never came up" in observed.reason


def test_a_killed_process_is_crashed_at_once_even_before_it_is_reaped(run: RunDir) -> None:
    code = """
import sys
from pathlib import Path
from accl.store.lock import TRAINING, RunLock
from accl.store.rundir import RunDir
lock = RunLock.acquire(RunDir(Path(sys.argv[1])), TRAINING)
print("held", flush=True)
sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        write_state(run, running(pid=process.pid))
        assert observe(run).state is State.RUNNING
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
        assert observe(run).state is State.CRASHED


def test_an_end_that_was_written_while_somebody_looked_stands(dead: RunDir) -> None:
    write_state(dead, running())
    seen = read_state(dead)
    write_state(dead, seen.changed(state=State.FINISHED))
    assert state_module.assess(seen, dead, time.time()).state is State.FINISHED
    write_state(dead, seen.changed(state=State.STARTING, started=seen.started + 1))  # resumed meanwhile
    assert state_module.assess(seen, dead, time.time()).state is State.STARTING


def test_a_reader_that_merges_does_not_make_a_dead_run_live(dead: RunDir) -> None:
    write_state(dead, running())
    with RunLock.acquire(dead, MERGING):
        assert observe(dead).state is State.CRASHED


def test_the_last_exception_is_the_reason_of_a_crash(dead: RunDir) -> None:
    dead.console.write_text("step 1\nTraceback (most recent call last):\ntorch.OutOfMemoryError: no room\nbye bye: x\n")
    write_state(dead, running())
    assert observe(dead).reason == "torch.OutOfMemoryError: no room"
    with open(dead.console, "a") as console:
        console.write(f"{START_MARK} started again\n")
    assert "is gone" in observe(dead).reason  # the error was of an earlier life
    dead.console.unlink()
    assert "is gone" in observe(dead).reason
    os.mkfifo(dead.console)
    assert "is gone" in observe(dead).reason


def test_the_last_error_of_a_crash_without_an_exception_is_quoted(dead: RunDir) -> None:
    write_state(dead, running())
    early, late = "error: of an earlier life", "error: state.json cannot be written: No space left on device"
    dead.console.write_text(f"{early}\n{START_MARK} started again\nerror: first\n{late}\nstep 1\n")
    assert observe(dead).reason.endswith(f"and left no message (killed, or out of memory?); its last {late}")
    dead.console.write_text(f"{early}\n{START_MARK} started again\nstep 1\n")
    assert observe(dead).reason.endswith("(killed, or out of memory?)")


def test_alive_without_progress_is_stalled_and_new_evidence_revives_it(living: RunDir) -> None:
    long_ago = time.time() - STALLED_AFTER_S - 1
    write_state(living, running(started=long_ago, progressed=long_ago))
    assert observe(living).state is State.STALLED
    write_state(living, running(started=long_ago, progressed=long_ago, heartbeat=long_ago))  # a process that hangs
    assert observe(living).state is State.STALLED
    write_state(living, running())
    assert observe(living).state is State.RUNNING


def test_a_slow_starter_lives_as_long_as_it_holds_the_lock(living: RunDir) -> None:
    write_state(living, running(state=State.STARTING, pid=0))
    assert observe(living, time.time() + STALLED_AFTER_S - 5).state is State.STARTING
    assert observe(living, time.time() + 3600).state is State.STALLED
    with pytest.raises(BusyError):
        claim(living, STARTING)


@pytest.mark.parametrize("skew", [-3600.0, -90.0, 0.0, 90.0, 3600.0])
def test_another_machine_is_judged_by_the_clock_of_the_file_system_alone(dead: RunDir, skew: float) -> None:
    theirs = time.time() + skew  # the clock of the trainer, or that of this machine the other way round
    write_state(dead, running(host="elsewhere", started=theirs, heartbeat=theirs, progressed=theirs))
    for ours in (time.time() - 90, time.time(), time.time() + 90):
        assert observe(dead, ours).state is State.RUNNING
    with pytest.raises(BusyError, match=f"process {os.getpid()} on elsewhere since"):
        claim(dead, STARTING)
    assert probe(dead).held is False
    silent_for(dead, HEARTBEAT_LOST_S + 1)
    observed = observe(dead)
    assert observed.state is State.CRASHED
    assert "elsewhere" in observed.reason
    claim(dead, STARTING).release()


def test_another_machine_that_lives_without_progress_is_stalled(living: RunDir) -> None:
    theirs = time.time() - 90
    write_state(
        living, running(host="elsewhere", started=theirs, progressed=theirs - STALLED_AFTER_S, heartbeat=theirs)
    )
    assert observe(living).state is State.RUNNING
    write_state(
        living, running(host="elsewhere", started=0.0, progressed=theirs - STALLED_AFTER_S - 1, heartbeat=theirs)
    )
    assert observe(living).state is State.STALLED


def test_without_a_lock_file_the_heartbeat_decides(run: RunDir) -> None:
    write_state(run, running())
    assert observe(run).state is State.RUNNING
    with pytest.raises(BusyError, match="by its heartbeat"):
        claim(run, STARTING)
    assert not run.lock.exists()  # left behind and free, it would prove the death of who lives
    assert observe(run).state is State.RUNNING
    silent_for(run, HEARTBEAT_LOST_S + 1)
    assert "no heartbeat" in observe(run).reason
    claim(run, STARTING).release()


@pytest.mark.parametrize("started", [float("inf"), float("nan"), 1e300, -1e300])
def test_a_start_that_is_no_time_is_refused_like_any_other(run: RunDir, started: float) -> None:
    write_state(run, running(started=started))
    with pytest.raises(DamagedError, match="started is"):
        claim(run, STARTING)


def test_looking_leaves_no_trace(run: RunDir) -> None:
    write_state(run, running(host="elsewhere"))
    before = os.stat(run.path)
    observe(run)
    assert os.listdir(run.path) == ["state.json"]
    assert os.stat(run.path).st_mtime_ns == before.st_mtime_ns


def test_silence_is_measured_where_nothing_may_be_written(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    assert silence(run) == float("inf")
    write_state(run, running())

    def refuse(**_arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(state_module.tempfile, "TemporaryFile", refuse)
    assert silence(run) < HEARTBEAT_LOST_S
    silent_for(run, 600)
    assert 590 < silence(run) < 700


def test_a_run_that_was_prepared_and_never_started_can_be_claimed(run: RunDir) -> None:
    write_state(run, RunState(State.QUEUED))
    observed = observe(run)
    assert observed.state is State.QUEUED
    assert f"accl resume {run.id}" in observed.reason
    with claim(run, STARTING):
        assert observe(run).reason == ""
    assert observe(run).reason


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED, State.STOPPED, State.QUEUED])
def test_what_a_run_says_of_its_own_end_stands(run: RunDir, state: State) -> None:
    write_state(run, running(state=state))
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


WRONG = [
    ("step", "3"),
    ("step", None),
    ("step", -1),
    ("step", True),
    ("step", 1.5),
    ("step", 2**63),
    ("pid", -1),
    ("pid", 2**31),
    ("heartbeat", None),
    ("started", float("nan")),
    ("ended", float("inf")),
    ("elapsed", 1e300),
    ("latest", [1]),
    ("latest", {"train/loss": "low"}),
    ("latest", {"train/loss": 10**400}),
    ("latest", {"train/loss": True}),
    ("reason", 3),
    ("exit_code", "0"),
    ("exit_code", False),
    ("exit_code", 2**40),
    ("visible_gpus", 0),
    ("visible_gpus", ["GPU-a"]),
    ("state", "dreaming"),
    ("state", ["running"]),
    ("checkpoint_last", "../../elsewhere"),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_field_that_holds_what_it_cannot_hold_is_named(run: RunDir, key: str, value: object) -> None:
    write_state(run, RunState().changed(**{key: value}))
    with pytest.raises(DamagedError, match=f"{key} is ") as caught:
        read_state(run)
    assert len(caught.value.what) < len(str(run.state)) + 120


def test_a_state_is_read_as_it_was_written(run: RunDir) -> None:
    written = running(exit_code=-9, latest={"train/loss": float("inf"), "steps": 3}, reason="ü", visible_gpus="")
    write_state(run, written)
    assert read_state(run) == written
    run.state.write_text('{"step": 1}')
    with pytest.raises(DamagedError, match="state is None"):
        read_state(run)
    run.state.unlink()
    with pytest.raises(AbsentError, match="missing"):
        read_state(run)


@pytest.mark.parametrize(
    ("processes", "shared"),
    [
        ([], False),
        ([("a", 7), ("a", 8)], False),
        ([("a", 7), ("b", 7)], False),
        ([("a", 7), ("a", 8), ("a", 7)], True),
        ([("a", 0), ("a", 0)], False),  # neither has a process yet
    ],
)
def test_runs_share_a_process_by_its_number_on_one_machine(processes: list[tuple[str, int]], shared: bool) -> None:
    assert share_a_process(RunState(host=host, pid=pid) for host, pid in processes) == shared
