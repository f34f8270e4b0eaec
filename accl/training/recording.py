"""Record evaluations and the curriculum of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch

from accl.store.rows import RowWriter
from accl.store.schema import PHASE_SECONDS, TESTED_STEP, VALIDATION_STEP
from accl.training.context import TrainingContext
from accl.training.evaluate import Evaluated
from accl.training.report import Reporter


class Journal(Protocol):
    """Where an evaluation is recorded: a `accl.training.report.Reporter`, or what stands in for it after training."""

    @property
    def recorder(self) -> RowWriter:
        """Takes the rows."""

    @property
    def seconds(self) -> float:
        """Running time of the run."""

    def latest(self, values: dict[str, float]) -> None:
        """Update the newest values of the metrics that tables of runs show."""

    def say(self, line: str) -> None:
        """Print a line on the console log."""


def record_evaluation(context: TrainingContext, reporter: Journal, step: int, split: str, result: Evaluated) -> None:
    """Record the metrics of an evaluated split, overall and by task, and print them on the console."""
    recorder, metrics = reporter.recorder, result.metrics()
    recorder.evaluation(step, split, {"n": len(result.gold), **metrics})
    recorder.task_evaluations((step, split, task, n, correct) for task, n, correct in result.per_task())
    recorder.metrics(
        step,
        step / context.steps_per_epoch,
        reporter.seconds,
        {
            f"{split}/loss": metrics["loss"],
            f"{split}/accuracy": metrics["accuracy"],
            **{f"{split}/{name}": share for name, share in result.letter_shares().items()},
        },
    )
    reporter.latest({f"{split}/accuracy": metrics["accuracy"]})
    line = f"step {step}: {split} accuracy {metrics['accuracy']:.4f}, loss {metrics['loss']:.4f}"
    reporter.say(line)


def record_best_validation(context: TrainingContext, recorder: RowWriter, step: int, result: Evaluated) -> None:
    """Record the answers of the best validation so far, in place of those before."""
    recorder.meta({VALIDATION_STEP: str(step)})
    record_answers(context, recorder, "validation", result)


def record_answers(context: TrainingContext, recorder: RowWriter, split: str, result: Evaluated) -> None:
    """Record every answer of an evaluated split, and the questions themselves."""
    columns = (result.task, result.gold, result.predicted, result.probabilities.round(6))
    answers, asked = [], []
    for q, task, gold, predicted, probabilities, neighbours in zip(
        result.questions, *(column.tolist() for column in columns), result.neighbours, strict=True
    ):
        question = context.questions[q]
        answers.append((split, question.id, task, gold, predicted, probabilities))
        asked.append((question.id, task, question.text, list(question.options), gold, neighbours))
    recorder.predictions(answers)
    recorder.questions(asked)


def record_test(context: TrainingContext, reporter: Journal, step: int, tested_step: int, result: Evaluated) -> None:
    """Record the test: its metrics, every answer for paired tests, and the confusion of its embeddings.

    Args:
        step: the last one of the run. tested_step: that of the weights, which validation chose.
    """
    record_evaluation(context, reporter, step, "test", result)
    recorder = reporter.recorder
    record_answers(context, recorder, "test", result)
    for kind, values_KK, counts_KK in (
        ("similarity/test", result.similarity, result.pairs),
        ("prototype/test", result.prototype, result.assigned),
    ):
        recorder.confusion(step, kind, values_KK.ravel().tolist(), counts_KK.ravel().tolist())
    recorder.meta({TESTED_STEP: str(tested_step)})  # the last row: with it the test is whole


def record_speed(
    context: TrainingContext, recorder: RowWriter, step: int, training_seconds: float, runs: int = 1
) -> None:
    """Record how long training took, and the GPU memory that it needed: its share if several runs share the process.

    Tensors need the peak. Held from others is more: what torch keeps for streams and graphs, and never gives back.
    """
    if (device := context.placement.device).type == "cuda":
        peak, held = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        recorder.meta({"peak_gpu_memory_bytes": str(peak // runs), "held_gpu_memory_bytes": str(held // runs)})
    trained = step * context.config.train.batch_size
    recorder.meta(
        {
            "training_seconds": f"{training_seconds:.3f}",
            "milliseconds_per_step": f"{1000 * training_seconds / step:.3f}",
            "questions_per_second": f"{trained / max(training_seconds, 1e-9):.3f}",
        }
    )


def record_phases(recorder: RowWriter, seconds: Mapping[str, float]) -> None:
    """Record the seconds of each phase of the process that ended the run, from its start to here."""
    recorder.meta({f"{PHASE_SECONDS}{name}": f"{value:.3f}" for name, value in seconds.items()})


def record_curriculum(context: TrainingContext, reporter: Reporter, step: int) -> None:
    """Record the task weights in force after ``step``, and exp of their entropy: how many tasks they amount to."""
    curriculum, recorder = context.curriculum, reporter.recorder
    weights = curriculum.weights
    recorder.curriculum(step, curriculum.name(step), weights.tolist(), context.sampler.drawn.tolist())
    entropy = -sum(p * math.log(p) for p in weights.tolist() if p > 0)
    effective = math.exp(entropy)
    recorder.metrics(step, step / context.steps_per_epoch, reporter.seconds, {"curriculum/effective_tasks": effective})
    reporter.alerts.effective_tasks(step, effective, context.tasks)
