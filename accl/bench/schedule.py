"""The steps of all candidates: the same model, built as a training process builds it, on the same questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from accl.bench.protocol import Candidate, Work
from accl.bench.work import lengths_of, live_parameters, shape_of
from accl.data.sampler import Draw
from accl.training.context import TrainingContext
from accl.training.device import set_determinism
from accl.training.setup import build_context, make_sampler


class Schedule:
    """The steps of a window: always the same ones, on the same questions, so that windows and candidates compare.

    The first step lies where a run has left its warm-up behind and the memory bank is open.
    """

    def __init__(self, context: TrainingContext, steps: int) -> None:
        self.context, self.steps = context, steps
        self.first = context.bank_start + 1
        self._shape = shape_of(context)
        self._sampler = context.sampler.state()
        self._weights = context.curriculum.weights.copy()

    def restart(self) -> None:
        """Go back to the first step."""
        self.context.sampler.restore(self._sampler)
        self.context.curriculum.weights[:] = self._weights

    def draws(self) -> list[Draw]:
        """Return the draws of a window under the weights at its start."""
        self.restart()
        return [self.context.sampler.draw(self.first + i, self._weights) for i in range(self.steps)]

    def work(self, draws: Sequence[Draw]) -> Work:
        """Return the work of one step for each draw."""
        lengths_N = lengths_of(self.context.assembler, draws)
        questions = sum(len(draw.questions) for draw in draws)
        flops = self._shape.flops(lengths_N, questions, len(draws))
        return Work(len(draws), questions, int(lengths_N.sum()), flops)

    def description(self) -> dict[str, Any]:
        """Describe model and device, for the report."""
        model = self.context.provenance.model
        return {
            "model": model.description,
            "parameters": model.parameters,
            "trained_parameters": self._shape.parameters,
            "live_parameters": live_parameters(self.context, self._shape),
            "device": self.context.provenance.device,
        }


def prepare(candidate: Candidate, say: Callable[[str], None]) -> Schedule:
    """Build a candidate's model and data as a training process does, and schedule its steps."""
    set_determinism(candidate.config.train.seed, candidate.config.train.deterministic)
    context = build_context(candidate.config, say)
    if candidate.min_tokens:
        train = context.positions["train"]
        long = train[context.assembler.lengths(train) >= candidate.min_tokens]
        context.positions = {**context.positions, "train": long}
        context.sampler = make_sampler(
            context.config, context.blob, context.positions, context.tasks, context.steps_per_epoch
        )
    return Schedule(context, candidate.steps)
