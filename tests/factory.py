"""Run directories for tests, written by the code that a training process uses.

Databases with equal contents are recorded once, and copied from then on.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accl.bench.runs import (
    TRIVIAL_BASELINES,
    TaskRow,
    new_run,
    record_evaluation,
    record_tasks,
    record_test,
    write_finished,
)
from accl.data.subjects import MMLU
from accl.store.lock import TRAINING, RunLock
from accl.store.rundir import RunDir
from accl.store.state import RunState, State, write_state
from accl.store.writer import Recorder

FINGERPRINT = "00112233aabbccdd"
STARTED = datetime(2026, 11, 22, 10, 15).timestamp()

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
    fingerprint: str = FINGERPRINT,
    trivial_baselines: Mapping[str, float] = TRIVIAL_BASELINES,
    measured: tuple[float, float, float] = (0.9, 0.05, 0.4),
    similarity: NDArray[np.float64] | None = None,
    overrides: Sequence[str] = (),
    training_seconds: float | None = 12.5,
    curves: bool = True,
    predictions: bool = True,
) -> RunDir:
    """Make a run that ended well.

    Question i belongs to task i mod K and has right option i mod 4, so that runs of equal size can be paired.

    Args:
        correct: which test questions were answered right (its length wins over ``questions``), or the chance of it.
        started: seconds since the epoch.
        trivial_baselines: accuracy of answering without reading the question, by name.
        measured: loss, ECE and Brier score of the test evaluation.
        similarity: K x K, of the test questions; noise when None.
        overrides: ``key=value``, as for ``--set``.
        training_seconds: not recorded when None, as in runs of earlier versions.
        curves: whether to record metrics, curriculum, confusion, load and events.
        predictions: whether to record the test evaluation.
    """
    run = new_run(root, recipe, seed, profile=profile, started=started, fingerprint=fingerprint, overrides=overrides)
    right = _right(correct, questions, seed)
    similarity_KK = _similarity(len(tasks)) if similarity is None else similarity

    def record(recorder: Recorder) -> None:
        record_tasks(recorder, tasks, trivial_baselines)
        if curves:
            _record_curves(recorder, len(tasks), steps, upto=steps)
        if predictions:
            record_test(recorder, steps, right, len(tasks), similarity_KK, measured)
        if training_seconds is not None:
            recorder.meta(
                {
                    "training_seconds": f"{training_seconds:.3f}",
                    "questions_per_second": f"{steps * 16 / training_seconds:.3f}",
                    "tested_step": str(steps),
                }
            )

    answers = right.tobytes(), similarity_KK.tobytes(), measured
    _write_database(run, record, tasks, steps, trivial_baselines, answers, training_seconds, curves, predictions)
    accuracy = float(right.mean())
    write_finished(run, steps, started, 60.0, {"validation/accuracy": accuracy, "test/accuracy": accuracy})
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
    alive: bool = True,
    overrides: Sequence[str] = (),
) -> RunDir:
    """Make a run in the middle of its steps, which this process trains as far as anybody can tell, if ``alive``."""
    now = time.time()
    run = new_run(root, recipe, seed, profile=profile, started=now, fingerprint=FINGERPRINT, overrides=overrides)

    def record(recorder: Recorder) -> None:
        record_tasks(recorder, tasks, TRIVIAL_BASELINES)
        _record_curves(recorder, len(tasks), steps, upto=step)

    _write_database(run, record, tasks, steps, step)
    write_state(
        run,
        RunState(
            state=State.RUNNING,
            pid=os.getpid(),
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
    lock = RunLock.acquire(run, TRAINING)
    if not alive:
        lock.release()
    return run


def crashed_run(
    root: Path,
    recipe: str = "full",
    *,
    console: str = "torch.OutOfMemoryError: CUDA out of memory",
    seed: int = 42,
) -> RunDir:
    """Make a run whose state says ``running`` and whose process is gone; ``console`` ends its log."""
    run = running_run(root, recipe, seed=seed, alive=False)
    run.console.write_text(f"step 80\n{console}\n", encoding="utf-8")
    return run


_folder = tempfile.TemporaryDirectory(prefix="accl-factory-")
_recorded: dict[str, Path] = {}


def _write_database(run: RunDir, record: Callable[[Recorder], None], *contents: object) -> None:
    """Write the database of a run; ``record`` is called unless equal contents were recorded before."""
    key = repr(contents)
    if key not in _recorded:
        path = Path(_folder.name, f"{len(_recorded)}.duckdb")
        recorder = Recorder(path)
        record(recorder)
        assert recorder.close() == 0
        _recorded[key] = path
    shutil.copyfile(_recorded[key], run.database)


def _right(correct: float | Sequence[bool] | NDArray[np.bool_], questions: int, seed: int) -> NDArray[np.bool_]:
    if isinstance(correct, (int, float)):
        return np.asarray(np.random.default_rng(seed).random(questions) < correct)
    return np.asarray(correct, bool)


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
            right = np.arange(20 * k) < 20 * k * (0.25 + 0.5 * step / steps)
            record_evaluation(recorder, step, "validation", right, k, (loss, 0.05, 0.4))
            values = {"validation/loss": loss, "validation/accuracy": float(right.mean())}
            recorder.metrics(step, step / steps * 3, step * 0.05, values)
            recorder.system(step * 0.05, (None, None, None, 55.0, 4e8))
    recorder.event(0.0, "info", "model", "1,000 parameters, all trained")


def _similarity(k: int) -> NDArray[np.float64]:
    noise = np.random.default_rng(k).random((k, k)) * 0.4
    return np.asarray((noise + noise.T) / 2 + 0.5 * np.eye(k))
