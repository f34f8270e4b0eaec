"""The training loop of one run."""

from __future__ import annotations

import math
import time
from functools import partial

import torch
from torch import Tensor

from accl.errors import TrainingError
from accl.store.rundir import RunDir
from accl.store.state import State
from accl.training import checkpoint
from accl.training.backends.select import StepPath
from accl.training.checkpoint import Progress
from accl.training.evaluate import Evaluated, evaluate
from accl.training.interrupt import Interrupt
from accl.training.objective import FIGURES
from accl.training.optim import learning_rate
from accl.training.outbox import Outbox
from accl.training.report import Reporter
from accl.training.setup import Workbench

# Figures wait on the device until so many steps or seconds have passed, and leave it together.
LOG_STEPS = 50
LOG_SECONDS = 0.5
# Questions of one evaluation batch, as a multiple of the training batch: no gradients, so there is room.
EVALUATION_BATCHES = 4


class Trainer:
    """Trains one run to its end, or until it is interrupted."""

    def __init__(self, run: RunDir, bench: Workbench, path: StepPath, reporter: Reporter, interrupt: Interrupt) -> None:
        self.run, self.bench, self.reporter, self.interrupt = run, bench, reporter, interrupt
        self.path = path
        self.recorder = reporter.recorder
        self.step = 0
        self.training_seconds = 0.0
        self.best_score, self.best_step = -1.0, 0
        self._outbox = Outbox(bench.placement.device)
        self._pending: list[tuple[int, float, Tensor]] = []
        self._sent = self._arrived = time.monotonic()
        """When figures last left the device, and when some were last recorded."""
        self._buffers: dict[str, torch.nn.Module] = {"curriculum": bench.curriculum.state}
        if bench.bank is not None:
            self._buffers["bank"] = bench.bank

    def train(self) -> bool:
        """Run to the end and test; False when interrupted before."""
        config, bench = self.bench.config, self.bench
        self.reporter.update(state=State.RUNNING, total_steps=bench.total_steps)
        self.reporter.phase("training")
        if self.step == 0:
            self._record_curriculum()
        bench.model.train()
        while self.step < bench.total_steps:
            began = time.monotonic()
            self._train_step()
            step = self.step
            if bench.curriculum.should_update(step):
                bench.curriculum.update(step)
                self._record_curriculum()
                self._record_confusion()
            self.training_seconds += time.monotonic() - began
            last = step == bench.total_steps
            if step % config.eval.every == 0 or last:
                self._validate()
            if step % config.train.checkpoint_every == 0 or last:
                self._checkpoint()
            if self.interrupt.asked and not last:
                self._drain()
                self._checkpoint()
                return False
        self._test()
        return True

    def resume(self, name: str) -> None:
        """Go on from a checkpoint of this run: forget what was recorded after it."""
        progress = checkpoint.load(self.run.checkpoints / name, self.bench.model, self.path.optimizer, self._buffers)
        self.path.refresh()
        self.step = progress.step
        self.training_seconds = progress.training_seconds
        self.best_score, self.best_step = progress.best_score, progress.best_step
        self.bench.sampler.restore(progress.sampler)
        self.bench.curriculum.weights[:] = progress.weights
        self.reporter.restart_clock(progress.seconds)
        self.reporter.update(step=self.step)
        self.recorder.rewind(self.step)

    # One step --------------------------------------------------------------------------------------

    def _train_step(self) -> None:
        config, bench = self.bench.config, self.bench
        step = self.step + 1
        draw = bench.sampler.draw(step, bench.curriculum.weights)
        rate = learning_rate(config.optim, step, bench.total_steps)
        figures = self.path.step(step, draw, rate)

        self.step = step
        self._pending.append((step, rate, figures))
        self.reporter.update(step=step)
        if len(self._pending) >= LOG_STEPS or time.monotonic() - self._sent > LOG_SECONDS:
            self._send()
        self._outbox.deliver()

    def _send(self) -> None:
        """Let waiting figures leave the device, to be recorded when they arrive."""
        if self._pending:
            steps, rates, figures = zip(*self._pending, strict=True)
            self._outbox.send(torch.stack(figures), partial(self._record_steps, steps, rates))
            self._pending = []
        self._sent = time.monotonic()

    def _drain(self) -> None:
        """Wait for all steps taken, and record their figures.

        Raises:
            TrainingError: a loss is not finite.
        """
        began = time.monotonic()
        self._send()
        self._outbox.drain()
        self.training_seconds += time.monotonic() - began

    def _record_steps(self, steps: tuple[int, ...], rates: tuple[float, ...], rows: Tensor) -> None:
        seconds, now = self.reporter.seconds, time.monotonic()
        pace = len(steps) / max(now - self._arrived, 1e-9)  # steps per second
        self._arrived = now
        speed = pace * self.bench.config.train.batch_size
        epoch_length = self.bench.steps_per_epoch
        for step, rate, row in zip(steps, rates, rows.tolist(), strict=True):
            named = dict(zip((*FIGURES, "grad_norm"), row, strict=True))
            if not math.isfinite(named["loss"]):
                raise TrainingError(
                    f"The loss is {named['loss']} at step {step}.",
                    "Lower optim.lr, or look at train/grad_norm before it: accl tui",
                )
            values = {f"train/{name}": value for name, value in named.items() if math.isfinite(value)}
            values["train/lr"] = rate
            self.recorder.metrics(step, step / epoch_length, seconds, values)
        self.recorder.metrics(steps[-1], steps[-1] / epoch_length, seconds, {"train/questions_per_second": speed})
        self.reporter.latest(
            {
                "train/loss": named["loss"],
                "train/accuracy": named["accuracy"],
                "questions_per_second": speed,
                "steps_per_second": pace,
            }
        )

    # Around the steps ------------------------------------------------------------------------------

    def _evaluate(self, split: str, limit: int | None) -> Evaluated:
        bench = self.bench
        questions = bench.positions[split]
        if limit is not None and limit < len(questions):
            # The same spread over tasks each time: splits lie in the order of tasks.
            questions = questions[torch.linspace(0, len(questions) - 1, limit).long().numpy()]
        bench.model.eval()
        result = evaluate(
            self.path.forward,
            bench.assembler,
            questions,
            bench.tasks,
            bench.placement.device,
            batch_size=EVALUATION_BATCHES * bench.config.train.batch_size,
            progress=self.reporter.update,
        )
        bench.model.train()
        return result

    def _validate(self) -> None:
        self._drain()
        self.reporter.phase("validating")
        result = self._evaluate("validation", self.bench.config.eval.max_questions)
        self._record_evaluation("validation", result)
        if result.accuracy > self.best_score:
            self.best_score, self.best_step = result.accuracy, self.step
            self._checkpoint()
        self.reporter.phase("training")
        self._sent = self._arrived = time.monotonic()

    def _test(self) -> None:
        """The one look at the test split, with the weights that validation chose."""
        self.reporter.phase("testing")
        checkpoint.load_model(self.run.checkpoints / checkpoint.folder_name(self.best_step), self.bench.model)
        self.path.refresh()
        result = self._evaluate("test", None)
        self._record_evaluation("test", result)
        questions = self.bench.questions
        self.recorder.predictions(
            ("test", questions[q].id, int(task), int(gold), int(guess), [round(float(p), 6) for p in row])
            for q, task, gold, guess, row in zip(
                result.questions, result.task, result.gold, result.predicted, result.probabilities, strict=True
            )
        )
        self.recorder.confusion(
            self.step, "similarity/test", result.similarity.ravel().tolist(), result.pairs.ravel().tolist()
        )
        self.recorder.confusion(
            self.step, "prototype/test", result.prototype.ravel().tolist(), result.assigned.ravel().tolist()
        )
        if self.bench.placement.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.bench.placement.device)
            self.recorder.meta({"peak_gpu_memory_bytes": str(peak)})
        trained = self.step * self.bench.config.train.batch_size
        self.recorder.meta(
            {
                "training_seconds": f"{self.training_seconds:.3f}",
                "milliseconds_per_step": f"{1000 * self.training_seconds / self.step:.3f}",
                "questions_per_second": f"{trained / max(self.training_seconds, 1e-9):.3f}",
                "tested_step": str(self.best_step),
            }
        )

    def _record_evaluation(self, split: str, result: Evaluated) -> None:
        step, seconds = self.step, self.reporter.seconds
        self.recorder.evaluation(
            step,
            split,
            len(result.gold),
            result.loss,
            result.accuracy,
            result.macro_accuracy,
            result.ece,
            result.brier,
        )
        self.recorder.task_evaluations((step, split, task, n, correct) for task, n, correct in result.per_task())
        self.recorder.metrics(
            step,
            step / self.bench.steps_per_epoch,
            seconds,
            {
                f"{split}/loss": result.loss,
                f"{split}/accuracy": result.accuracy,
                **{f"{split}/{name}": share for name, share in result.letter_shares().items()},
            },
        )
        self.reporter.latest({f"{split}/accuracy": result.accuracy})
        print(f"step {step}: {split} accuracy {result.accuracy:.4f}, loss {result.loss:.4f}", flush=True)  # noqa: T201

    def _record_curriculum(self) -> None:
        curriculum = self.bench.curriculum
        weights = curriculum.weights
        self.recorder.curriculum(
            self.step, curriculum.name(self.step), weights.tolist(), self.bench.sampler.drawn.tolist()
        )
        used = weights[weights > 0]
        effective = math.exp(-float((used * torch.from_numpy(used).log().numpy()).sum()))
        self.recorder.metrics(
            self.step,
            self.step / self.bench.steps_per_epoch,
            self.reporter.seconds,
            {"curriculum/effective_tasks": effective},
        )

    def _record_confusion(self) -> None:
        matrices = self.bench.curriculum.matrices()
        record = partial(self._put_confusion, self.step, list(matrices))
        self._outbox.send(torch.stack([matrix for pair in matrices.values() for matrix in pair]), record)

    def _put_confusion(self, step: int, kinds: list[str], found: Tensor) -> None:
        for kind, (value_KK, count_KK) in zip(kinds, torch.split(found.flatten(1), 2), strict=True):
            self.recorder.confusion(step, kind, value_KK.tolist(), count_KK.long().tolist())

    def _checkpoint(self) -> None:
        """Everything up to this step, on disk. Measurements first: a resumed run must find them."""
        self._drain()
        self.recorder.flush()
        self.path.settle()
        bench = self.bench
        progress = Progress(
            step=self.step,
            sampler=bench.sampler.state(),
            weights=bench.curriculum.weights.tolist(),
            seconds=self.reporter.seconds,
            training_seconds=self.training_seconds,
            best_score=self.best_score,
            best_step=self.best_step,
        )
        name = checkpoint.folder_name(self.step)
        if self.reporter.state.checkpoint_last != name or not (self.run.checkpoints / name).exists():
            checkpoint.save(self.run.checkpoints, progress, bench.model, self.path.optimizer, self._buffers)
        best = checkpoint.folder_name(self.best_step) if self.best_step else ""
        self.reporter.update(checkpoint_last=name, checkpoint_best=best)
        self.reporter.save()
        checkpoint.prune(self.run.checkpoints, name, best)
