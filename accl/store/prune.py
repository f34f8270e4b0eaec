"""Files of checkpoints that nothing needs any more.

A finished run needs the weights that validation chose, which were tested, and keeps those of its last step; optimizer
states and other checkpoints only served to go on. A run that ended otherwise needs its newest whole checkpoint to go
on from, and the weights that validation had chosen by then. Of what is in doubt nothing is removed, nor anything that
`accl.store.manifest` does not know for ours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from accl.errors import BusyError, DamagedError, RunError
from accl.store import manifest
from accl.store.files import read_text
from accl.store.lock import PRUNING
from accl.store.manifest import FILES, MANIFEST, MODEL, OPTIMIZER, PROGRESS, folder_name
from accl.store.rundir import RunDir
from accl.store.state import RunState, State, claim, observe, read_state

WEIGHTS = (MODEL, PROGRESS)


@dataclass(frozen=True)
class Removal:
    """Files of one checkpoint that can go: all of them, or the optimizer's; ``size`` in bytes."""

    folder: Path
    names: tuple[str, ...]
    size: int

    @property
    def words(self) -> str:
        """The removal in words."""
        step = f"{int(self.folder.name.removeprefix('step-')):,}"
        return f"optimizer of step {step}" if self.names == (OPTIMIZER,) else f"all of step {step}"


@dataclass(frozen=True)
class Prunable:
    """Files of a run that can be removed.

    Attributes:
        keeps: the whole checkpoint that the run would go on from; None for a finished run.
        partial: bytes of what a kill while saving left behind.
    """

    run: RunDir
    removals: tuple[Removal, ...] = ()
    keeps: Path | None = None
    partial: int = 0

    @property
    def size(self) -> int:
        """Bytes of all that can go."""
        return sum(removal.size for removal in self.removals) + self.partial

    @property
    def words(self) -> str:
        """All that can go in words."""
        parts = [removal.words for removal in self.removals]
        return ", ".join([*parts, *(["a checkpoint that was never finished"] if self.partial else [])])


def find_prunable(run: RunDir) -> Prunable:
    """Return what can be removed of a run that has ended.

    Raises:
        BusyError: it has not.
        DamagedError: what it needs cannot be told, or is not there.
        RunError: its state or its checkpoints cannot be read.
    """
    state = observe(run)
    if state.state.active:
        raise BusyError(f"{run.id} is {state.state}.", f"Stop it first: accl stop {run.typed}")
    return _find(run, state)


def prune_run(run: RunDir) -> Prunable:
    """Remove what can go of a run, as `find_prunable` finds it once no trainer can start any more; return what went.

    Raises:
        as `find_prunable`; DamagedError also if the checkpoint to go on from is not what was written.
    """
    lock = claim(run, PRUNING)
    try:
        if (state := read_state(run)).state is State.QUEUED:
            raise BusyError(f"{run.id} waits to be started.", "See: accl runs")
        found = _find(run, state)
        if found.keeps is not None and found.removals:
            manifest.verify(found.keeps)  # the others are what the run would fall back to
        try:
            for removal in found.removals:
                manifest.remove(removal.folder, removal.names)
            if found.partial:
                manifest.remove_partials(run.checkpoints)
        except OSError as error:
            raise _unusable(run, error, "removed") from error
        return found
    finally:
        lock.abandon()


def _find(run: RunDir, state: RunState) -> Prunable:
    try:
        if run.checkpoints.is_symlink():
            return Prunable(run)
        ours = [folder for folder in manifest.step_folders(run.checkpoints) if manifest.is_ours(folder)]
        partial = sum(_size(folder, (*FILES, MANIFEST)) for folder in manifest.partials(run.checkpoints))
    except OSError as error:
        raise _unusable(run, error, "read") from error
    if not ours:
        return Prunable(run, partial=partial)
    if state.state is State.FINISHED:
        best, newest = state.checkpoint_best, None
        weights = {best, state.checkpoint_last}
        if not best:
            raise DamagedError(f"{run.state} does not say which weights validation chose.", "Nothing is removed.")
    else:
        newest = next((folder for folder in ours if manifest.is_whole(folder)), None)
        if newest is None:
            raise DamagedError(f"{run.id} has no whole checkpoint to go on from.", "Nothing of it is removed.")
        best = _best_of(newest)
        weights = {best}
    if best and not manifest.is_whole(run.checkpoints / best, WEIGHTS):
        what = f"{run.checkpoints / best}, which validation chose, is missing or damaged."
        raise DamagedError(what, f"Nothing of {run.id} is removed.")
    removals = []
    for folder in ours:
        if newest is not None and folder.name >= newest.name:  # what follows it is overwritten when the run goes on
            continue
        names = (OPTIMIZER,) if folder.name in weights else FILES
        if size := _size(folder, names if names != FILES else (*FILES, MANIFEST)):
            removals.append(Removal(folder, names, size))
    return Prunable(run, tuple(removals), newest, partial)


def _best_of(folder: Path) -> str:
    """Return the name of the checkpoint that validation had chosen when one was written; empty before the first.

    Raises:
        DamagedError: the checkpoint does not say.
    """
    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        step = json.loads(read_text(folder / PROGRESS)).get("best_step")
        if type(step) is int and step >= 0:
            return folder_name(step) if step else ""
    raise DamagedError(f"{folder / PROGRESS} does not say which weights validation chose.", "Nothing is removed.")


def _size(folder: Path, names: Iterable[str]) -> int:
    size = 0
    for name in names:
        with suppress(FileNotFoundError):
            size += os.lstat(folder / name).st_size
    return size


def _unusable(run: RunDir, error: OSError, verb: str) -> RunError:
    path = error.filename or run.checkpoints
    return RunError(f"{path} cannot be {verb} ({error.strerror}).", "Is the run's folder yours?")
