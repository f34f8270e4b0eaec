"""Evaluation of a split: answers to every question, their metrics, and the confusion of the tasks' embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.choices import METRICS
from accl.data.questions import LETTERS
from accl.data.tokens import Assembler
from accl.method.answers import Answers
from accl.method.confusion import mean_similarity, nearest_tasks, prototype_confusion
from accl.method.model import ModelOutput

# Most tokens of a batch, padding included (one question is a batch whatever its length), unless a caller knows the
# encoder's width: its activations for them have to fit beside the model.
MOST_TOKENS = 2**15
NEIGHBOURS = 5


@dataclass(frozen=True)
class Evaluated(Answers):
    """N answered questions, and the confusion of the tasks among them.

    Attributes:
        questions: positions among all tokenised questions, N.
        similarity, pairs: K x K mean positive cosine of encoder features, NaN without pairs; pairs per cell.
        prototype, assigned: K x K share of task i's questions nearest to the prototype of task j, leave-one-out
            (`prototype_confusion`), NaN without questions; questions per cell.
        neighbours: the other tasks whose prototypes are nearest to each question, nearest first, N rows of up to
            `NEIGHBOURS`.
    """

    questions: NDArray[np.int64]
    similarity: NDArray[np.float64]
    pairs: NDArray[np.int64]
    prototype: NDArray[np.float64]
    assigned: NDArray[np.int64]
    neighbours: list[list[int]]

    def metric(self, name: str) -> float:
        """Compute one metric of `accl.method.metrics`.

        Raises:
            ValueError: there is none of that name.
        """
        module, _ = METRICS.load(name)
        return float(module.compute(self))

    def metrics(self) -> dict[str, float]:
        """Compute every metric of `accl.method.metrics`, by name."""
        return {name: self.metric(name) for name in METRICS.names()}

    def letter_shares(self) -> dict[str, float]:
        """Return the shares of questions where each letter was given, ``predicted_A``, and is right, ``gold_A``."""
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
    most_tokens: int = MOST_TOKENS,
    progress: Callable[[], Any],
) -> Evaluated:
    """Answer every question once, options in their own order.

    Questions of like length share a batch; results come back in the order asked for.

    Args:
        forward: computes the model's output for some questions, options in their own order, with dropout off.
        tasks: number of tasks, K. device: of that output.
        batch_size, most_tokens: most questions of a batch, and most tokens, padding included; a question that has more
            is a batch. progress: called before each batch; it may raise, which ends the evaluation.
    """
    logits, features = outputs(
        forward,
        assembler,
        questions,
        lambda output: (output.logits_BC, output.features_BD),
        batch_size=batch_size,
        most_tokens=most_tokens,
        progress=lambda _done: progress(),
    )
    gold, task = assembler.blob.answer[questions], assembler.blob.task[questions]
    task_N = torch.from_numpy(task).to(device)
    similarity, pairs = mean_similarity(features, task_N, tasks)
    prototype, assigned = prototype_confusion(features, task_N, tasks)
    return Evaluated(
        task,
        gold,
        logits.double().softmax(-1).cpu().numpy(),
        questions,
        similarity.double().cpu().numpy(),
        pairs.long().cpu().numpy(),
        prototype.double().cpu().numpy(),
        assigned.long().cpu().numpy(),
        nearest_tasks(features, task_N, tasks, NEIGHBOURS),
    )


@torch.no_grad()
def outputs(
    forward: Callable[[NDArray[np.int64]], ModelOutput],
    assembler: Assembler,
    questions: NDArray[np.int64],
    pick: Callable[[ModelOutput], tuple[Tensor, ...]],
    *,
    batch_size: int,
    most_tokens: int = MOST_TOKENS,
    progress: Callable[[int], Any],
) -> list[Tensor]:
    """Compute what is picked of the model's output for N questions, in fp32 and in their order.

    Questions of like length share a batch.

    Args:
        forward, batch_size, most_tokens: as for `evaluate`. pick: returns tensors of B rows.
        progress: called before each batch with the number of questions done; it may raise, which ends the work.
    """
    lengths = assembler.lengths(questions)
    by_length = np.argsort(-lengths, kind="stable")
    rows = assembler.blob.choices if assembler.head == "per_option" else 1
    parts: list[tuple[Tensor, ...]] = []
    for batch in _batches(rows * lengths[by_length], batch_size, most_tokens):
        progress(batch.start)
        parts.append(tuple(tensor.float() for tensor in pick(forward(questions[by_length[batch]]))))
    back = torch.from_numpy(np.argsort(by_length)).to(parts[0][0].device)
    return [torch.cat(tensors)[back] for tensors in zip(*parts, strict=True)]


def _batches(tokens: NDArray[np.int64], most: int, most_tokens: int) -> Iterator[slice]:
    """Cut questions, longest first, into batches of at most ``most`` questions and ``most_tokens`` tokens."""
    start = 0
    while start < len(tokens):
        size = min(most, max(1, most_tokens // int(tokens[start])))
        yield slice(start, start + size)
        start += size
