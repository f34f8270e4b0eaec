"""Experiments in a folder of runs: the members that there are, how long others will take, and making those."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accl.config import Config
from accl.errors import BusyError, RunError
from accl.files import lock_within, open_regular
from accl.launch import process, queue
from accl.launch.plan import Action, Existing, Member
from accl.store.config_values import config_value
from accl.store.deadline import DEADLINE_S, each_within
from accl.store.experiment import read_experiment
from accl.store.rundir import RunDir, list_runs
from accl.store.state import State, observe
from accl.store.summary import Summary, as_problem

LOCK = "experiments.lock"  # in the folder of the queue
LOCK_S = 30.0  # for which another command is waited for


def read_members(root: Path, name: str) -> tuple[list[Existing], list[str]]:
    """Return the runs of an experiment, the oldest first, and a sentence on each that cannot be read.

    Raises:
        RunError, BusyError: the folder cannot be read.
    """
    members: list[Existing] = []
    notes: list[str] = []
    for run, answer in each_within(DEADLINE_S, lambda run: _read_member(run, name), list_runs(root)):
        if isinstance(answer, BaseException):
            problem = as_problem(answer, run.path)
            notes.append(f"{run.id} cannot be read and takes no part: {problem.what}")
        elif answer is not None:
            members.append(answer)
    return members, notes


def _read_member(run: RunDir, name: str) -> Existing | None:
    if read_experiment(run) != name:
        return None
    state = observe(run)
    fraction = min(1.0, state.step / state.total_steps) if state.total_steps else 0.0
    return Existing(run, run.load_config(), state.state, fraction)


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Keep other commands from making runs of an experiment in a folder meanwhile: two would make them twice.

    Raises:
        BusyError: another command does so for longer than `LOCK_S`.
        RunError: the folder cannot be made, written or locked.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = open_regular(queue.queue_folder(root) / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        what = f"The runs folder {root} cannot be written ({error.strerror})."
        raise RunError(what, "Choose another with --runs DIR or the environment variable ACCL_RUNS.") from error
    try:
        try:
            lock_within(descriptor, LOCK_S)
        except BlockingIOError as error:
            what = f"Another command is making the runs of an experiment in {root}."
            raise BusyError(what, "Try again in a moment.") from error
        except OSError as error:
            what = f"{root} cannot be locked ({error.strerror}), and runs could be made twice."
            raise RunError(what, "Use a folder on a local disk: --runs DIR") from error
        yield
    finally:
        os.close(descriptor)


def make_missing(
    root: Path, name: str, members: Sequence[Member], command: list[str], based_on: str = ""
) -> list[RunDir]:
    """Make the runs that an experiment lacks, and return those of all members, in their order.

    Args:
        based_on: as for `process.prepare`.

    Raises:
        RunError: the folder cannot be written.
    """
    return [
        member.run or process.prepare(root, member.config, command, experiment=name, based_on=based_on)
        for member in members
    ]


def submit(root: Path, runs: Sequence[RunDir], *, per_gpu: int = 1, jobs: int | None = None) -> None:
    """Put those runs that neither train nor have finished into the queue, and see to it that a worker lives.

    Raises:
        RunError: one cannot be read or written, or the worker does not start.
    """
    resting = [run for run in runs if _rests(run)]
    try:
        queue.enqueue(root, resting, per_gpu=per_gpu, jobs=jobs)
    except BusyError:  # the worker, or another command, has started one of them meanwhile
        for run in filter(_rests, resting):
            try:
                queue.enqueue(root, [run], per_gpu=per_gpu, jobs=jobs)
            except BusyError:
                if _rests(run):
                    raise
    queue.ensure_worker(root)


def _rests(run: RunDir) -> bool:
    state = observe(run).state
    return state is State.QUEUED or state.ended_early


@dataclass(frozen=True)
class Speed:
    """How fast a run went: steps per second, and seconds beside the steps, for its start and its evaluations."""

    run: RunDir
    steps_per_second: float
    beside: float


class Speeds:
    """The newest speeds seen on this machine, by profile and encoder; of the same recipe where there is one."""

    def __init__(self, summaries: Iterable[Summary]) -> None:
        self._seen: dict[tuple[str, str, str], Speed] = {}
        seen = [(summary, _speed(summary)) for summary in summaries]
        for summary, speed in sorted(seen, key=lambda entry: _rank(entry[0])):
            if speed is not None and summary.setup is not None:
                model = str(config_value(summary.config, "model.name"))
                for recipe in (summary.setup.recipe, ""):
                    self._seen[summary.setup.profile, model, recipe] = speed

    def find(self, config: Config) -> Speed | None:
        """Return the speed to expect of a configuration; None where nothing like it has been trained here."""
        key = config.profile, config.model.name
        return self._seen.get((*key, config.recipe)) or self._seen.get((*key, ""))

    def seconds(self, member: Member, steps: int) -> float | None:
        """Return how long a member with so many steps in all will take from now on; None if that is not known."""
        if member.action is Action.KEEP:
            return 0.0
        speed = self.find(member.config)
        return None if speed is None else member.left * steps / speed.steps_per_second + speed.beside


def _rank(summary: Summary) -> tuple[bool, float]:
    state = summary.state
    return (state is not None and state.state is State.FINISHED, state.started if state is not None else 0.0)


def _speed(summary: Summary) -> Speed | None:
    state = summary.state
    if state is None or state.host != socket.gethostname():
        return None
    steps_per_second = state.latest.get("steps_per_second", 0.0)
    if not 0 < steps_per_second < float("inf"):
        return None
    finished = state.state is State.FINISHED
    beside = max(0.0, state.elapsed - state.step / steps_per_second) if finished else 0.0
    return Speed(summary.run, steps_per_second, beside)
