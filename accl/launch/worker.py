"""The worker of a folder of runs, ``python -m accl.launch.worker ROOT``: it starts what waits until nothing does.

There is one worker for each folder; its lock tells. It holds nothing that is not in the files of the runs: when it
dies, the trainers go on, and the next worker finds them by their locks and counts them as taking their place.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from accl.errors import INTERRUPTED, AcclError, BusyError, RunError
from accl.launch import companions, gpus, places, process, queue
from accl.launch.companions import Seat
from accl.launch.gpus import Gpu
from accl.launch.places import Demand, Occupant, Place, describe, find_place
from accl.launch.queue import Entry
from accl.store.config_values import config_value
from accl.store.experiment import read_experiment
from accl.store.rundir import RunDir, run_folders
from accl.store.state import RunState, State
from accl.store.summary import Summary, SummaryReader, numbers, read_summaries
from accl.store.waiting import Waiting
from accl.text import printable, shortened

LOOK_EVERY_S = 1.0
ENDS_EVERY_S = 0.05  # between two looks at the processes of trainers alone
BUSY_SHARE = 20  # a look that takes long, at many runs or a slow disk, is followed by a pause so many times as long
QUICK_S = 30.0  # a run that fails sooner, or before its first step, would most likely fail again
AGAIN_S = 30.0  # a full disk may be emptied
LOADED_S = 60.0  # from then on a GPU's driver counts what a run takes of its memory
ASKED = 5  # runs, at most, for how much memory they took; one on the processor does not tell
# What torch held for a run; of one of an earlier version only what its tensors took is known, which was less.
HELD, PEAK, HELD_BY_PEAK = "held_gpu_memory_bytes", "peak_gpu_memory_bytes", 1.5
# Keys whose values decide how much memory a run needs, so that one with equal ones tells it.
SIZES = ("profile", "model.name", "data.max_length", "train.batch_size", "train.precision")


class Worker:
    """The worker of a folder, which holds its lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._visible: list[Gpu] = []
        self._readers: dict[RunDir, SummaryReader] = {}
        self._trainers: dict[RunDir, subprocess.Popen[bytes]] = {}
        self._training: set[RunDir] = set()  # at the last look, whoever started them
        self._told: set[RunDir] = set()  # of which the log says that they find no place
        self._later: dict[RunDir, float] = {}  # cannot be started, nor written to say so: when that is tried again

    def work(self) -> None:
        """Start what waits, one look after the other, until nothing waits and all that was started has ended."""
        while True:
            begun = time.monotonic()
            try:
                if not self.look():
                    return
            except BusyError as error:  # a disk that does not answer at the moment
                say(f"{error}")
            self._rest(max(LOOK_EVERY_S, BUSY_SHARE * (time.monotonic() - begun)))

    def _rest(self, seconds: float) -> None:
        """Pause until the next look, or until a trainer ends, whose place the next run may take."""
        end = time.monotonic() + seconds
        living = [trainer for trainer in set(self._trainers.values()) if trainer.poll() is None]
        while (left := end - time.monotonic()) > 0 and all(trainer.poll() is None for trainer in living):
            time.sleep(min(left, ENDS_EVERY_S))

    def look(self) -> bool:
        """Start the runs that there are places for; return whether there is anything left to wait for."""
        summaries = self._read()
        training = [summary for summary in summaries if _trains_here(summary)]
        self._pause_after_failures(summaries, {summary.run for summary in training})
        ready = [each for each in queue.waiting(self.root) if each.ready]
        self._training = {summary.run for summary in training}
        now = time.monotonic()
        if startable := [each for each in ready if self._later.get(each.run, now) <= now]:
            self._start(startable, training, {summary.run: summary for summary in summaries})
        self._trainers = {run: trainer for run, trainer in self._trainers.items() if trainer.poll() is None}
        return bool(ready or self._trainers)

    def _read(self) -> list[Summary]:
        runs = run_folders(self.root)
        self._readers = {run: self._readers.get(run) or SummaryReader(run) for run in runs}
        return read_summaries(list(self._readers.values()), time.time())

    def _start(self, ready: list[Entry], training: list[Summary], summaries: dict[RunDir, Summary]) -> None:
        """Start runs in their order: none passes another that waits for the same kind of place."""
        self._visible = gpus.gpus()
        occupants = [self._occupant(summary, summaries) for summary in training]
        beside = Counter(occupant.gpu for occupant in occupants)
        full: set[bool] = set()  # whether there is no place left: for those on a GPU, and for the others
        seats: list[Seat] = []
        for entry in ready:
            if (summary := summaries.get(entry.run)) is None or entry.waiting is None:
                continue
            on_gpu = self._on_gpu(summary)
            if on_gpu in full:
                continue
            held = self._held(summary, summaries) if on_gpu else None
            demand = Demand(on_gpu, held, entry.waiting.per_gpu, entry.waiting.jobs)
            loads = [gpus.load(gpu) for gpu in self._visible] if on_gpu else []
            place = find_place(demand, occupants, loads)
            if place is None:
                full.add(on_gpu)
                if not occupants:  # nothing of ours, of which the list of the queue would tell, is in the way
                    self._say_once(entry.run, f"{entry.run.id} finds no place: {describe(demand, loads)}")
                continue
            likeness = companions.likeness(entry.waiting, summary.config) if on_gpu else None
            if likeness is not None:
                seats.append(Seat(entry.run, entry.waiting, place, likeness))
            elif not self._launch([entry.run], entry.waiting, place):
                continue
            occupants.append(Occupant(place.gpu, held if on_gpu else 0.0))
        for batch in companions.starting(seats, beside, True in full):
            self._launch([seat.run for seat in batch], batch[0].waiting, batch[0].place)

    def _launch(self, runs: list[RunDir], waiting: Waiting, place: Place) -> bool:
        """Start a process for runs of one place; return whether any of them trains there now."""
        turn = process.Turn(waiting.command, waiting.folder, place.variables)
        try:
            trainer, refused = process.start_together(runs, turn)
        except (AcclError, OSError) as error:
            trainer, refused = None, dict.fromkeys(runs, error)
        for run, why in refused.items():
            if isinstance(why, BusyError):
                say(f"{run.id} is left alone: {why}")
            else:
                self._refuse(run, why)
        if trainer is None:
            return False
        started = [run for run in runs if run not in refused]
        together = ", in one process" if len(started) > 1 else ""
        say(f"started {', '.join(run.id for run in started)} on {place.words}{together}")
        self._training.update(started)
        self._trainers.update(dict.fromkeys(started, trainer))
        return True

    def _say_once(self, run: RunDir, words: str) -> None:
        if run not in self._told:
            self._told.add(run)
            say(words)

    def _on_gpu(self, summary: Summary) -> bool:
        return places.trains_on_gpu(config_value(summary.config, "train.device"), self._visible)

    def _occupant(self, summary: Summary, summaries: dict[RunDir, Summary]) -> Occupant:
        if summary.state is None or not self._on_gpu(summary):
            return Occupant()
        computes = time.time() - summary.state.started > LOADED_S
        return Occupant(places.gpu_of(summary.state), 0.0 if computes else self._held(summary, summaries))

    def _held(self, like: Summary, summaries: dict[RunDir, Summary]) -> float | None:
        """Return the GPU memory that the newest finished run of the same size took."""
        from accl.store.reader import query  # here: without a GPU nothing is read from any database

        finished = [each for each in summaries.values() if each.has_finished]
        alike = [each for each in finished if _sizes(each) == _sizes(like)]
        for other in sorted(alike, key=lambda summary: summary.age_key, reverse=True)[:ASKED]:
            with suppress(AcclError):
                [rows] = query(
                    other.run.database, ("SELECT key, value FROM run.meta WHERE key IN (?, ?)", (HELD, PEAK))
                )
                if found := numbers(dict(rows), (HELD, PEAK)):
                    return found[HELD] if HELD in found else HELD_BY_PEAK * found[PEAK]
        return None

    def _pause_after_failures(self, summaries: list[Summary], training: set[RunDir]) -> None:
        for summary in summaries:
            if summary.run in self._training - training and summary.state and _failed_quickly(summary.state):
                state = summary.state
                after = max(0.0, state.ended - state.started)
                reason = f"{summary.run.id} {state.state} after {after:.0f} s: {state.reason}"
                self._pause(summary.experiment, reason)

    def _pause(self, experiment: str, reason: str) -> None:
        """Pause what waits of an experiment; runs of none have nothing in common."""
        say(reason)
        for entry in queue.waiting(self.root) if experiment else []:
            if entry.ready and read_experiment(entry.run) == experiment:
                with suppress(RunError):
                    queue.pause(self.root, [entry.run], reason)
                    say(f"paused {entry.run.id}")

    def _refuse(self, run: RunDir, error: Exception) -> None:
        """Pause a run that cannot be started, with its experiment."""
        reason = f"{run.id} cannot be started: {error}"
        self._pause(read_experiment(run), reason)
        try:
            queue.pause(self.root, [run], str(error))
        except RunError as why:
            self._later[run] = time.monotonic() + AGAIN_S
            say(f"{why}")


