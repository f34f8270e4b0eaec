"""Which questions the next step sees: tasks by the curriculum's weights, questions of a task in shuffled passes.

Every draw is a pure function of (seed, step, weights, questions drawn so far), so a checkpoint needs to keep
nothing but `drawn`, and a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accl.errors import ConfigError

# Separate the random streams of one seed.
_BATCHES, _PASSES = 1, 2


@dataclass(frozen=True)
class Draw:
    """One batch: positions among all tokenised questions, B, and for each the order of its options, B x C."""

    questions: NDArray[np.int64]
    option_order: NDArray[np.int64]


class TaskSampler:
    """Draws batches of P tasks x Q questions, or of independent questions.

    With ``questions_per_task`` Q, the P = batch_size / Q tasks of a batch are drawn without replacement by
    Gumbel-top-k on log p (Kool et al., 2019, arXiv 1903.06059); so the first one is distributed as p, and p
    given to one task alone still leaves P - 1 places for others. Without Q, each question's task is drawn
    from p independently. Within a task, each pass over its questions is shuffled anew and none comes twice
    before all have come.

    Args:
        pools: for each of the K tasks, the positions of its training questions; may be empty.
        auxiliary: positions of questions without task; ``auxiliary_questions`` of them join every batch.
        choices: C. permute_options: shuffle the options of every question drawn.

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
    ) -> None:
        self._pools = [*pools, auxiliary if auxiliary is not None else np.empty(0, np.int64)]
        self._tasks = len(pools)
        self._batch_size, self._per_task = batch_size, questions_per_task
        self._seed, self._choices, self._permute = seed, choices, permute_options
        self._auxiliary_questions = auxiliary_questions if len(self._pools[-1]) else 0
        self._passes: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self._with_questions = np.array([len(pool) > 0 for pool in pools])
        # One entry per task, and a last one for the auxiliary questions.
        self._drawn = np.zeros(self._tasks + 1, np.int64)
        available = int(self._with_questions.sum())
        if questions_per_task is not None and batch_size // questions_per_task > available:
            raise ConfigError(
                f"A batch of {batch_size // questions_per_task} tasks x {questions_per_task} questions needs more "
                f"tasks than the {available} with training questions.",
                f"Try: --set sampler.questions_per_task={_fitting(batch_size, available)}, "
                "or null for independent draws.",
            )

    @property
    def drawn(self) -> NDArray[np.int64]:
        """Questions drawn of each task so far, K."""
        return self._drawn[:-1].copy()

    def state(self) -> list[int]:
        """All that a checkpoint has to keep: drawn questions of the K tasks and of the auxiliary pool."""
        return [int(n) for n in self._drawn]

    def restore(self, state: Sequence[int]) -> None:
        self._drawn = np.asarray(state, np.int64).copy()

    def draw(self, step: int, weights: NDArray[np.float64]) -> Draw:
        """The batch of ``step`` under task weights p_K. Advances the passes."""
        rng = np.random.default_rng([self._seed, _BATCHES, step])
        tasks = self._draw_tasks(rng, weights)
        tasks = np.concatenate([tasks, np.full(self._auxiliary_questions, self._tasks)])
        questions = np.array([self._next_question(int(task)) for task in tasks], np.int64)
        order = np.tile(np.arange(self._choices), (len(questions), 1))
        if self._permute:
            order = rng.permuted(order, axis=1)
        return Draw(questions, order)

    def _draw_tasks(self, rng: np.random.Generator, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        p = np.where(self._with_questions, np.asarray(weights, np.float64), 0.0)
        p /= p.sum()
        if self._per_task is None:
            return rng.choice(self._tasks, self._batch_size, p=p)
        gumbel = rng.gumbel(size=self._tasks)
        # Where p is 0 for tasks with questions (a collapsed curriculum), they still come last but above empty ones.
        key = np.log(np.maximum(p, 1e-300)) + gumbel
        key[~self._with_questions] = -np.inf
        chosen = np.argsort(-key, kind="stable")[: self._batch_size // self._per_task]
        return np.repeat(chosen, self._per_task)

    def _next_question(self, task: int) -> int:
        pool = self._pools[task]
        number, place = divmod(int(self._drawn[task]), len(pool))
        self._drawn[task] += 1
        held = self._passes.get(task)
        if held is None or held[0] != number:
            shuffled = np.random.default_rng([self._seed, _PASSES, task, number]).permutation(pool)
            held = self._passes[task] = (number, shuffled)
        return int(held[1][place])


def _fitting(batch_size: int, available: int) -> int:
    """The least questions per task that divide a batch and need no more than the available tasks."""
    return next(q for q in range(1, batch_size + 1) if batch_size % q == 0 and batch_size // q <= max(available, 1))
