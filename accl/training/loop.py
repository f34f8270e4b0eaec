"""The training loop of one run."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import torch

from accl.errors import DamagedError, TrainingError
from accl.store.manifest import MANIFEST, folder_name
from accl.store.rundir import RunDir
from accl.store.state import State
from accl.store.tested import TEST_EVENT, look_words
from accl.training import checkpoint
from accl.training.backends.backend import StepBackend, StepMetrics
from accl.training.checkpoint import Files, Progress, Target
from accl.training.context import TrainingContext
from accl.training.evaluate import Evaluated
from accl.training.interrupt import Interrupt, StoppedEarly
from accl.training.optim import learning_rate
from accl.training.phases import SAVING
from accl.training.recording import (
    record_best_validation,
    record_curriculum,
    record_evaluation,
    record_phases,
    record_speed,
    record_test,
)
from accl.training.report import Reporter
from accl.training.saver import Saver
from accl.training.testing import evaluate_split, load_best

# Metrics stay on the device for so many steps or seconds, and leave it together: each look at it waits for it.
LOG_STEPS = 50
LOG_SECONDS = 0.5


class Trainer:
    """Trains one run to its end, or until it is interrupted.

    Args:
        runs: number of runs that share the process, this one among them.
    """

    def __init__(
        self,
        run: RunDir,
        context: TrainingContext,
        backend: StepBackend,
        reporter: Reporter,
        interrupt: Interrupt,
        runs: int = 1,
    ) -> None:
        self.run, self.context, self.backend = run, context, backend
        self.reporter, self.recorder, self.interrupt, self._runs = reporter, reporter.recorder, interrupt, runs
        self.step = 0
        self.training_seconds = 0.0
        self.best_score, self.best_step = -1.0, 0
        self._validated = True  # False while the validation of this step is due
        self._pending: list[StepMetrics] = []  # metrics of the latest steps, still on the device
        self._last_recorded = time.monotonic()
        self._buffers: dict[str, torch.nn.Module] = {"curriculum": context.curriculum.state}
        if context.bank is not None:
            self._buffers["bank"] = context.bank
        self._run_id = run.made_as()
        patience_s = 60 * context.config.train.max_unsaved_minutes
        # On a CPU steps take so long that waiting costs nothing, and the copy would take memory from the model.
        self._saver = Saver(run, reporter, interrupt, patience_s, beside=context.placement.device.type == "cuda")

    def train(self) -> bool:
        """Run to the end and test, unless that is left for later; False when interrupted before."""
        try:
            return self._train()
        finally:
            self._saver.close()

    def _train(self) -> bool:
        context = self.context
        # A run that was killed before its first checkpoint has the step that it had reached.
        self.reporter.update(state=State.RUNNING, step=self.step, total_steps=context.total_steps)
        self.reporter.phase("training")
        if self.step == 0:
            record_curriculum(context, self.reporter, self.step)
        context.model.train()
        if not self._validated and not self._validate_and_save():
            return False
        while self.step < context.total_steps:
            began = time.monotonic()
            self._train_step()
            step = self.step
            if context.curriculum.should_update(step):
                context.curriculum.update(step)
                record_curriculum(context, self.reporter, step)
                self._record_confusion()
            self.training_seconds += time.monotonic() - began
            self._validated = not (step % context.config.eval.every == 0 or step == context.total_steps)
            if not self._validate_and_save():
                return False
        if context.config.eval.test and not self._test():
            return False
        record_speed(context, self.recorder, self.step, self.training_seconds, self._runs)
        record_phases(self.recorder, self.reporter.clock.seconds())
        if not context.config.eval.test:
            unread = f"eval.test=false: the test split is unread; read it with: accl test {self.run.typed}"
            self.reporter.event("info", "untested", unread)
        return True

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of this run, and forget what was recorded after it.

        Returns:
            False when the run has no checkpoint yet.

        Raises:
            DamagedError: there are checkpoints, and none is whole.
        """
        context, damaged = self.context, []
        used_rows = torch.from_numpy(context.assembler.used_tokens())
        numbers = len(context.sampler.state())
        target = Target(context.model, self._buffers, used_rows, numbers, context.tasks, self._run_id)
        folders = checkpoint.candidates(self.run.checkpoints, self.reporter.state.checkpoint_last)
        for folder in folders:
            try:
                progress, state = checkpoint.load(folder, target)
                break
            except DamagedError as error:
                damaged.append(error.what)
                self.reporter.event("warning", "checkpoint", f"{error.what} {folder.name} is passed over.")
        else:
            if not folders:
                return False
            raise DamagedError(
                f"{self.run.id} has no whole checkpoint to go on from. {damaged[0]}",
                f"Restore {folders[0]} from a backup, or train a new run.",
            )
        if not (folder / MANIFEST).exists():
            old = f"{folder.name} is of an earlier accl and carries no checksums: whether it is damaged is not known"
            self.reporter.event("warning", "checkpoint", old)
        self.backend.load_optimizer_state(state)
        self.backend.sync_weights()
        self.step = progress.step
        self.training_seconds = progress.training_seconds
        self.best_score, self.best_step = progress.best_score, progress.best_step
        self._validated = progress.validated
        self._saver.saved = progress
        context.sampler.restore(progress.sampler)
        context.curriculum.weights[:] = progress.weights
        self.reporter.restart_clock(progress.seconds)
        self.reporter.update(step=self.step, checkpoint_last=folder.name)
        self._warn_of_a_damaged_best()
        self.recorder.rewind(self.step, self._validated)
        return True

    def _warn_of_a_damaged_best(self) -> None:
        """Say now what would otherwise be said when the run is tested, perhaps after days."""
        try:
            if self.best_step:
                checkpoint.verify_model(self.run.checkpoints / folder_name(self.best_step))
        except DamagedError as error:
            found = f"the weights that validation chose so far are damaged, and cannot be tested: {error.what}"
            self.reporter.event("warning", "checkpoint", found)

    # Steps -----------------------------------------------------------------------------------------

    def _train_step(self) -> None:
        self._pending.append(self.backend.step(self.step + 1))
        self.step += 1
        self.reporter.update(step=self.step)
        if len(self._pending) >= LOG_STEPS or time.monotonic() - self._last_recorded > LOG_SECONDS:
            self._record_steps()

    def _record_steps(self) -> None:
        """Wait for the steps taken, and record their metrics.

        Raises:
            TrainingError: a loss is not finite.
        """
        if not self._pending:
            return
        config, epoch_length = self.context.config, self.context.steps_per_epoch
        names, count = self._pending[0].names, len(self._pending)
        rows = torch.stack([metrics.values_M for metrics in self._pending]).tolist()
        self._pending = []
        seconds, now = self.reporter.seconds, time.monotonic()
        steps_per_second = count / max(now - self._last_recorded, 1e-9)
        self._last_recorded = now
        for step, row in zip(range(self.step - count + 1, self.step + 1), rows, strict=True):
            metrics = dict(zip(names, row, strict=True))
            if not math.isfinite(metrics["loss"]):
                self.reporter.alerts.tell("nan", f"the loss is {metrics['loss']} at step {step}", "error")
                raise TrainingError(
                    f"The loss is {metrics['loss']} at step {step}.",
                    "Lower optim.lr, or look at train/grad_norm before it: accl tui",
                )
            finite = {f"train/{name}": value for name, value in metrics.items() if math.isfinite(value)}
            finite["train/lr"] = learning_rate(config.optim, step, self.context.total_steps)
            self.recorder.metrics(step, step / epoch_length, seconds, finite)
        at = names.index("classification" if "classification" in names else "loss")
        self.reporter.alerts.losses(self.step, [row[at] for row in rows])
        speed = steps_per_second * config.train.batch_size
        self.recorder.metrics(self.step, self.step / epoch_length, seconds, {"train/questions_per_second": speed})
        self.reporter.latest(
            {
                "train/loss": metrics["loss"],
                "train/accuracy": metrics["accuracy"],
                "questions_per_second": speed,
                "steps_per_second": steps_per_second,
            }
        )

    def _record_remaining_steps(self) -> None:
        began = time.monotonic()
        self._record_steps()
        self.training_seconds += time.monotonic() - began

    def _record_confusion(self) -> None:
        matrices = self.context.curriculum.matrices()
        host = torch.stack([matrix for pair in matrices.values() for matrix in pair]).cpu()
        for kind, (value_KK, count_KK) in zip(matrices, torch.split(host.flatten(1), 2), strict=True):
            self.recorder.confusion(self.step, kind, value_KK.numpy(), count_KK.int().numpy())

    # Between steps ---------------------------------------------------------------------------------

    def _validate_and_save(self) -> bool:
        """Validate and write a checkpoint where they are due; False when a stop was asked for, and all is saved."""
        train, last = self.context.config.train, self.step == self.context.total_steps
        self._saver.poll()
        if not self._validated:
            with suppress(StoppedEarly):  # the run validates as soon as it is resumed
                self._validate()
        self.interrupt.check_at_once()
        stopping = self.interrupt.asked  # once: a stop may be asked for at any moment
        if self.step % train.checkpoint_every == 0 or last or self._saver.due or stopping:
            self._checkpoint(required=last or stopping)
        return not stopping

    def _evaluate(self, split: str, limit: int | None) -> Evaluated:
        """Evaluate a split, or some of its questions, as `evaluate_split`.

        Raises:
            StoppedEarly: a stop was asked for; evaluations may take longer than whoever asked is willing to wait.
        """

        def progress() -> None:
            self.interrupt.check()
            self.reporter.update()

        return evaluate_split(self.context, self.backend, split, limit, progress)

    def _validate(self) -> None:
        self._record_remaining_steps()
        self.reporter.phase("validating")
        result = self._evaluate("validation", self.context.config.eval.max_questions)
        record_evaluation(self.context, self.reporter, self.step, "validation", result)
        self._validated = True
        if (accuracy := result.metric("accuracy")) > self.best_score:
            self.best_score, self.best_step = accuracy, self.step
            record_best_validation(self.context, self.recorder, self.step, result)
            self._checkpoint()
        self.reporter.latest({"validation/accuracy/best": self.best_score})
        self.reporter.phase(self._saver.doing)
        self._last_recorded = time.monotonic()

    def _test(self) -> bool:
        """Look at the test split once, with the weights that validation chose; False when interrupted before."""
        self.reporter.phase("testing")
        load_best(self.run, self.context, self.backend, self.best_step)
        try:
            result = self._evaluate("test", None)
        except StoppedEarly:
            return False
        record_test(self.context, self.reporter, self.step, self.best_step, result)
        self.reporter.event("info", TEST_EVENT, look_words(self.best_step))
        return True

    def _checkpoint(self, required: bool = False) -> None:
        """Write everything up to this step to disk."""
        self._record_remaining_steps()
        context = self.context
        progress = Progress(
            step=self.step,
            sampler=context.sampler.state(),
            weights=context.curriculum.weights.tolist(),
            seconds=self.reporter.seconds,
            training_seconds=self.training_seconds,
            best_score=self.best_score,
            best_step=self.best_step,
            run=self._run_id,
            validated=self._validated,
        )
        with self.reporter.clock.during(SAVING):
            self._saver.save(progress, self._files, required)

    def _files(self) -> Files:
        state = self.backend.optimizer_state()
        return checkpoint.files_of(self.context.model, state, self._buffers)
