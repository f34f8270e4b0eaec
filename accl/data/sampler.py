"""The questions of each step: tasks by the curriculum's weights, questions of a task in shuffled passes.

Every draw is a pure function of (seed, step, weights, questions drawn so far): a checkpoint keeps these numbers alone,
and a resumed run draws the same questions as one that was never interrupted.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accl.data.fit import check_batch
from accl.errors import ConfigError

# Keys that separate the random streams of one seed.
_BATCHES, _PASSES = 1, 2
# Less than any log p + Gumbel noise, and more than the -inf of tasks without questions.
_LAST = -1e6


@dataclass(frozen=True)
class Draw:
    """One batch: positions among all tokenised questions, B, and the order of the options of each, B x C."""

    questions: NDArray[np.int64]
    option_order: NDArray[np.int64]


class TaskSampler:
    """Draws batches of P tasks x Q questions, or of independent questions.

    With ``questions_per_task`` Q, the P = batch_size / Q tasks of a batch are drawn without replacement by
    Gumbel-top-k on log p (Kool et al., 2019, arXiv 1903.06059): the first one is distributed as p, and weights
    that are 0 for all tasks but one still leave P - 1 places for others. Without Q, each question's task is drawn
    from p independently. Within a task, each pass over its questions is shuffled anew, and no question is repeated
    within a pass.

    ``max_repeats`` caps how often an epoch goes through a task: of its n questions at most max_repeats * n are
    drawn, rounded up to a whole number, at least 1, and with Q to whole groups of Q. A task at its cap has weight 0
    until the next epoch. Only where a batch could not be filled otherwise does the cap yield: with Q, tasks at
    their cap take the places that all other tasks with questions leave; without Q, tasks go on being drawn by
    their weights once none below its cap has any weight. While it does not bind, draws are those without a cap.

    Args:
        pools: for each of the K tasks, the positions of its training questions; may be empty.
        auxiliary: positions of questions without task; ``auxiliary_questions`` of them join every batch.
        choices: options of a question, C. permute_options: whether the options of every question drawn are shuffled.
        max_repeats: above 0; None for no cap. steps_per_epoch: steps of an epoch, the first of which begins at step 1;
            needed with ``max_repeats``.

    Raises:
        ConfigError: a batch wants more distinct tasks than have questions.
    """

    def __init__(
        self,
        pools: Sequence[NDArray[np.int64]],
        *,
        batch_size: int,
        questions_per_task: int | None,
        seed: int,
        choices: int,
        permute_options: bool,
        auxiliary: NDArray[np.int64] | None = None,
        auxiliary_questions: int = 0,
        max_repeats: float | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        self._pools = [*pools, auxiliary if auxiliary is not None else np.empty(0, np.int64)]
        self._tasks = len(pools)
        self._batch_size, self._per_task = batch_size, questions_per_task
        self._seed, self._permute = seed, permute_options
        self.auxiliary_questions = auxiliary_questions if len(self._pools[-1]) else 0
        self._passes: dict[int, tuple[int, NDArray[np.int64]]] = {}
        sizes = np.array([len(pool) for pool in pools])
        check_batch(sizes, batch_size, questions_per_task)
        self._with_questions = sizes > 0
        self._weights, self._p, self._log_p = b"", np.empty(0), np.empty(0)  # see `_set_weights`
        self._own_order = np.tile(np.arange(choices), (batch_size + self.auxiliary_questions, 1))
        # One entry per task, and a last one for the auxiliary questions.
        self._drawn = np.zeros(self._tasks + 1, np.int64)
        self._steps_per_epoch, self._cap = steps_per_epoch, None
        if max_repeats is not None:
            assert steps_per_epoch is not None, "a cap per epoch needs the length of an epoch"
            group = questions_per_task or 1
            self._cap = (np.ceil(np.maximum(np.ceil(max_repeats * sizes), 1) / group) * group).astype(np.int64)
        self._epoch = 0
        self._drawn_before = np.zeros(self._tasks, np.int64)  # when this epoch began

    @property
    def drawn(self) -> NDArray[np.int64]:
        """Number of questions drawn of each task so far, K."""
        return self._drawn[:-1].copy()

    def clone(self) -> TaskSampler:
        """Return a deep copy, for look-ahead without consuming draws."""
        return copy.deepcopy(self)

    def state(self) -> list[int]:
        """Return what a checkpoint has to keep: questions drawn of the K tasks and of the auxiliary pool.

        With a cap, the epoch and the questions that had been drawn of the K tasks when it began follow.
        """
        epoch = [] if self._cap is None else [self._epoch, *self._drawn_before]
        return [int(n) for n in (*self._drawn, *epoch)]

    def restore(self, state: Sequence[int]) -> None:
        """Continue from the `state` of a sampler made with the same arguments."""
        assert len(state) == len(self.state()), "state of another sampler"
        numbers = np.asarray(state, np.int64)
        self._drawn = numbers[: self._tasks + 1].copy()
        if self._cap is not None:
            self._epoch = int(numbers[self._tasks + 1])
            self._drawn_before = numbers[self._tasks + 2 :].copy()

    def draw(self, step: int, weights: NDArray[np.float64]) -> Draw:
        """Draw the batch of ``step`` under task weights p_K, which advances the passes.

        Raises:
            ConfigError: no task with questions has any weight.
        """
        self._enter_epoch(step)
        self._set_weights(np.asarray(weights, np.float64))
        rng = np.random.default_rng([self._seed, _BATCHES, step])
        tasks = [*self._draw_tasks(rng).tolist(), *[self._tasks] * self.auxiliary_questions]
        questions = np.array([self._next_question(task) for task in tasks], np.int64)
        order = rng.permuted(self._own_order, axis=1) if self._permute else self._own_order.copy()
        return Draw(questions, order)

    def _set_weights(self, weights: NDArray[np.float64]) -> None:
        """Compute p_K and its logarithm, -inf for tasks without questions, where the weights have changed."""
        if (given := weights.tobytes()) == self._weights:
            return
        p = np.where(self._with_questions, weights, 0.0)
        if not p.sum() > 0:
            raise ConfigError(
                "No task with training questions has any weight.",
                "Give one of them a weight in curriculum.weights_file, or take another curriculum.policy.",
            )
        self._weights, self._p = given, p / p.sum()
        # Tasks with questions and p = 0 (a collapsed curriculum) come last, but before tasks without questions.
        self._log_p = np.where(self._with_questions, np.log(np.maximum(self._p, 1e-300)), -np.inf)

    def _enter_epoch(self, step: int) -> None:
        if self._steps_per_epoch is None:
            return
        epoch = max(step - 1, 0) // self._steps_per_epoch
        if epoch != self._epoch:
            self._epoch, self._drawn_before = epoch, self._drawn[:-1].copy()

    def _left(self) -> NDArray[np.int64]:
        """Return how many questions may still be drawn of each task in this epoch, K."""
        if self._cap is None:
            return np.full(self._tasks, np.iinfo(np.int64).max)
        return np.asarray(self._cap - (self._drawn[:-1] - self._drawn_before))

    def _draw_tasks(self, rng: np.random.Generator) -> NDArray[np.int64]:
        if self._per_task is None:
            return self._draw_independently(rng, self._p, self._left())
        key = self._log_p + rng.gumbel(size=self._tasks)
        if self._cap is not None:
            key[self._left() <= 0] += _LAST
        chosen = (-key).argsort(kind="stable")[: self._batch_size // self._per_task]
        return chosen.repeat(self._per_task)

    def _draw_independently(
        self, rng: np.random.Generator, p: NDArray[np.float64], left: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Draw the tasks of a batch; draws beyond a task's cap are repeated among the tasks below theirs."""
        below = left > 0
        tasks = rng.choice(self._tasks, self._batch_size, p=_among(p, below))
        while (p[below] > 0).any():
            # Earlier draws of the same task, for each place of the batch.
            earlier = np.tril(tasks[:, None] == tasks, -1).sum(1)
            over = earlier >= left[tasks]
            if not over.any():
                break
            below = np.bincount(tasks[~over], minlength=self._tasks) < left
            tasks[over] = rng.choice(self._tasks, int(over.sum()), p=_among(p, below))
        return tasks

    def _next_question(self, task: int) -> int:
        pool, drawn = self._pools[task], self._drawn.item(task)
        number, position = divmod(drawn, len(pool))
        self._drawn[task] = drawn + 1
        current, shuffled = self._passes.get(task, (-1, pool))
        if current != number:
            shuffled = np.random.default_rng([self._seed, _PASSES, task, number]).permutation(pool)
            self._passes[task] = (number, shuffled)
        return int(shuffled.item(position))


def _among(p: NDArray[np.float64], allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return p restricted to the allowed tasks; p itself, to the last bit, if that is all of it or nothing."""
    part = np.where(allowed, p, 0.0)
    return part / part.sum() if part.any() and not allowed.all() else p
