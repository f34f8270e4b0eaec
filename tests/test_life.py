"""One trainer per run: who starts, who is refused and by whom, and who is stopped."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from conftest import run_accl, wait

from accl.cli import progress
from accl.cli.output import SafeConsole
from accl.config import resolve
from accl.errors import BusyError, DamagedError, RunError, TrainingError
from accl.launch import commit, process
from accl.store.lock import LOCK_VARIABLE, STARTING, TRAINING, RunLock, holder, probe
from accl.store.rundir import RunDir
from accl.store.state import START_MARK, RunState, State, observe, read_state, write_state
from accl.store.writer import Recorder

ROOT = Path(__file__).parents[1]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def prepared(root: Path, *overrides: str) -> RunDir:
    return process.prepare(root, resolve("full", "demo", ["train.max_steps=400", *overrides]).config, ["a test"])


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Iterator[RunDir]:
    """A prepared run, whose trainer is killed at the end."""
    run = prepared(tmp_path / "runs")
    yield run
    kill(run)


def kill(run: RunDir) -> None:
    if (held := holder(run)) is not None and held.purpose == TRAINING and held.pid != os.getpid():
        with suppress(ProcessLookupError):
            os.killpg(held.pid, signal.SIGKILL)
        until(lambda: holder(run) is None)


@pytest.fixture(name="idle")
def _idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a launcher start a trainer that inherits the lock, does nothing, and dies of the first signal."""
    idle = tmp_path / "idle"
    code = "import signal; signal.pthread_sigmask(signal.SIG_SETMASK, ()); signal.pause()"
    idle.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    idle.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(idle))
    return idle


CONTEND = """
import sys
from pathlib import Path
from accl.errors import BusyError
from accl.launch import commit, process
from accl.store.rundir import RunDir
sys.executable = sys.argv[1]
for line in sys.stdin:
    try:
        print(process.start(RunDir(Path(line.strip()))).pid, flush=True)
    except BusyError as error:
        print(error, flush=True)
"""


@pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_of_racing_resumes_exactly_one_starts_and_the_other_is_told_by_whom(
    run: RunDir, idle: Path, rounds: int
) -> None:
    python = idle.read_text().split()[2]
    command = [python, "-c", CONTEND, str(idle)]
    pipe = subprocess.PIPE
    racers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) for _ in range(2)]
    for round in range(rounds):
        if round == rounds // 2:
            run.lock.unlink()  # made anew by whoever comes first
            write_state(run, read_state(run).changed(state=State.STOPPED))
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(f"{run.path}\n")
        said = [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]
        started, refused = sorted(said, key=lambda line: not line.isdigit())
        assert started.isdigit()
        assert f"held by process {started} on {socket.gethostname()} since 20" in refused or "(starting)" in refused
        held = holder(run)
        assert held is not None
        assert held.pid == int(started)
        kill(run)
    for racer in racers:
        racer.communicate()
    assert run.console.read_text().count(START_MARK) == rounds


def test_a_living_run_is_neither_resumed_nor_trained_by_hand(run: RunDir, tmp_path: Path) -> None:
    with RunLock.acquire(run, TRAINING):
        before = {path: path.stat().st_mtime_ns for path in [run.path, *run.path.iterdir()]}
        refused = run_accl("resume", run.id, "--detach", "--runs", str(tmp_path / "runs"))
        assert refused.returncode == BusyError.exit_code
        assert f"process {os.getpid()} on {socket.gethostname()} since" in refused.stderr
        by_hand = subprocess.run([sys.executable, "-m", "accl.training", str(run.path)], capture_output=True, text=True)
        assert by_hand.returncode == BusyError.exit_code
        assert f"process {os.getpid()}" in by_hand.stderr
        assert {path: path.stat().st_mtime_ns for path in [run.path, *run.path.iterdir()]} == before


@pytest.mark.usefixtures("idle")
def test_a_run_that_was_prepared_and_never_started_is_started_by_resume(run: RunDir) -> None:
    assert observe(run).state is State.QUEUED
    run.stop.write_text("")  # of an earlier process
    started = process.start(run)
    state = observe(run)
    assert (state.state, state.host, state.pid) == (State.STARTING, socket.gethostname(), 0)
    assert not run.stop.exists()
    with pytest.raises(BusyError, match=f"process {started.pid} "):
        process.start(run)
    kill(run)
    started.wait()
    assert "never came up" in observe(run).reason
    process.start(run)


