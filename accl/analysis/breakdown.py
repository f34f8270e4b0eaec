"""Comparison of arms part by part: by category, subcategory or task, or question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accl.analysis.crossed import difference_over_seeds
from accl.analysis.results import DEADLINE_S, Results
from accl.analysis.stats import holm, paired_difference
from accl.store.deadline import within
from accl.store.reader import attached
from accl.store.rundir import RunDir
from accl.store.summary import reading

Part = Literal["category", "subcategory", "task"]

_TEXTS = "SELECT id, text FROM run.questions WHERE list_contains(?, id)"


@dataclass(frozen=True)
class PartScore:
    """Score of an arm on the n questions of a part, as fractions, and its difference to the first arm.

    Attributes:
        accuracy, before: mean over the seeds, of the arm and of the first one.
        gains, losses: of the questions, summed over the seeds.
        low, high: 95 % interval of ``delta``: over several seeds that of `difference_over_seeds`.
        p_holm: its p, adjusted over all parts and arms.
    """

    arm: str
    name: str
    n: int
    before: float
    accuracy: float
    gains: int
    losses: int
    delta: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Flip:
    """A question that an arm answered right and the first arm wrong under some seed, or the other way round.

    Attributes:
        before, after: number of seeds under which the first arm, and this one, answered it right.
        gains, losses: number of seeds under which only this arm, and only the first one, did.
        text: what was asked; empty where it was not recorded.
    """

    arm: str
    id: str
    task: str
    before: int
    after: int
    gains: int
    losses: int
    text: str


def score_parts(labels: Sequence[str], arms: Sequence[Sequence[Results]], part: Part) -> list[PartScore]:
    """Compare every arm but the first with it on each part, from the largest gain to the largest loss.

    Args:
        arms: results of each arm under the same seeds in the same order, which can be paired.
    """
    result = arms[0][0]
    names_K = [task.name if part == "task" else getattr(task, part) for task in result.tasks]
    names = sorted(set(names_K))
    part_N = np.array([names.index(name) for name in names_K], np.int64)[result.task]
    before = _right(arms[0])
    scores = []
    for label, of_arm in zip(labels[1:], arms[1:], strict=True):
        after = _right(of_arm)
        found = [
            _score(label, name, before[:, mask], after[:, mask])
            for i, name in enumerate(names)
            if (mask := part_N == i).any()
        ]
        scores += sorted(found, key=lambda score: -score.delta)
    adjusted = holm([score.p for score in scores])
    return [replace(score, p_holm=p) for score, p in zip(scores, adjusted, strict=True)]


def _score(arm: str, name: str, before_SN: NDArray[np.bool_], after_SN: NDArray[np.bool_]) -> PartScore:
    several = len(before_SN) > 1
    found = difference_over_seeds(before_SN, after_SN) if several else paired_difference(before_SN[0], after_SN[0])
    return PartScore(
        arm=arm,
        name=name,
        n=before_SN.shape[1],
        before=float(before_SN.mean()),
        accuracy=float(after_SN.mean()),
        gains=int((after_SN & ~before_SN).sum()),
        losses=int((before_SN & ~after_SN).sum()),
        delta=found.delta,
        low=found.low,
        high=found.high,
        p=found.p,
        p_holm=found.p,
    )


def find_flips(
    labels: Sequence[str], arms: Sequence[Sequence[Results]], limit: int | None = None
) -> tuple[list[Flip], dict[str, tuple[int, int]]]:
    """Find the questions that arms answered otherwise than the first, from the clearest gain to the clearest loss.

    Args:
        arms: as `score_parts`.
        limit: most flips of an arm to return, half of them gains and half losses as far as there are; all when None.

    Returns:
        The flips, and by arm the number of questions gained and lost, by the sum over seeds.

    Raises:
        BusyError, DamagedError, AbsentError: the questions cannot be read.
    """
    result, before = arms[0][0], _right(arms[0])
    was_N = before.sum(axis=0)
    flips, counts = [], {}
    for label, of_arm in zip(labels[1:], arms[1:], strict=True):
        after = _right(of_arm)
        gains_N, losses_N = (after & ~before).sum(axis=0), (before & ~after).sum(axis=0)
        net_N = gains_N - losses_N
        order = np.lexsort((np.arange(len(net_N)), -gains_N, -net_N))
        order = order[(gains_N + losses_N)[order] > 0]
        counts[label] = int((net_N > 0).sum()), int((net_N < 0).sum())
        for i in _ends(order.tolist(), counts[label], limit):
            task = result.tasks[result.task[i]].name
            after_n = int(was_N[i] + net_N[i])
            flips.append(
                Flip(label, result.question_ids[i], task, int(was_N[i]), after_n, int(gains_N[i]), int(losses_N[i]), "")
            )
    texts = _read_texts(result.setup.run, [flip.id for flip in flips])
    return [replace(flip, text=texts.get(flip.id, "")) for flip in flips], counts


def _ends(order: list[int], counts: tuple[int, int], limit: int | None) -> list[int]:
    """Return the first and the last of an order, ``limit`` in all, of which fewer than half only where there are."""
    if limit is None or len(order) <= limit:
        return order
    gained, lost = counts
    first = max(limit // 2, limit - lost) if gained >= limit // 2 else gained
    return order[:first] + order[len(order) - (limit - first) :]


def _read_texts(run: RunDir, ids: Sequence[str]) -> dict[str, str]:
    def read() -> dict[str, str]:
        with attached(run.database) as execute:
            return {str(name): str(text) for name, text in execute(_TEXTS, list(dict.fromkeys(ids)))}

    with reading(run.database):
        return within(DEADLINE_S, read)


def _right(results: Sequence[Results]) -> NDArray[np.bool_]:
    return np.stack([result.right for result in results])
