"""Run directories for tests, made by the same code that a training process uses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accl.config import dump, resolve
from accl.data.subjects import MMLU
from accl.store.rundir import RunDir, create_run
from accl.store.state import RunState, State, process_start_time, write_state
from accl.store.writer import Recorder

CHOICES = 4
STARTED = datetime(2026, 11, 22, 10, 15).timestamp()

TaskRow = tuple[str, str, str]  # name, subcategory, category

SIX_TASKS: tuple[TaskRow, ...] = tuple(
    (subject.name, subject.subcategory, subject.category)
    for subject in (
        MMLU["anatomy"],
        MMLU["astronomy"],
        MMLU["college_physics"],
        MMLU["econometrics"],
        MMLU["philosophy"],
        MMLU["virology"],
    )
)
ALL_TASKS: tuple[TaskRow, ...] = tuple((s.name, s.subcategory, s.category) for s in MMLU.values())


def finished_run(
    root: Path,
    recipe: str = "baseline",
    *,
    profile: str = "demo",
    seed: int = 42,
    correct: float | Sequence[bool] | NDArray[np.bool_] = 0.5,
    questions: int = 120,
    tasks: Sequence[TaskRow] = SIX_TASKS,
    steps: int = 200,
    started: float = STARTED,
    fingerprint: str = "00112233aabbccdd",
    trivial_baselines: Mapping[str, float] | None = None,
    measured: tuple[float, float, float] = (0.9, 0.05, 0.4),
    similarity: NDArray[np.float64] | None = None,
    overrides: Sequence[str] = (),
    training_seconds: float | None = 12.5,
    curves: bool = True,
    predictions: bool = True,
) -> RunDir:
    """A run that ended well.

    Question i belongs to task i mod K and has right option i mod 4, so that runs of equal size can be paired.

    Args:
        correct: which test questions were answered right (its length wins over ``questions``), or the chance of it.
        started: seconds since the epoch; later ones make newer runs.
        trivial_baselines: accuracy by name; a quarter each when None.
        measured: loss, ECE and Brier score of the test evaluation.
        similarity: K x K, of the test questions; noise when None.
        overrides: ``key=value``, as for ``--set``.
        training_seconds: not recorded when None, as by an accl that did not measure it.
        curves: record metrics, curriculum, confusion, load and events too.
        predictions: without them it is a finished run whose test answers are missing.
    """
    run = _prepared(root, recipe, profile, seed, started, fingerprint, overrides)
    right = _right(correct, questions, seed)
    recorder = _recorder(run, tasks, trivial_baselines)
    if curves:
        _record_curves(recorder, len(tasks), steps, upto=steps)
    if predictions:
        _record_test(recorder, right, len(tasks), steps, measured, similarity)
    if training_seconds is not None:
        recorder.meta(
            {
                "training_seconds": f"{training_seconds:.3f}",
                "questions_per_second": f"{steps * 16 / training_seconds:.3f}",
                "tested_step": str(steps),
            }
        )
    recorder.close()
    write_state(
        run,
        RunState(
            state=State.FINISHED,
            pid=1,
            host=socket.gethostname(),
            step=steps,
            total_steps=steps,
            started=started,
            heartbeat=started + 60,
            progressed=started + 60,
            ended=started + 60,
            elapsed=60.0,
            exit_code=0,
            checkpoint_last=f"step-{steps:08d}",
            checkpoint_best=f"step-{steps:08d}",
            latest={
                "train/loss": 0.5,
                "validation/accuracy": float(right.mean()),
                "test/accuracy": float(right.mean()),
            },
        ),
    )
    return run


def running_run(
    root: Path,
    recipe: str = "full",
    *,
    profile: str = "demo",
    seed: int = 42,
    step: int = 80,
    steps: int = 200,
    tasks: Sequence[TaskRow] = SIX_TASKS,
    pid: int | None = None,
    overrides: Sequence[str] = (),
) -> RunDir:
    """A run in the middle of its steps whose process lives: this very process, unless ``pid`` names another."""
    pid = os.getpid() if pid is None else pid
    now = time.time()
    run = _prepared(root, recipe, profile, seed, now, "00112233aabbccdd", overrides)
    recorder = _recorder(run, tasks, None)
    _record_curves(recorder, len(tasks), steps, upto=step)
    recorder.close()
    write_state(
        run,
        RunState(
            state=State.RUNNING,
            pid=pid,
            pid_started=process_start_time(pid) or now,
            host=socket.gethostname(),
            phase="training",
            step=step,
            total_steps=steps,
            heartbeat=now,
            progressed=now,
            started=now,
            latest={"train/loss": 1.0},
        ),
    )
    return run


def crashed_run(
    root: Path,
    recipe: str = "full",
    *,
    console: str = "torch.OutOfMemoryError: CUDA out of memory",
    profile: str = "demo",
    seed: int = 42,
    step: int = 80,
    steps: int = 200,
    tasks: Sequence[TaskRow] = SIX_TASKS,
) -> RunDir:
    """A run whose state says ``running`` and whose process is gone; ``console`` is the last line of its log."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        run = running_run(
            root, recipe, profile=profile, seed=seed, step=step, steps=steps, tasks=tasks, pid=process.pid
        )
    finally:
        process.communicate(b"\n")
    run.console.write_text(f"step {step}\n{console}\n", encoding="utf-8")
    return run


