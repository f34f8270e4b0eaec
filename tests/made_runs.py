"""Finished runs with weights that nothing was trained to: as whole as a trained run, and made in a second."""

from __future__ import annotations

import json
from pathlib import Path

from accl.config import resolve
from accl.launch import process
from accl.store.rundir import RunDir
from accl.store.state import State
from accl.training import checkpoint
from accl.training.backends.reference import ReferenceBackend
from accl.training.checkpoint import Progress
from accl.training.context import TrainingContext
from accl.training.recording import record_best_validation, record_evaluation
from accl.training.report import Reporter
from accl.training.setup import build_context
from accl.training.testing import evaluate_split

STEP = 7
VALIDATED = 40  # questions
CSV_TASKS = ("anatomy", "astronomy", "virology")


def write_csv(folder: Path, tasks: tuple[str, ...] = CSV_TASKS, rows: int = 30, word: str = "Question") -> Path:
    """Write a folder of questions, and return it."""
    (folder / "test").mkdir(parents=True)
    for index, task in enumerate(tasks):
        lines = (
            f"{word} {i} of {task}?,one {i},two {i},three {i},four {i},{'ABCD'[(i + index) % 4]}" for i in range(rows)
        )
        (folder / "test" / f"{task}_test.csv").write_text("\n".join(lines) + "\n")
    return folder


def made_run(root: Path, *overrides: str, recipe: str = "full") -> tuple[RunDir, TrainingContext]:
    """Make a run of the demo that was validated and not tested, and return it with the context of its model."""
    config = resolve(recipe, "demo", [f"train.max_steps={STEP}", "eval.test=false", *overrides]).config
    context = build_context(config, lambda _words: None)
    run = process.prepare(root, config, ["accl", "train", recipe])
    content = run.read_json(run.provenance)
    facts = json.loads(json.dumps(context.provenance.as_json()))
    run.write_json(run.provenance, content | facts)
    backend = ReferenceBackend(context)
    result = evaluate_split(context, backend, "validation", VALIDATED, lambda: None)
    progress = Progress(STEP, context.sampler.state(), [1.0] * context.tasks, 1.0, 1.0, 0.5, STEP, run.made_as())
    files = checkpoint.files_of(context.model, {}, {"curriculum": context.curriculum.state})
    name = checkpoint.save(run.checkpoints, progress, files)
    reporter = Reporter(run)
    reporter.recorder.tasks((i, s.name, s.subcategory, s.category) for i, s in enumerate(context.subjects))
    reporter.recorder.meta({f"floor/{key}": f"{value:.6f}" for key, value in context.baselines.items()})
    record_evaluation(context, reporter, STEP, "validation", result)
    record_best_validation(context, reporter.recorder, STEP, result)
    reporter.update(step=STEP, total_steps=STEP, checkpoint_last=name, checkpoint_best=name)
    reporter.close(State.FINISHED, "", 0)
    context.model.eval()
    return run, context
