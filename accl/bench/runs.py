"""Synthetic runs for benches and tests: real run folders, written by the code that a training process uses."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from accl.config import dump, resolve
from accl.data.subjects import MMLU
from accl.store.rundir import RunDir, create_run
from accl.store.state import RunState, State, write_state
from accl.store.writer import Recorder

# Metrics that the training loop records at every step.
_NAMES = (
    "loss classification contrastive accuracy anchor_share uncertainty_weight uncertainty_weight_p10 "
    "uncertainty_weight_p50 uncertainty_weight_p90 alignment uniformity grad_norm lr"
)
METRICS = tuple(f"train/{name}" for name in _NAMES.split())
TASKS = [(subject.name, subject.subcategory, subject.category) for subject in MMLU.values()]
K = len(TASKS)
CURRICULUM_EVERY = 100  # steps, as in the method: weights, and the confusion matrix they were made from
VALIDATE_EVERY = 500
CHOICES = 4
FIRST = datetime(2026, 1, 1, 12).timestamp()
MEASURED = (0.7, 0.05, 0.4)  # loss, ECE and Brier score
TRIVIAL_BASELINES = {"majority_letter": 0.25, "longest_option": 0.25}

TaskRow = tuple[str, str, str]  # name, subcategory, category


def new_run(
    root: Path,
    recipe: str = "full",
    seed: int = 0,
    *,
    profile: str = "demo",
    started: float | None = None,
    fingerprint: str = "bench",
    overrides: Sequence[str] = (),
) -> RunDir:
    """Make a run folder without measurements.

    Args:
        started: seconds since the epoch; a minute later for each seed when None.
        overrides: ``key=value``, as for ``--set``.
    """
    started = FIRST + 60 * seed if started is None else started
    config = resolve(recipe, profile, [f"train.seed={seed}", *overrides]).config
    run = create_run(root, config.recipe, seed, datetime.fromtimestamp(started, UTC))
    run.config.write_text(dump(config), encoding="utf-8")
    data = {"source": config.data.source, "revision": "", "fingerprint": fingerprint}
    created = datetime.fromtimestamp(started, UTC).isoformat()
    command = f"accl train {recipe} --profile {profile}"
    run.write_json(run.provenance, {"created": created, "command": command, "data": data, "device": "cpu"})
    run.console.write_text("", encoding="utf-8")
    write_state(run, RunState(State.QUEUED))
    return run


class Step(NamedTuple):
    """The measurements of one step.

    Attributes:
        curriculum: weights and questions drawn of each task, K; empty at most steps, as ``confusion`` is.
        confusion: K x K values and their counts, row by row.
    """

    number: int
    values: dict[str, float]
    curriculum: tuple[list[float], list[int]] | tuple[()] = ()
    confusion: tuple[list[float], list[int]] | tuple[()] = ()


def make_step(number: int) -> Step:
    """Make up the measurements of a step, as hard to compress as real ones."""
    values = {name: math.exp(-number / 2000) + 0.1 * math.sin(number * (i + 1.7)) for i, name in enumerate(METRICS)}
    if number % CURRICULUM_EVERY:
        return Step(number, values)
    generator = np.random.default_rng(number)
    weights, drawn = generator.dirichlet(np.full(K, 5.0)), generator.integers(number + 1, size=K)
    counts_KK = generator.integers(number + 1, size=(K, K))
    confusion = (_similarity(number).ravel().tolist(), (counts_KK + counts_KK.T).ravel().tolist())
    return Step(number, values, (weights.tolist(), drawn.tolist()), confusion)


def _similarity(seed: int) -> NDArray[np.float64]:
    noise_KK = np.random.default_rng(seed).random((K, K))
    return np.maximum(noise_KK, noise_KK.T)


def record(recorder: Recorder, step: Step) -> int:
    """Record a step as the training loop does, and return the number of rows."""
    recorder.metrics(step.number, step.number / 1000, step.number * 0.01, step.values)
    if not (step.curriculum and step.confusion):
        return len(step.values)
    recorder.curriculum(step.number, "confusion", *step.curriculum)
    recorder.confusion(step.number, "similarity", *step.confusion)
    return len(step.values) + 2


def finished_run(root: Path, recipe: str, seed: int, *, steps: int, questions: int) -> RunDir:
    """Make a run of ``steps`` steps that ended well and was tested on ``questions`` questions."""
    run = new_run(root, recipe, seed)
    recorder = Recorder(run.database)
    record_tasks(recorder, TASKS, TRIVIAL_BASELINES)
    for step in range(1, steps + 1):
        record(recorder, make_step(step))
    for step in [*range(VALIDATE_EVERY, steps, VALIDATE_EVERY), steps]:
        record_evaluation(recorder, step, "validation", np.arange(questions) % CHOICES != 0, K)
        recorder.metrics(step, step / 1000, step * 0.01, {"validation/accuracy": 0.75, "validation/loss": 0.7})
    right = np.random.default_rng(seed).random(questions) < 0.7
    record_test(recorder, steps, right, K, _similarity(steps))
    recorder.meta({"training_seconds": f"{steps * 0.01:.3f}", "tested_step": str(steps)})
    recorder.close()
    accuracies = {"validation/accuracy": 0.75, "test/accuracy": float(right.mean())}
    write_finished(run, steps, FIRST + 60 * seed, steps * 0.01, accuracies)
    return run


def long_run(root: Path, *, steps: int = 100_000, matrices: int = 6_200) -> RunDir:
    """Make a run that ended well whose metrics and confusion matrices DuckDB makes up: two kinds, in turn."""
    run = new_run(root)
    recorder = Recorder(run.database)
    record_tasks(recorder, TASKS, TRIVIAL_BASELINES)
    recorder.close()
    names = [*METRICS, "train/steps_per_second", "train/questions_per_second"]
    with duckdb.connect(str(run.database), config={"threads": "1"}) as connection:
        connection.execute(
            "INSERT INTO metrics SELECT row_number() OVER () - 1, step, step / 1000, step * 0.01, name, "
            "5 * exp(-step / 20000) + random() FROM range(1, ? + 1) AS steps(step), (SELECT unnest(?) AS name)",
            [steps, names],
        )
        connection.execute(
            "INSERT INTO confusion SELECT i, (i + 1) * ? // ?, "
            "CASE i % 2 WHEN 0 THEN 'similarity' ELSE 'prototype' END, "
            "[random() + 0 * i for cell in range(?)], [i for cell in range(?)] FROM range(?) AS matrices(i)",
            [steps, matrices, K * K, K * K, matrices],
        )
        connection.execute(
            "INSERT INTO curriculum SELECT i, i * ?, 'confusion', [1 / ? for task in range(?)], "
            "[i * task for task in range(?)] FROM range(?) AS updates(i)",
            [CURRICULUM_EVERY, K, K, K, steps // CURRICULUM_EVERY],
        )
    write_finished(run, steps, FIRST, steps * 0.01, {"train/loss": 0.5})
    return run


def copies(root: Path, runs: Sequence[RunDir], number: int) -> None:
    """Copy finished runs of seed 0 in turn, as runs under ``root`` with seeds from 1, each a second older."""
    for index in range(number):
        original, seed = runs[index % len(runs)], 1 + index // len(runs)
        started = datetime.fromtimestamp(FIRST - 1 - index, UTC)
        copy = create_run(root, original.setup().recipe, seed, started)
        for file in (original.state, original.console):
            shutil.copy(file, copy.path)
        os.link(original.database, copy.database)  # a thousand copies of it would fill a disk
        config = original.config.read_text(encoding="utf-8")
        copy.config.write_text(re.sub(r"(?m)^( *seed: ).*$", rf"\g<1>{seed}", config), encoding="utf-8")
        provenance = json.loads(original.provenance.read_text(encoding="utf-8"))
        copy.write_json(copy.provenance, provenance | {"created": started.isoformat()})


def record_tasks(recorder: Recorder, tasks: Sequence[TaskRow], trivial_baselines: Mapping[str, float]) -> None:
    """Record K tasks, and the accuracies of answering without reading, the same for both evaluation splits."""
    recorder.tasks((index, *row) for index, row in enumerate(tasks))
    for split in ("validation", "test"):
        recorder.meta({f"floor/{split}/{name}": f"{value:.6f}" for name, value in trivial_baselines.items()})


def record_evaluation(
    recorder: Recorder,
    step: int,
    split: str,
    right: NDArray[np.bool_],
    k: int,
    measured: tuple[float, float, float] = MEASURED,
) -> None:
    """Record an evaluation of questions, ``right[i]`` the answer to question i, which is of task i mod K."""
    task = np.arange(len(right)) % k
    n_K, correct_K = np.bincount(task, minlength=k), np.bincount(task[right], minlength=k)
    asked = np.flatnonzero(n_K)
    macro = float(np.mean(correct_K[asked] / n_K[asked]))
    loss, ece, brier = measured
    values = {"loss": loss, "accuracy": float(right.mean()), "macro_accuracy": macro, "ece": ece, "brier": brier}
    recorder.evaluation(step, split, {"n": len(right), **values})
    recorder.task_evaluations((step, split, int(t), int(n_K[t]), int(correct_K[t])) for t in asked)


def record_test(
    recorder: Recorder,
    step: int,
    right: NDArray[np.bool_],
    k: int,
    similarity_KK: NDArray[np.float64],
    measured: tuple[float, float, float] = MEASURED,
) -> None:
    """Record the final evaluation with every answer, as `record_evaluation`; question i has right option i mod 4."""
    record_answers(recorder, "test", right, k)
    record_evaluation(recorder, step, "test", right, k, measured)
    recorder.confusion(step, "similarity/test", similarity_KK.ravel().tolist(), [9] * (k * k))


def record_answers(recorder: Recorder, split: str, right: NDArray[np.bool_], k: int) -> None:
    """Record questions of a split and the answers to them; question i is of task i mod K and has right option i mod 4.

    Its neighbours are the (up to five) tasks that follow its own.
    """
    answers, asked = [], []
    for i, good in enumerate(right.tolist()):
        name, task, gold = f"{split}/{i:05d}", i % k, i % CHOICES
        predicted = gold if good else (gold + 1) % CHOICES
        probabilities = [0.7 if choice == predicted else 0.1 for choice in range(CHOICES)]
        neighbours = [(task + j) % k for j in range(1, min(6, k))]
        answers.append((split, name, task, gold, predicted, probabilities))
        options = [f"Option {choice}" for choice in range(CHOICES)]
        asked.append((name, task, f"What is asked in {name}?", options, gold, neighbours))
    recorder.predictions(answers)
    recorder.questions(asked)


def write_finished(run: RunDir, steps: int, started: float, seconds: float, accuracies: Mapping[str, float]) -> None:
    """Write the state of a run that took ``seconds`` and ended well."""
    checkpoint, ended = f"step-{steps:08d}", started + seconds
    state = RunState(
        State.FINISHED,
        pid=1,
        host=socket.gethostname(),
        step=steps,
        total_steps=steps,
        heartbeat=ended,
        progressed=ended,
        started=started,
        ended=ended,
        exit_code=0,
        checkpoint_last=checkpoint,
        checkpoint_best=checkpoint,
        latest={"train/loss": 0.5, **accuracies},
    )
    write_state(run, state)
