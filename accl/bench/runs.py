"""Synthetic runs to measure on: real run folders, written by the code that a training process uses."""

from __future__ import annotations

import math
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accl.config import dump, resolve
from accl.data.subjects import MMLU
from accl.store.rundir import RunDir, create_run
from accl.store.state import RunState, State, write_state
from accl.store.writer import Recorder

# Metrics that the training loop records of every step.
METRICS = [
    *(f"train/{name}" for name in ("loss", "classification", "contrastive", "accuracy", "anchor_share")),
    *(f"train/uncertainty_weight{suffix}" for suffix in ("", "_p10", "_p50", "_p90")),
    *(f"train/{name}" for name in ("alignment", "uniformity", "grad_norm", "lr")),
]
K = len(MMLU)
CURRICULUM_EVERY = 100  # steps, as in the method
VALIDATE_EVERY = 500
STEP_S = 0.01  # duration of a step
CHOICES = 4
STARTED = datetime(2026, 1, 1, 12)


def new_run(root: Path, recipe: str = "full", number: int = 0) -> RunDir:
    """Make a run folder without measurements; ``number`` is its seed, and higher ones are newer."""
    config = resolve(recipe, "demo", [f"train.seed={number}"]).config
    run = create_run(root, recipe, number, STARTED + timedelta(minutes=number))
    run.config.write_text(dump(config), encoding="utf-8")
    run.write_json(run.provenance, {"data": {"source": "synthetic", "revision": "", "fingerprint": "bench"}})
    run.console.write_text("", encoding="utf-8")
    return run


class Curriculum(NamedTuple):
    """Task weights p_K, questions drawn per task, and the K x K confusion matrix with its counts, row by row."""

    weights: list[float]
    drawn: list[int]
    matrix: list[float]
    counts: list[int]


class Step(NamedTuple):
    """The measurements of one step."""

    number: int
    values: dict[str, float]
    curriculum: Curriculum | None


def make_step(number: int) -> Step:
    """Make measurements that are as hard to compress as real ones."""
    values = {name: math.exp(-number / 2000) + 0.1 * math.sin(number * (i + 1.7)) for i, name in enumerate(METRICS)}
    return Step(number, values, None if number % CURRICULUM_EVERY else _curriculum(number))


def record(recorder: Recorder, step: Step) -> int:
    """Record a step as the training loop does; returns the number of rows."""
    recorder.metrics(step.number, step.number / 1000, step.number * STEP_S, step.values)
    if step.curriculum is None:
        return len(step.values)
    weights, drawn, matrix, counts = step.curriculum
    recorder.curriculum(step.number, "confusion", weights, drawn)
    recorder.confusion(step.number, "similarity", matrix, counts)
    return len(step.values) + 2


def finished_run(root: Path, recipe: str, number: int, *, steps: int, questions: int) -> RunDir:
    """Make a run of ``steps`` steps that finished and was tested on ``questions`` questions."""
    run = new_run(root, recipe, number)
    recorder = Recorder(run.database)
    recorder.tasks((i, s.name, s.subcategory, s.category) for i, s in enumerate(MMLU.values()))
    names = ("majority_letter", "longest_option")
    recorder.meta({f"floor/{split}/{name}": "0.25" for split in ("validation", "test") for name in names})
    for step in range(1, steps + 1):
        record(recorder, make_step(step))
    for step in [*range(VALIDATE_EVERY, steps, VALIDATE_EVERY), steps]:
        _record_evaluation(recorder, step, "validation", np.arange(questions) % CHOICES != 0)
        recorder.metrics(step, step / 1000, step * STEP_S, {"validation/accuracy": 0.75, "validation/loss": 0.7})
    right = np.random.default_rng(number).random(questions) < 0.7
    _record_evaluation(recorder, steps, "test", right)
    recorder.predictions(
        ("test", f"question/{i}", i % K, i % CHOICES, (i + (not good)) % CHOICES, [0.25] * CHOICES)
        for i, good in enumerate(right.tolist())
    )
    test = _curriculum(steps)
    recorder.confusion(steps, "similarity/test", test.matrix, test.counts)
    recorder.meta({"training_seconds": f"{steps * STEP_S:.3f}", "tested_step": str(steps)})
    recorder.close()
    began = (STARTED + timedelta(minutes=number)).timestamp()
    ended = began + steps * STEP_S
    accuracy = float(right.mean())
    write_state(
        run,
        RunState(
            state=State.FINISHED,
            pid=1,
            host=socket.gethostname(),
            step=steps,
            total_steps=steps,
            started=began,
            heartbeat=ended,
            progressed=ended,
            ended=ended,
            exit_code=0,
            latest={"train/loss": 0.5, "validation/accuracy": 0.75, "test/accuracy": accuracy},
        ),
    )
    return run


def _record_evaluation(recorder: Recorder, step: int, split: str, right: NDArray[np.bool_]) -> None:
    task = np.arange(len(right)) % K
    n_K, correct_K = np.bincount(task, minlength=K), np.bincount(task[right], minlength=K)
    recorder.evaluation(step, split, len(right), 0.7, float(right.mean()), float(right.mean()), 0.05, 0.4)
    recorder.task_evaluations((step, split, t, int(n_K[t]), int(correct_K[t])) for t in range(K) if n_K[t])


def _curriculum(seed: int) -> Curriculum:
    generator = np.random.default_rng(seed)
    noise = generator.random((K, K))
    weights = generator.dirichlet(np.full(K, 5.0))
    drawn, counts = generator.integers(seed + 1, size=K), generator.integers(seed + 1, size=(K, K))
    matrix = np.maximum(noise, noise.T)
    return Curriculum(weights.tolist(), drawn.tolist(), matrix.ravel().tolist(), (counts + counts.T).ravel().tolist())
