"""A run's model on labelled questions that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accl.choices import METRICS
from accl.data.cache import Cache, cache_folder
from accl.data.folders import read_folder
from accl.data.questions import Corpus, Question
from accl.data.trivial_baselines import trivial_baselines
from accl.errors import DataError
from accl.method.answers import Answers
from accl.store.rundir import RunDir
from accl.training.evaluate import outputs
from accl.training.testing import EVALUATION_BATCHES
from accl.training.trained import Which, load_trained

LABELLED = ("test", "validation", "dev")
EVERYTHING = "all"


def evaluate_folder(run: RunDir, folder: Path, split: str, which: Which, phase: Callable[[str], None]) -> Any:
    """Answer the questions of a folder in one of the layouts that ``data.path`` takes.

    Args:
        split: of `LABELLED`, `EVERYTHING`, or empty for the test questions if there are any, or else everything.
        which: checkpoint. phase: called with a few words before each slow part.

    Returns:
        ``groups``: all questions, those that were not learnt if some were, and each task, with questions ``n``,
        ``correct`` and ``floors``; and what else there is to say of them.

    Raises:
        DataError: the folder has no such questions, or they do not fit the model.
        AcclError: as `load_trained`.
    """
    corpus = read_folder(folder)
    split, questions = _questions(corpus, folder, split)
    trained = load_trained(run, which, phase)
    cache = Cache(cache_folder())
    assembler = trained.assemble(questions, cache)
    total = len(questions)
    [logits] = outputs(
        lambda positions: trained.forward(assembler, positions),
        assembler,
        np.arange(total),
        lambda output: (output.logits_BC,),
        batch_size=EVALUATION_BATCHES * trained.config.train.batch_size,
        progress=lambda done: phase(f"answered {done:,} of {total:,} questions"),
    )
    task = np.array([corpus.task_index[q.task] for q in questions], np.int64)
    answers = Answers(task, assembler.blob.answer, logits.double().softmax(-1).cpu().numpy())
    train = trained.data.splits.train if trained.data else []
    learnt = {q.text_hash for q in train}
    new = [q.text_hash not in learnt for q in questions]
    correct = answers.correct

    def group(kind: str, name: str, members: Sequence[int]) -> dict[str, Any]:
        floors = trivial_baselines(train, [questions[i] for i in members])
        if not train:  # the letter that is frequent among them is not known
            del floors["majority_letter"]
        return {
            "kind": kind,
            "name": name,
            "n": len(members),
            "correct": int(correct[list(members)].sum()),
            "floors": floors,
            "learnt": name in trained.task_index if kind == "task" else None,
        }

    groups = [group("all", "all questions", range(total))]
    if 0 < sum(new) < total:
        groups.append(group("new", "without those learnt", [i for i in range(total) if new[i]]))
    groups += [group("task", s.name, np.flatnonzero(task == t).tolist()) for t, s in _present(corpus, task)]
    return {
        "split": split,
        "source": corpus.source,
        "step": trained.step,
        "groups": groups,
        "metrics": {name: float(METRICS.load(name)[0].compute(answers)) for name in METRICS.names()},
        "learnt_questions": total - sum(new) if train else None,
        "no_data": trained.no_data,
        "sees_task": trained.config.model.task_embedding,
        "warnings": cache.warnings,
    }


def _questions(corpus: Corpus, folder: Path, split: str) -> tuple[str, list[Question]]:
    """Return the name of a split and its questions."""
    split = split or ("test" if corpus.parts.get("test") else EVERYTHING)
    parts = LABELLED if split == EVERYTHING else (split,)
    if questions := [q for part in parts for q in corpus.parts.get(part, [])]:
        return split, questions
    have = ", ".join(f"{part} ({len(found):,})" for part, found in corpus.parts.items() if found)
    raise DataError(f"{folder} has no {split} questions, but {have}.", "Choose another with --split, or all of them.")


def _present(corpus: Corpus, task: Any) -> list[tuple[int, Any]]:
    return [(t, subject) for t, subject in enumerate(corpus.subjects) if (task == t).any()]