def test_a_run_that_was_prepared_and_never_started_is_stopped_by_stop(run: RunDir, tmp_path: Path) -> None:
    done = run_accl("stop", run.id, "--runs", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert "stopped before it was started" in done.stdout
    assert read_state(run).state is State.STOPPED


def test_a_finished_run_is_not_started_again_and_nothing_is_left_behind(run: RunDir) -> None:
    write_state(run, RunState(State.FINISHED))
    with pytest.raises(RunError, match="has finished"):
        process.start(run)
    assert not run.lock.exists()
    assert not run.console.exists()


def test_a_trainer_that_cannot_be_started_leaves_the_run_as_it_was(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_state(run)
    monkeypatch.setattr(sys, "executable", str(run.path / "nowhere"))
    with pytest.raises(RunError, match="cannot be started"):
        process.start(run)
    assert read_state(run) == before
    assert probe(run).held is None


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_a_console_that_is_no_file_starts_nothing(run: RunDir, make: Callable[[Path], None]) -> None:
    make(run.console)
    with pytest.raises(DamagedError):
        process.start(run)
    assert read_state(run).state is State.QUEUED
    run.console.rmdir() if run.console.is_dir() else run.console.unlink()
    reader = None
    if make is os.mkfifo:  # with somebody at its other end
        os.mkfifo(run.console)
        reader = os.open(run.console, os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(DamagedError, match="is not a file"):
            process.start(run)
        os.close(reader)


@pytest.mark.usefixtures("idle")
def test_stop_signals_the_trainer_and_leaves_a_mark(run: RunDir) -> None:
    started = process.start(run)
    process.stop(run)
    assert started.wait() == -signal.SIGTERM
    assert run.stop.exists()
    with pytest.raises(RunError, match="not running"):
        process.stop(run)


@pytest.mark.usefixtures("idle")
def test_a_run_whose_folder_was_renamed_can_be_stopped(run: RunDir) -> None:
    started = process.start(run)
    moved = RunDir(run.path.rename(run.path.with_name("moved")))
    process.stop(moved)
    assert started.wait() == -signal.SIGTERM
    assert moved.stop.exists()


@pytest.mark.usefixtures("idle")
def test_killing_ends_the_whole_group(run: RunDir) -> None:
    started = process.start(run)
    assert os.getpgid(started.pid) == started.pid
    process.stop(run, kill=True)
    assert started.wait() == -signal.SIGKILL
    state = process.wait_until_ended(run, 60)
    assert state.state is State.CRASHED
    assert state.reason.startswith("killed by accl stop")


@pytest.mark.usefixtures("idle")
def test_a_run_tells_its_first_start_and_the_step_that_it_goes_on_from(run: RunDir) -> None:
    assert read_state(run).begun == 0
    first = process.start(run)
    begun = read_state(run).begun
    assert begun == read_state(run).started > 0
    process.stop(run, kill=True)
    first.wait()
    write_state(run, process.wait_until_ended(run, 60).changed(checkpoint_last="step-00001200"))
    process.start(run)
    state = read_state(run)
    assert (state.begun, state.goes_on_from) == (begun, 1200)
    assert state.started > begun


def test_a_trainer_in_the_group_of_a_shell_is_killed_alone(run: RunDir, idle: Path) -> None:
    with RunLock.acquire(run, STARTING) as lock:
        words = [str(idle), "-m", "accl.training", str(run.path)]
        by_hand = subprocess.Popen(words, pass_fds=[lock.descriptor])
        lock.sign(TRAINING, by_hand.pid)
        write_state(run, RunState(State.RUNNING, heartbeat=time.time(), progressed=time.time()))
    until(lambda: process._trains(by_hand.pid, run))
    process.stop(run, kill=True)
    assert by_hand.wait() == -signal.SIGKILL


def test_no_process_is_signalled_because_a_file_names_it(run: RunDir, tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as bystander:
        here = {"host": socket.gethostname(), "pid": bystander.pid, "heartbeat": time.time(), "started": time.time()}
        write_state(run, RunState(State.RUNNING, **here))
        for arguments in ([], ["--kill"]):
            done = run_accl("stop", run.id, *arguments, "--runs", str(tmp_path / "runs"))
            assert done.returncode == RunError.exit_code
            assert "is not the trainer" in done.stderr
        assert bystander.poll() is None


def test_a_run_of_another_host_is_stopped_there(run: RunDir) -> None:
    write_state(run, RunState(State.RUNNING, host="elsewhere", pid=1, heartbeat=time.time(), progressed=time.time()))
    with pytest.raises(RunError, match=f"ssh elsewhere accl stop {run.id}"):
        process.stop(run)


def test_a_run_that_ended_while_it_was_to_be_stopped_is_no_error(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    running = RunState(State.RUNNING, host=socket.gethostname(), pid=2**30, heartbeat=now, progressed=now)

    def ends(_pid: int, _run: RunDir) -> bool:
        write_state(run, running.changed(state=State.FINISHED))
        return False

    write_state(run, running)
    monkeypatch.setattr(process, "_trains", ends)
    process.stop(run)
    write_state(run, running)
    monkeypatch.setattr(process, "_trains", lambda _pid, _run: True)  # and dies before the signal
    process.stop(run)


def test_a_run_that_is_being_started_is_stopped_once_its_trainer_has_the_lock(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "HANDOVER_S", 0.0)
    with RunLock.acquire(run, STARTING), pytest.raises(BusyError, match="only just being started"):
        process.stop(run)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.usefixtures("idle")
def test_a_trainer_of_another_user_is_left_to_them(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    started, killpg = process.start(run), os.killpg

    def as_nobody(group: int, number: int) -> None:
        before = os.getresuid()
        os.setresuid(65534, 65534, 0)
        try:
            killpg(group, number)
        finally:
            os.setresuid(*before)

    monkeypatch.setattr(os, "killpg", as_nobody)
    with pytest.raises(RunError, match="belongs to another user"):
        process.stop(run, kill=True)
    monkeypatch.undo()
    assert started.poll() is None


def test_a_slow_starter_is_alive_is_stopped_and_imports_nothing_from_its_folder(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, planted = tmp_path / "gate", tmp_path / "planted"
    planted.mkdir()
    (planted / "random.py").write_text("raise SystemExit('planted')")
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, time\nwhile 'ACCL_LOCK_FD' in os.environ and not os.path.exists({str(gate)!r}): time.sleep(0.01)\n"
    )
    monkeypatch.chdir(planted)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    started = process.start(run)
    assert observe(run).state is State.STARTING
    with pytest.raises(BusyError, match=f"process {started.pid} "):
        process.start(run)
    process.stop(run)  # held back until the trainer can handle it
    gate.touch()
    assert started.wait() == 0, run.console.read_text()
    state = observe(run)
    assert state.state is State.STOPPED
    assert "as asked" in state.reason
    assert state.interrupted_by == ""
    assert "planted" not in run.console.read_text()


@pytest.mark.parametrize(("code", "passed_on"), [(1, 9), (4, 4), (12, 12), (13, 13), (-9, 9), (130, 9)])
def test_a_command_ends_with_the_code_of_the_error_that_ended_its_trainer(
    run: RunDir, code: int, passed_on: int
) -> None:
    state = read_state(run).changed(state=State.FAILED, reason="x")
    with pytest.raises(TrainingError, match="failed: x") as raised:
        progress._report(run, state, code, SafeConsole(file=io.StringIO()))
    assert raised.value.exit_code == passed_on


def test_a_run_that_ended_while_it_was_to_be_stopped_unstarted_keeps_its_end(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "observe", read_state)
    monkeypatch.setattr(process, "claim", lambda run, purpose: _finished_before(run, purpose))
    process.stop(run)
    assert read_state(run).state is State.FINISHED


def _finished_before(run: RunDir, purpose: str) -> RunLock:
    write_state(run, RunState(State.FINISHED))
    return RunLock.acquire(run, purpose)


def test_waiting_ends_with_the_run_or_with_the_time(run: RunDir) -> None:
    assert process.wait_until_ended(run, 0.0).state is State.QUEUED
    write_state(run, RunState(State.STOPPED))
    assert process.wait_until_ended(run, 3600.0).state is State.STOPPED


def test_a_process_that_may_not_be_looked_at_is_left_to_the_kernel(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in (2**22 + 1, -1, 2**70, os.getpid()):
        assert not process._trains(pid, run)

    def refuse(_process: psutil.Process) -> list[str]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "cmdline", refuse)
    assert process._trains(os.getpid(), run)


def test_a_clone_that_is_not_installed_trains_with_its_own_code(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "accl", clone / "accl", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import subprocess, sys\nfrom accl.launch.process import environment\n"
        "subprocess.run([sys.executable, '-P', '-c', 'import accl; print(accl.__file__)'], env=environment())"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(clone / "accl" / "__init__.py"), done.stderr


def test_trainers_beside_each_other_do_not_spin_unless_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert process.environment()["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert process.environment()["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "GOMP_SPINCOUNT" not in process.environment()


@pytest.fixture(name="asks_git")
def _asks_git() -> Iterator[None]:
    commit._commit_at.cache_clear()
    yield
    commit._commit_at.cache_clear()


@pytest.mark.usefixtures("asks_git")
def test_a_machine_without_git_trains_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run = prepared(tmp_path / "runs")
    assert run.read_json(run.provenance)["git"] == {}


@pytest.mark.parametrize("inherited", ["987", "9" * 30, "-1", "x"])
def test_a_trainer_that_cannot_begin_says_so_in_one_line_and_in_the_state(run: RunDir, inherited: str) -> None:
    recorder = Recorder(run.database)
    recorder.meta({"schema_version": "99"})
    recorder.close()
    command = [sys.executable, "-m", "accl.training", str(run.path)]
    environment = os.environ | {LOCK_VARIABLE: inherited}  # no lock of ours
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == RunError.exit_code
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    state = read_state(run)
    assert state.state is State.FAILED
    assert "accl that wrote it" in state.reason
    assert probe(run).held is False


@pytest.mark.usefixtures("asks_git")
def test_a_foreign_repository_in_theenvironment_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    theirs = tmp_path / "theirs"
    subprocess.run(["git", "init", "-q", str(theirs)], check=True)
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "-C", str(theirs), *who, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    ours = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    monkeypatch.setenv("GIT_DIR", str(theirs / ".git"))
    run = prepared(tmp_path / "runs")
    assert run.read_json(run.provenance)["git"]["commit"] == ours


@pytest.mark.usefixtures("asks_git")
def test_git_is_asked_again_after_some_seconds_and_not_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = 1000.0, []

    def answer(command: list[str], **_options: object) -> SimpleNamespace:
        asked.append(command[3])
        return SimpleNamespace(returncode=0, stdout=f"{len(asked)}\n")

    monkeypatch.setattr(commit, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(commit, "subprocess", SimpleNamespace(run=answer, TimeoutExpired=TimeoutError))
    monkeypatch.setattr(Path, "exists", lambda _path: True)
    assert [commit.running_commit() for _ in range(3)] == [{"commit": "1", "dirty": True}] * 3
    now += commit.ASK_EVERY_S
    assert commit.running_commit() == {"commit": "3", "dirty": True}
    assert asked == ["rev-parse", "status"] * 2


@pytest.mark.slow
def test_a_lock_file_that_was_deleted_in_mid_run_is_made_again(run: RunDir) -> None:
    started = process.start(run)
    wait(run, 1)
    run.lock.unlink()
    assert observe(run).state.active
    until(lambda: holder(run) is not None)
    with pytest.raises(BusyError, match=f"process {started.pid} "):
        process.start(run)
    # Another trainer takes it while there is none: the first ends without a word in the state.
    os.kill(started.pid, signal.SIGSTOP)
    run.lock.unlink()
    with RunLock.acquire(run, TRAINING):
        before = read_state(run)
        os.kill(started.pid, signal.SIGCONT)
        assert started.wait() == BusyError.exit_code
        after = read_state(run)
        assert after.state is before.state
        assert after.exit_code is None
    assert "writes no more" in run.console.read_text()


@pytest.mark.slow
def test_a_run_trains_where_there_are_no_locks_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, fcntl\ndef flock(*_): raise OSError(errno.ENOLCK, 'No locks available')\nfcntl.flock = flock\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    root = tmp_path / "runs"
    done = run_accl("train", "full", "--profile", "demo", "--detach", "--set=train.max_steps=400", "--runs", str(root))
    assert done.returncode == 0, done.stderr
    run = RunDir(root / done.stdout.strip())
    monkeypatch.undo()
    wait(run, 1)
    refused = run_accl("resume", run.id, "--detach", "--runs", str(root), PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert refused.returncode == BusyError.exit_code
    assert "by its heartbeat" in refused.stderr
    os.kill(read_state(run).pid, signal.SIGTERM)
    until(lambda: read_state(run).state is State.STOPPED)
    assert run.console.read_text().count("has no locks") == 1
