"""The work of all candidates: the same model, built as a training process builds it, and the same steps."""

from __future__ import annotations

from typing import Any

from accl.bench.protocol import Candidate
from accl.bench.work import Shape, live_parameters
from accl.bench.worker import Parent
from accl.data.sampler import Draw
from accl.training.device import make_repeatable
from accl.training.setup import Workbench, build, make_sampler


class Schedule:
    """The steps of a window: always the same ones, on the same questions, so that windows and candidates compare.

    The first step lies where a run has left its warm-up behind and the memory bank is open.
    """

    def __init__(self, bench: Workbench, steps: int) -> None:
        self.bench, self.steps = bench, steps
        self.first = bench.bank_start + 1
        self._sampler = bench.sampler.state()
        self._weights = bench.curriculum.weights.copy()

    def restart(self) -> None:
        """Go back to the first step."""
        self.bench.sampler.restore(self._sampler)
        self.bench.curriculum.weights[:] = self._weights

    def draws(self) -> list[Draw]:
        """The questions of a window under the weights at its start."""
        self.restart()
        return [self.bench.sampler.draw(self.first + i, self._weights) for i in range(self.steps)]


def prepare(candidate: Candidate, parent: Parent) -> Schedule:
    """Build a candidate's model and data as a training process does, and schedule its steps."""
    make_repeatable(candidate.config.train.seed, candidate.config.train.deterministic)
    bench = build(candidate.config, parent.say)
    if candidate.min_tokens:
        train = bench.positions["train"]
        long = train[bench.assembler.lengths(train) >= candidate.min_tokens]
        bench.positions = {**bench.positions, "train": long}
        bench.sampler = make_sampler(bench.config, bench.blob, bench.positions, bench.tasks, bench.steps_per_epoch)
    return Schedule(bench, candidate.steps)


def describe(bench: Workbench, shape: Shape) -> dict[str, Any]:
    """Model and device of a candidate, for the report."""
    return {
        "model": bench.facts["model"]["description"],
        "parameters": bench.facts["model"]["parameters"],
        "trained_parameters": shape.parameters,
        "live_parameters": live_parameters(bench, shape),
        "device": bench.facts["device"],
    }