def _prepared(
    root: Path, recipe: str, profile: str, seed: int, started: float, fingerprint: str, overrides: Sequence[str]
) -> RunDir:
    config = resolve(recipe, profile, [f"train.seed={seed}", *overrides]).config
    run = create_run(root, config.recipe, seed, datetime.fromtimestamp(started))
    run.config.write_text(dump(config), encoding="utf-8")
    run.write_json(
        run.provenance,
        {
            "command": f"accl train {recipe} --profile {profile}",
            "data": {"source": config.data.source, "revision": "", "fingerprint": fingerprint},
            "device": "cpu",
        },
    )
    run.console.write_text("", encoding="utf-8")
    return run


def _recorder(run: RunDir, tasks: Sequence[TaskRow], trivial_baselines: Mapping[str, float] | None) -> Recorder:
    recorder = Recorder(run.database)
    recorder.tasks((index, *row) for index, row in enumerate(tasks))
    measured = {"majority_letter": 0.25, "longest_option": 0.25} if trivial_baselines is None else trivial_baselines
    recorder.meta(
        {
            f"floor/{split}/{name}": f"{value:.6f}"
            for split in ("validation", "test")
            for name, value in measured.items()
        }
    )
    recorder.meta({"k": str(len(tasks))})
    return recorder


def _right(correct: float | Sequence[bool] | NDArray[np.bool_], questions: int, seed: int) -> NDArray[np.bool_]:
    if isinstance(correct, (int, float)):
        return np.asarray(np.random.default_rng(seed).random(questions) < correct)
    return np.asarray(correct, bool)


def _record_test(
    recorder: Recorder,
    right: NDArray[np.bool_],
    k: int,
    step: int,
    measured: tuple[float, float, float],
    similarity: NDArray[np.float64] | None,
) -> None:
    n = len(right)
    rows = []
    for i, good in enumerate(right.tolist()):
        gold = i % CHOICES
        predicted = gold if good else (gold + 1) % CHOICES
        probabilities = [0.7 if choice == predicted else 0.1 for choice in range(CHOICES)]
        rows.append(("test", f"test/{i:05d}", i % k, gold, predicted, probabilities))
    recorder.predictions(rows)
    task = np.arange(n) % k
    n_K, correct_K = np.bincount(task, minlength=k), np.bincount(task[right], minlength=k)
    per_task = [(step, "test", t, int(n_K[t]), int(correct_K[t])) for t in range(k) if n_K[t]]
    recorder.task_evaluations(per_task)
    macro = float(np.mean([good / count for *_, count, good in per_task]))
    loss, ece, brier = measured
    values = {"loss": loss, "accuracy": float(right.mean()), "macro_accuracy": macro, "ece": ece, "brier": brier}
    recorder.evaluation(step, "test", {"n": n, **values})
    alike = _similarity(k) if similarity is None else similarity
    recorder.confusion(step, "similarity/test", alike.ravel().tolist(), [9] * (k * k))


def _record_curves(recorder: Recorder, k: int, steps: int, upto: int) -> None:
    generator = np.random.default_rng(0)
    for step in range(1, upto + 1):
        loss = 1.4 * float(np.exp(-step / steps)) + 0.02 * float(generator.standard_normal())
        values = {"train/loss": loss, "train/accuracy": 1 - loss / 2, "train/lr": 1e-3 * (1 - step / steps)}
        recorder.metrics(step, step / steps * 3, step * 0.05, values)
        if step % 50 == 0:
            weights = generator.dirichlet([5.0] * k)
            recorder.curriculum(step, "confusion", weights.tolist(), (weights * step * 16).astype(int).tolist())
            recorder.confusion(step, "similarity", _similarity(k).ravel().tolist(), [step] * (k * k))
            accuracy = 0.25 + 0.5 * step / steps
            values = {"loss": loss, "accuracy": accuracy, "macro_accuracy": accuracy, "ece": 0.05, "brier": 0.4}
            recorder.evaluation(step, "validation", {"n": 20 * k, **values})
            recorder.task_evaluations((step, "validation", t, 20, round(20 * accuracy)) for t in range(k))
            recorder.metrics(
                step, step / steps * 3, step * 0.05, {"validation/loss": loss, "validation/accuracy": accuracy}
            )
            recorder.system(step * 0.05, (None, None, None, 55.0, 4e8))
    recorder.event(0.0, "info", "model", "1,000 parameters, all trained")


def _similarity(k: int) -> NDArray[np.float64]:
    noise = np.random.default_rng(k).random((k, k)) * 0.4
    return np.asarray((noise + noise.T) / 2 + 0.5 * np.eye(k))
