"""Evaluation of a split: per question, per task, and the confusion of its embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from accl.data.questions import LETTERS
from accl.data.tokens import Assembler
from accl.method.confusion import mean_similarity, prototype_confusion
from accl.method.model import ModelOutput

# Bins of the expected calibration error (Guo et al., 2017).
ECE_BINS = 15
# Tokens of a batch, padding included, at most (one question is a batch whatever its length): what an encoder needs for
# them at a time has to fit beside the model.
MOST_TOKENS = 2**16


@dataclass(frozen=True)
class Evaluated:
    """N answered questions.

    Attributes:
        questions: positions among all tokenised questions. task, gold: of each.
        probabilities: N x C, options in their own order.
        loss: mean cross-entropy in nats.
        similarity, pairs: K x K mean positive cosine of encoder features, NaN without pairs; pairs per cell.
        prototype, assigned: K x K share of task i's questions nearest to the prototype of task j, leave-one-out
            (`prototype_confusion`), NaN without questions; questions per cell.
    """

    questions: NDArray[np.int64]
    task: NDArray[np.int64]
    gold: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    loss: float
    similarity: NDArray[np.float64]
    pairs: NDArray[np.int64]
    prototype: NDArray[np.float64]
    assigned: NDArray[np.int64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def correct(self) -> NDArray[np.bool_]:
        return np.equal(self.predicted, self.gold)

    @property
    def accuracy(self) -> float:
        """Micro: the share of all questions."""
        return float(self.correct.mean())

    def per_task(self) -> list[tuple[int, int, int]]:
        """(task, n, correct) of the tasks that have questions."""
        return [
            (int(t), int((self.task == t).sum()), int(self.correct[self.task == t].sum())) for t in np.unique(self.task)
        ]

    @property
    def macro_accuracy(self) -> float:
        """The mean of the tasks' accuracies."""
        return float(np.mean([correct / n for _, n, correct in self.per_task()]))

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence| averaged over 15 equal bins of confidence."""
        confidence = self.probabilities.max(1)
        bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
        gaps = [
            abs(self.correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
            for b in np.unique(bins)
        ]
        return float(np.sum(gaps))

    @property
    def brier(self) -> float:
        """Brier score, in 0..2: the mean over questions of sum_c (p_c - y_c)^2, with y the one-hot right answer.

        Source: Brier, Monthly Weather Review 78 (1950), in its form for several classes.
        """
        right = np.eye(self.probabilities.shape[1])[self.gold]
        return float(((self.probabilities - right) ** 2).sum(1).mean())

    def letter_shares(self) -> dict[str, float]:
        """``predicted_A``, ``gold_A``, ...: the share of questions where each letter was given, and is right."""
        choices, n = self.probabilities.shape[1], len(self.gold)
        return {
            f"{name}_{LETTERS[c]}": float(count / n)
            for name, answers in (("predicted", self.predicted), ("gold", self.gold))
            for c, count in enumerate(np.bincount(answers, minlength=choices))
        }


@torch.no_grad()
def evaluate(
    forward: Callable[[NDArray[np.int64]], ModelOutput],
    assembler: Assembler,
    questions: NDArray[np.int64],
    tasks: int,
    device: torch.device,
    *,
    batch_size: int,
    progress: Callable[[], Any],
) -> Evaluated:
    """Answer every question once, options in their own order.

    Questions of like length share a batch; results come back in the order asked for.

    Args:
        forward: the model's output for some questions, options in their own order, with dropout off.
        tasks: K. device: where that output is. batch_size: questions of a batch, at most; fewer if they are long.
        progress: called after each batch.
    """
    lengths = assembler.lengths(questions)
    by_length = np.argsort(-lengths, kind="stable")
    rows = assembler.blob.choices if assembler.head == "per_option" else 1
    logits_parts, feature_parts = [], []
    for batch in _batches(rows * lengths[by_length], batch_size):
        output = forward(questions[by_length[batch]])
        logits_parts.append(output.logits_BC.float())
        feature_parts.append(output.features_BD.float())
        progress()
    back = torch.from_numpy(np.argsort(by_length)).to(device)
    logits, features = torch.cat(logits_parts)[back], torch.cat(feature_parts)[back]
    gold, task = assembler.blob.answer[questions], assembler.blob.task[questions]
    gold_N = torch.from_numpy(gold).to(device)
    task_N = torch.from_numpy(task).to(device)
    similarity, pairs = mean_similarity(features, task_N, tasks)
    prototype, assigned = prototype_confusion(features, task_N, tasks)
    return Evaluated(
        questions,
        task,
        gold,
        logits.double().softmax(-1).cpu().numpy(),
        float(F.cross_entropy(logits, gold_N)),
        similarity.double().cpu().numpy(),
        pairs.long().cpu().numpy(),
        prototype.double().cpu().numpy(),
        assigned.long().cpu().numpy(),
    )


def _batches(tokens: NDArray[np.int64], most: int) -> Iterator[slice]:
    """Batches of questions that need so many tokens each, the longest first."""
    start = 0
    while start < len(tokens):
        size = min(most, max(1, MOST_TOKENS // int(tokens[start])))
        yield slice(start, start + size)
        start += size
