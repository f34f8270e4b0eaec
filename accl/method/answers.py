"""Answered questions: what the metrics of an evaluation are computed from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answers:
    """N answered questions of C options.

    Attributes:
        task, gold: task index and index of the right option of each question, N.
        probabilities: N x C, options in their own order.
    """

    task: NDArray[np.int64]
    gold: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the most probable option of each question, N."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """True where a question was answered right, N."""
        return np.equal(self.predicted, self.gold)

    def per_task(self) -> list[tuple[int, int, int]]:
        """Return (task, questions, correct) of every task that has questions."""
        correct = self.correct
        return [(int(t), int((self.task == t).sum()), int(correct[self.task == t].sum())) for t in np.unique(self.task)]
