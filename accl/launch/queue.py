"""The queue of a folder of runs: what waits there, in which order, and the worker that starts it.

Every change is one to the files of the runs themselves (`accl.store.waiting`), so that nothing is lost with a process.
The worker (`accl.launch.worker`) is started by whoever finds that something waits and nobody works.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from accl.errors import AcclError, DamagedError, RunError
from accl.files import lock_within, open_regular
from accl.launch import process
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.files import alone_in, writing
from accl.store.lock import PAUSING, STARTING, TRAINING, holder
from accl.store.rundir import RunDir, run_folders
from accl.store.state import RunState, State, claim, observe, read_state, write_state
from accl.store.summary import as_problem
from accl.store.waiting import Waiting, read_waiting, write_waiting
from accl.text import without_credentials

FOLDER, LOCK, LOG = ".queue", "lock", "worker.log"
BY_HAND = "by hand"
LOG_LIMIT = 2**20  # bytes, with which a worker begins a log of its own
PID_BYTES = 32  # at most, of what a worker writes into its lock
CLOSEST = 1e-6  # of two positions; halving a distance of 1 comes there after twenty moves
UP_S, LOOK_S = 30.0, 0.02  # how long a worker may take to begin its work, and how often that is looked at

_started: list[subprocess.Popen[bytes]] = []  # workers of this process, so that those that ended are reaped


@dataclass(frozen=True)
class Entry:
    """A run that waits.

    Attributes:
        waiting, state: None where they cannot be read.
        problem: why it cannot be started.
    """

    run: RunDir
    waiting: Waiting | None = None
    state: RunState | None = None
    problem: AcclError | None = None

    @property
    def ready(self) -> bool:
        """Whether it starts as soon as there is a place for it."""
        return self.waiting is not None and not self.waiting.paused and self.problem is None

    @property
    def key(self) -> tuple[float, float, str]:
        """Key that sorts the queue; those that cannot be read are the last."""
        where = (self.waiting.position, self.waiting.since) if self.waiting else (float("inf"), 0.0)
        return (*where, self.run.id)


def waiting(root: Path) -> list[Entry]:
    """Return the runs under ``root`` that wait, in the order in which they start; broken ones are the last.

    Raises:
        RunError, BusyError: as `run_folders`.
    """
    entries = [
        Entry(run, problem=as_problem(answer, run.path)) if isinstance(answer, BaseException) else answer
        for run, answer in each_within(DEADLINE_S, _read_entry, run_folders(root))
    ]
    return sorted((entry for entry in entries if entry is not None), key=lambda entry: entry.key)


def _read_entry(run: RunDir) -> Entry | None:
    if not os.path.lexists(run.queue):
        return None
    state = observe(run)
    held = holder(run)
    # One that is just being started, or taken out, waits no more; one that is just being paused does.
    if state.state is not State.QUEUED or (held is not None and held.purpose in (STARTING, TRAINING)):
        return None
    place = read_waiting(run)
    return Entry(run, place, state) if place else None


def enqueue(root: Path, runs: Sequence[RunDir], *, per_gpu: int = 1, jobs: int | None = None) -> None:
    """Put prepared, stopped, failed or crashed runs at the end of the queue, and see to it that a worker lives.

    A run that waits already keeps its place, and is no longer paused. One that was stopped goes on from its last
    checkpoint when its turn comes.

    Args:
        root: the folder that they are in.
        per_gpu: number of runs that may share a GPU with one of these.
        jobs: number of runs of the folder that may train at once; None for one on each GPU, or one on the processor.

    Raises:
        BusyError: a trainer of one lives.
        RunError: one lies in another folder, has finished, cannot be read or written, or the worker does not start.
    """
    for run in runs:
        if run.path.parent.resolve() != root.resolve():
            raise RunError(f"{run.path} is not in {root}.", f"Give its folder: --runs {run.path.parent}")
        if observe(run).state is State.FINISHED:
            raise RunError(f"{run.id} has finished.", "Train it again as a new run: accl train ...")
    try:
        folder = os.getcwd()
    except FileNotFoundError as error:
        raise RunError("The current folder has been removed.", "Change to one that exists.") from error
    command = tuple(map(without_credentials, sys.argv))
    with _changing(root):
        last = max((entry.waiting.position for entry in waiting(root) if entry.waiting), default=0.0)
        place = Waiting(time.time(), last, per_gpu=per_gpu, jobs=jobs, folder=folder, command=command)
        for number, run in enumerate(runs, 1):
            _enqueue(run, place.changed(position=last + number))
    ensure_worker(root)


def _changing(root: Path) -> AbstractContextManager[None]:
    """Keep others from changing places in the queue: a change that was read before another would undo that."""
    return alone_in(queue_folder(root), f"The queue of {root} is being changed by another process.")


def _enqueue(run: RunDir, place: Waiting) -> None:
    lock = claim(run, STARTING)
    try:
        state = read_state(run)
        if state.state is State.QUEUED:
            with suppress(DamagedError):
                if (before := read_waiting(run)) is not None:
                    place = place.changed(since=before.since, position=before.position)
        write_waiting(run, place)
        if state.state is not State.QUEUED:
            with writing(run.state):
                write_state(run, state.changed(state=State.QUEUED, reason="", phase="", interrupted_by=""))
    finally:
        lock.abandon()


def move(root: Path, runs: Sequence[RunDir], place: int) -> None:
    """Move waiting runs, in the order in which they are given, to a place of the queue; 1 is the first.

    Raises:
        BusyError: another process does not end to change the queue.
        RunError: one of them does not wait, or cannot be written.
    """
    with _changing(root):
        _move(root, runs, place)


def _move(root: Path, runs: Sequence[RunDir], place: int) -> None:
    moved = _entries(root, runs)
    names = {run.id for run, _ in moved}
    others = [(each.run, each.waiting) for each in waiting(root) if each.waiting and each.run.id not in names]
    index = min(max(place, 1) - 1, len(others))
    before, after = others[:index], others[index:]
    low = before[-1][1].position if before else (after[0][1].position if after else 0.0) - len(moved) - 1
    high = after[0][1].position if after else low + len(moved) + 1
    step = (high - low) / (len(moved) + 1)
    if step < CLOSEST:  # or none, between runs that two commands put there at once
        moved, low, step = [*before, *moved, *after], 0.0, 1.0
    for number, (run, each) in enumerate(moved, 1):
        write_waiting(run, each.changed(position=low + number * step))


def pause(root: Path, runs: Iterable[RunDir], reason: str = BY_HAND) -> None:
    """Keep waiting runs from being started until `unpause`, for a reason in words.

    Raises:
        BusyError: the trainer of one has been started meanwhile, or another process does not end to change the queue.
        RunError: one of them does not wait, or cannot be written.
    """
    with _changing(root):
        for run, place in _entries(root, runs):
            lock = claim(run, PAUSING)  # who starts it looks whether it is paused while holding the lock
            try:
                if read_state(run).state is not State.QUEUED:
                    raise _not_waiting(run)
                write_waiting(run, place.changed(paused=reason))
            finally:
                lock.abandon()


def unpause(root: Path, runs: Iterable[RunDir]) -> None:
    """Let paused runs be started when their turn comes, and see to it that a worker lives.

    Raises:
        RunError: as `pause`, or the worker does not start.
    """
    with _changing(root):
        for run, place in _entries(root, runs):
            write_waiting(run, place.changed(paused=""))
    ensure_worker(root)


def cancel(root: Path, runs: Iterable[RunDir]) -> None:
    """Take waiting runs out of the queue; their state is ``stopped`` from then on, and their folders stay.

    Raises:
        BusyError: the trainer of one has been started meanwhile, or another process does not end to change the queue.
        RunError: one of them does not wait, or cannot be written.
    """
    with _changing(root):
        for run, _ in _entries(root, runs):
            if not process.withdraw(run):
                raise _not_waiting(run)


def _entries(root: Path, runs: Iterable[RunDir]) -> list[tuple[RunDir, Waiting]]:
    """Return the places of waiting runs, in the order of ``runs``; all of them are read before any is changed."""
    found = {entry.run.id: entry for entry in waiting(root)}
    chosen = []
    for run in runs:
        entry = found.get(run.id)
        if entry is None:
            raise _not_waiting(run)
        if entry.waiting is None:
            raise entry.problem or _not_waiting(run)
        chosen.append((run, entry.waiting))
    return chosen


def _not_waiting(run: RunDir) -> RunError:
    return RunError(f"{run.id} does not wait in the queue.", "See what does: accl queue")


def ensure_worker(root: Path) -> None:
    """Start a worker if something waits that may be started and none lives, and wait until it has begun its work.

    Raises:
        RunError: it does not begin.
    """
    _started[:] = [worker for worker in _started if worker.poll() is None]
    if worker_pid(root) is not None or not any(entry.ready for entry in waiting(root)):
        return
    log = queue_folder(root) / LOG
    try:
        full = log.is_file() and log.stat().st_size > LOG_LIMIT
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | (os.O_TRUNC if full else 0)
        with open(open_regular(log, flags), "ab") as output:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "accl.launch.worker", str(root.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=root,
                env=process.environment(),
            )
    except OSError as error:
        raise RunError(f"The worker of the queue cannot be started ({error.strerror}).", f"See: {log}") from error
    _started.append(worker)
    deadline = time.monotonic() + UP_S
    while worker_pid(root) is None and worker.poll() is None:
        if time.monotonic() > deadline:
            raise RunError(f"The worker of the queue did not begin within {UP_S:g} s.", f"See: {log}")
        time.sleep(LOOK_S)
    if worker.poll():
        raise RunError(f"The worker of the queue ended with exit code {worker.returncode}.", f"See: {log}")


def worker_pid(root: Path) -> int | None:
    """Return the process id of the worker of a folder, 0 where it does not say; None when none lives."""
    try:
        descriptor = open_regular(root / FOLDER / LOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        said = os.pread(descriptor, PID_BYTES, 0).strip()
        return int(said) if said.isdigit() else 0
    except OSError:
        return None
    finally:
        os.close(descriptor)


def take_worker_lock(root: Path) -> int | None:
    """Become the worker of a folder: return the descriptor of its lock, held until it is closed; None if one lives.

    Raises:
        RunError: the lock cannot be made, or the file system has none.
    """
    path = queue_folder(root) / LOCK
    try:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise RunError(f"{path} cannot be opened ({error.strerror}).", "Is the runs folder yours?") from error
    try:
        lock_within(descriptor, process.POLL_EVERY_S)  # somebody may look at it, for an instant
        os.ftruncate(descriptor, os.pwrite(descriptor, b"%d\n" % os.getpid(), 0))
        return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        what = f"{path} cannot be locked ({error.strerror}), and without a lock a run could be started twice."
        raise RunError(what, "Start the runs one by one: accl resume RUN") from error


def queue_folder(root: Path) -> Path:
    """Return the folder with the lock and the log of the worker, which is made when it is missing.

    Raises:
        BusyError, RunError: it cannot be made, or is a link.
    """
    folder = root / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made ({error.strerror}).", "Is the runs folder yours?") from error
    if folder.is_symlink():
        raise DamagedError(f"{folder} is a symbolic link.", "Move it out of the way.")
    return folder
