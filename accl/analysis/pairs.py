"""Task pairs that an arm confuses most, and accuracy on their questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accl.analysis.stats import PairedDifference, paired_difference
from accl.store.reader import Task

SHARE = 0.1  # of all observed pairs: the top decile


@dataclass(frozen=True)
class TaskPair:
    """Names of two tasks and their mean positive cosine."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True)
class HardPairs:
    """Hard pairs of all observed ones, hardest first, and the tasks in them with their number of test questions."""

    observed: int
    pairs: tuple[TaskPair, ...]
    tasks: tuple[Task, ...]
    n: int

    def members(self, task: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each question, given by its task index, belongs to a task of a hard pair."""
        return np.isin(task, [member.index for member in self.tasks])


@dataclass(frozen=True)
class HardScore:
    """Accuracy on the questions of the hard pairs' tasks; ``paired`` is None for the first arm."""

    n: int
    correct: int
    accuracy: float
    paired: PairedDifference | None


def hard_pairs(
    tasks: Sequence[Task], task: NDArray[np.int64], similarities: Sequence[NDArray[np.float64] | None]
) -> HardPairs | None:
    """Return the top decile of task pairs by the first arm's similarity of tasks on the test questions.

    Of the P unordered pairs of different tasks whose cell above the diagonal is not NaN, these are the pairs at least
    as similar as the ceil(P / 10)-th most similar one, ties included. The first arm decides for all arms, so that all
    are scored on the same questions; with baseline first, that is the arm without curriculum or contrast.

    Args:
        tasks: K tasks.
        task: (n,) task index of each test question.
        similarities: K x K ``similarity/test`` of the first arm, one per seed; their mean ignores NaN.

    Returns:
        The pairs, or None when a matrix is missing, no pair was observed, or no test question belongs to the pairs.
    """
    rows, columns = np.triu_indices(len(tasks), k=1)
    known = [matrix[rows, columns] for matrix in similarities if matrix is not None]
    if not known or len(known) < len(similarities):
        return None
    values_SP = np.stack(known)
    counts_P = np.isfinite(values_SP).sum(axis=0)
    observed = np.flatnonzero(counts_P)
    if not observed.size:
        return None
    values = np.nansum(values_SP[:, observed], axis=0) / counts_P[observed]
    least = np.sort(values)[-math.ceil(SHARE * len(values))]
    order = [int(p) for p in np.argsort(-values, kind="stable") if values[p] >= least]
    chosen = [(tasks[rows[observed[p]]], tasks[columns[observed[p]]], float(values[p])) for p in order]
    members = {member.index: member for a, b, _ in chosen for member in (a, b)}
    n = int(np.isin(task, list(members)).sum())
    if not n:
        return None
    pairs = tuple(TaskPair(a.name, b.name, value) for a, b, value in chosen)
    return HardPairs(len(values), pairs, tuple(members[index] for index in sorted(members)), n)


def hard_score(mask: NDArray[np.bool_], right: NDArray[np.bool_], first: NDArray[np.bool_] | None) -> HardScore:
    """Score an arm on the masked questions, and pair it with the first arm's answers where given."""
    masked = right[mask]
    n, correct = len(masked), int(masked.sum())
    return HardScore(n, correct, correct / n, None if first is None else paired_difference(first[mask], masked))


def describe(hard: HardPairs | None, reference: str, n: int, split: str = "test") -> str:
    """Describe the hard pairs and how many of the n questions they cover."""
    if split != "test":
        return f"Hard pairs cannot be named: the similarity of tasks is measured on the test, not on the {split}."
    if hard is None:
        return f"Hard pairs cannot be named: {reference} has no record of how similar tasks were on the test questions."
    everything = " They touch every task, so this is the accuracy on all questions once more." if hard.n == n else ""
    return (
        f"Hard pairs: the {len(hard.pairs):,} of {hard.observed:,} task pairs that {reference} tells apart least (top "
        f"decile of the mean positive cosine between the test questions of two tasks), that is {hard.n:,} of {n:,} "
        f"questions, from {len(hard.tasks)} tasks; the same questions for every arm.{everything}"
    )
