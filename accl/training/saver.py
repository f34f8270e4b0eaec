"""Saving a run's checkpoints, and going on without them for a while where the disk takes none."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from accl.errors import RunError
from accl.store.manifest import MODEL, folder_name
from accl.store.rundir import RunDir
from accl.text import duration
from accl.training import checkpoint
from accl.training.checkpoint import Files, Progress
from accl.training.interrupt import Interrupt
from accl.training.report import Reporter
from accl.training.tensorfile import HostCopies

TRAINING = "training"
# Pause between two tries to save, and between two looks at whether a stop was asked for.
RETRY_S = 20.0
LOOK_S = 0.2
# A run that was asked to stop waits for room only so long: whoever asked is waiting, `accl stop` for two minutes.
STOP_PATIENCE_S = 60.0


@dataclass(frozen=True)
class _Write:
    """A checkpoint that is being written, from copies of its tensors."""

    progress: Progress
    files: Files
    done: Future[None]


class Saver:
    """Writes checkpoints and removes old ones.

    A disk that is full, or fails otherwise, does not end the run: saving is tried again at intervals while training
    goes on, and the weights that validation chose meanwhile wait in memory. A limit of the size of files ends it.

    Args:
        patience_s: seconds without success after which the run ends.
        beside: whether steps go on while a checkpoint is written, from a copy in the host's memory.

    Attributes:
        doing: phase of a run that trains, with what keeps it from saving.
        saved: what is on disk as the last checkpoint.
    """

    def __init__(
        self, run: RunDir, reporter: Reporter, interrupt: Interrupt, patience_s: float, beside: bool = False
    ) -> None:
        self._beside = beside
        self.run, self.reporter, self.interrupt, self.patience_s = run, reporter, interrupt, patience_s
        self.doing = TRAINING
        self.saved: Progress | None = None
        self._failing_since: float | None = None
        self._next_try = self._give_up = 0.0
        self._best: tuple[Progress, Files] | None = None  # chosen by validation and not on disk yet
        self._told: set[str] = set()
        self._copies = HostCopies()
        self._thread = ThreadPoolExecutor(1, "save")
        self._writing: _Write | None = None

    @property
    def due(self) -> bool:
        """Whether something could not be saved, and is to be tried again now."""
        failing = self._failing_since is not None or self.reporter.recorder.stuck_seconds > 0
        return failing and time.monotonic() >= self._next_try

    def save(self, progress: Progress, files: Callable[[], Files], required: bool = False) -> None:
        """Write a checkpoint and name it in ``state.json``; it may be on disk only after the next `settle`.

        Args:
            files: called for the tensors, unless the checkpoint is on disk already.
            required: whether to wait until it is on disk: nothing can follow that would save it later.

        Raises:
            RunError: it, or the one before it, could not be saved for too long.
        """
        if self._writing is not None and not required and _same(self._writing.progress, progress):
            return
        self.settle()
        # While the disk takes nothing, steps wait for each try: what could not be written is kept once only.
        if self._beside and not required and self._failing_since is None and self._best is None:
            if not self._is_saved(progress):
                copies = self._copies.take(files())
                done = self._thread.submit(self._write_and_prune, progress, copies)
                self._writing = _Write(progress, copies, done)
            return
        while True:
            try:
                self._write(progress, files)
                break
            except OSError as error:
                self._note_failure(progress, files, error, required)
            if not required:
                return
            self._wait()
        if self._failing_since is not None:
            self._failing_since = None
            self.doing = TRAINING
            self.reporter.update(phase=self.doing)
            self.reporter.event("info", "disk", f"step {progress.step} is saved: there is room on the disk again")
        self._prune(folder_name(progress.step))

    def poll(self) -> None:
        """Take note of a checkpoint whose writing has ended; call it after every step.

        Raises:
            RunError: as `save`.
        """
        if self._writing is not None and self._writing.done.done():
            self.settle()

    def settle(self) -> None:
        """Wait until the checkpoint that is being written is on disk, or could not be written.

        Raises:
            RunError: as `save`.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.done.result()
        except OSError as error:
            self._note_failure(writing.progress, lambda: writing.files, error, required=False)

    def close(self) -> None:
        """Wait for the thread that writes; what it could not write is lost."""
        self._thread.shutdown()

    def _write_and_prune(self, progress: Progress, files: Files) -> None:
        self._write(progress, lambda: files)
        self._prune(folder_name(progress.step))

    def _is_saved(self, progress: Progress) -> bool:
        """Return whether this checkpoint is on disk and was the last to be written."""
        there = (self.run.checkpoints / folder_name(progress.step)).exists()
        return self.saved is not None and _same(self.saved, progress) and there

    def _write(self, progress: Progress, files: Callable[[], Files]) -> None:
        root, name = self.run.checkpoints, folder_name(progress.step)
        recorder = self.reporter.recorder

        def finish_measurements() -> None:
            recorder.end_flush()
            if recorder.stuck_seconds > 0:
                raise OSError(errno.ENOSPC, "no room for measurements")

        # A resumed run must find the measurements of the steps before its checkpoint; they are written beside it.
        recorder.begin_flush()
        if self._best is not None and self._best[0].step == progress.best_step != progress.step:
            checkpoint.save(root, *self._best, finish_measurements)
        if self._is_saved(progress):
            finish_measurements()
        else:
            checkpoint.save(root, progress, files(), finish_measurements)
            self.saved = progress
        self._best = None
        best = folder_name(progress.best_step) if progress.best_step else ""
        self.reporter.update(checkpoint_last=name, checkpoint_best=best)
        self.reporter.save()

    def _note_failure(self, progress: Progress, files: Callable[[], Files], error: OSError, required: bool) -> None:
        now = time.monotonic()
        last = self.reporter.state.checkpoint_last or "the beginning"
        why = f"no checkpoint can be written ({error.strerror})"
        if error.errno == errno.EFBIG:  # waiting makes no difference
            hint = f"Raise the limit of the size of files (ulimit -f), then: accl resume {self.run.typed}"
            raise RunError(f"{why[0].upper()}{why[1:]}: what was trained after {last} is lost.", hint)
        if self._failing_since is None:
            self._failing_since, self._give_up = now, now + self.patience_s
            self.reporter.event("warning", "disk", f"{why}: training goes on, and only {last} is saved")
        if progress.best_step == progress.step and (self._best is None or self._best[0].step != progress.step):
            weights = {name: tensor.detach().cpu().clone() for name, tensor in files()[MODEL].items()}
            self._best = (progress, {MODEL: weights})
        if self.interrupt.asked and self._give_up > now + STOP_PATIENCE_S:
            self._give_up = now + STOP_PATIENCE_S
        if now >= self._give_up:
            raise RunError(
                f"For {duration(now - self._failing_since)} {why}: what was trained after {last} is lost.",
                f"Make room, then: accl resume {self.run.typed}",
            )
        self.doing = f"{'waiting to save' if required else TRAINING}, {why}"
        self.reporter.update(phase=self.doing)
        self._next_try = now + RETRY_S

    def _wait(self) -> None:
        """Sleep until the next try is due, or a stop is asked for."""
        asked = self.interrupt.asked
        while not self.due and self.interrupt.asked == asked:
            self.interrupt.check_at_once()
            time.sleep(LOOK_S)

    def _prune(self, last: str) -> None:
        try:
            left = checkpoint.prune(self.run.checkpoints, last)
            said = [f"{path} is a link: no checkpoint behind it is ever removed" for path in left]
        except OSError as error:
            said = [f"old checkpoints cannot be removed: {error}"]
        for message in set(said) - self._told:
            self.reporter.event("warning", "checkpoint", message)
        self._told |= set(said)


def _same(one: Progress, other: Progress) -> bool:
    """Return whether two checkpoints are the same but for the clocks."""
    return replace(one, seconds=other.seconds, training_seconds=other.training_seconds) == other