def _trains_here(summary: Summary) -> bool:
    state = summary.state
    if state is None or state.host not in ("", socket.gethostname()):
        return False
    return state.state.trains


def _failed_quickly(state: RunState) -> bool:
    """Return whether a run failed, or was refused, so early that those like it would fail as well."""
    refused = state.state is State.STOPPED and state.exit_code not in (None, 0, INTERRUPTED, 130)
    if not refused and state.state not in (State.FAILED, State.CRASHED):
        return False
    return state.step == 0 or state.ended - state.started < QUICK_S


def _sizes(summary: Summary) -> tuple[object, ...]:
    profile = summary.setup.profile if summary.setup else None
    return (profile, *(config_value(summary.config, key) for key in SIZES[1:]))


def say(line: str) -> None:
    """Print a line with the time on the worker's log, unless its disk is full."""
    with suppress(OSError):
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {printable(shortened(line))}", flush=True)  # noqa: T201


def main(root: Path) -> int:
    """Be the worker of a folder unless it has one, and return the exit code."""
    try:
        while (lock := queue.take_worker_lock(root)) is not None:
            say(f"worker {os.getpid()} of {root}")
            Worker(root).work()
            os.close(lock)
            # Who came between the last look and this found a worker that was alive.
            if not any(entry.ready for entry in queue.waiting(root)):
                say("nothing waits any more")
                break
    except AcclError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
