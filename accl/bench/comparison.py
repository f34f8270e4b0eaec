"""The comparison of candidates: their workers take turns, so that what slows the machine for a while slows all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from accl.bench.protocol import RATES, WINDOW, Candidate, Rates
from accl.bench.results import Pair, Result
from accl.bench.worker import BenchWorker
from accl.errors import AcclError


@dataclass
class Comparison:
    """Workers that take turns; a candidate that fails drops out with its reason.

    Attributes:
        limit: seconds allowed for building and warming up, and for a window.
        say: receives progress.
        stack: ends every worker when it is closed.
        results: what was measured of each candidate so far, in the order in which they were added.
    """

    limit: float
    say: Callable[[str], None]
    stack: ExitStack
    results: list[Result] = field(default_factory=list)

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Start workers beside each other, and wait until all are ready or have failed."""
        added = [Result(candidate, self._start(candidate)) for candidate in candidates]
        self.results += added
        for result in added:
            result.description = self._answer(result) or {}

    @property
    def running(self) -> list[Result]:
        """The candidates that neither failed nor were removed."""
        return [result for result in self.results if result.worker]

    def rates(self) -> Rates | None:
        """Measure the device's rates while all workers wait; None where the worker that was asked failed."""
        rates: Rates | None = self._answer(self.running[0], RATES)
        return rates

    def rounds(self, number: int) -> None:
        """Time ``number`` windows of each candidate that still runs, in turns."""
        for done in range(number if self.running else 0):
            self.say(f"round {done + 1} of {number}")
            for result in self.running:
                if window := self._answer(result, WINDOW):
                    result.windows.append(window)
                    self.say(f"{result.name}: {window.ms_per_step:.2f} ms/step")

    def pairs(self, number: int) -> list[Pair]:
        """Time windows of the first candidate and of a second process like it, begun at the same time.

        Raises:
            AcclError: one of the two failed.
        """
        first, second = self.results[0].worker, self._start(self.results[0].candidate)
        assert first is not None
        second.answer()
        pairs: list[Pair] = []
        for _ in range(number):
            first.ask(WINDOW)
            second.ask(WINDOW)
            one, two = first.answer(), second.answer()
            pairs.append((one, two))
            self.say(f"together: {one.ms_per_step:.2f}, {two.ms_per_step:.2f} ms/step")
        return pairs

    def _start(self, candidate: Candidate) -> BenchWorker:
        worker = BenchWorker(candidate, self.limit, lambda phase: self.say(f"{candidate.name}: {phase}"))
        self.stack.callback(worker.close)
        return worker

    def remove(self, result: Result) -> None:
        """End a candidate's process; its windows stay."""
        if result.worker:
            result.worker.close()
            result.worker = None

    def _answer(self, result: Result, command: str | None = None) -> Any:
        """Return the answer of a worker that runs; None where it failed."""
        assert result.worker is not None
        try:
            if command:
                result.worker.ask(command)
            return result.worker.answer()
        except AcclError as error:
            result.failed = str(error)
            self.say(f"{result.name}: failed: {error}")
            self.remove(result)
            return None
