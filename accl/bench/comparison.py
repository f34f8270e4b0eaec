"""The comparison of candidates: their workers take turns, so that what slows the machine for a while slows all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from accl.bench.process import BenchWorker
from accl.bench.protocol import RATES, WINDOW, Candidate, MeasuredWindow, Ready
from accl.bench.results import Pair, Result
from accl.bench.roofline import Rates
from accl.errors import AcclError


@dataclass
class Comparison:
    """Workers that take turns; a peer that fails drops out with its reason.

    Attributes:
        limit: seconds allowed for building and warming up, and for a window.
        say: receives progress.
        stack: ends every worker when it is closed.
        results: what was measured of each candidate so far, in the order in which they were added.
        workers: the processes that run, by the candidate's name.
    """

    limit: float
    say: Callable[[str], None]
    stack: ExitStack
    results: list[Result] = field(default_factory=list)
    workers: dict[str, BenchWorker] = field(default_factory=dict)

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Start workers beside each other, and wait until all are ready or have failed.

        Raises:
            AcclError: one of accl's own failed.
        """
        for candidate in candidates:
            self.results.append(Result(candidate))
            self.workers[candidate.name] = self._start(candidate)
        for result in self.results[-len(candidates) :]:
            ready = self._try(result, lambda worker: worker.ready(self.limit))
            if isinstance(ready, Ready):
                result.ready = ready
                self.say(f"{result.name}: ready, {ready.warmup_steps} steps in {ready.warmup_seconds:.1f} s")

    def remove(self, name: str) -> None:
        """End a candidate's process, if it still runs; its windows stay."""
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.close()

    def rates(self) -> Rates:
        """Measure the device's rates while all workers wait."""
        worker = next(iter(self.workers.values()))
        worker.ask(RATES)
        rates: Rates = worker.answer(self.limit)
        return rates

    def rounds(self, number: int) -> None:
        """Time ``number`` windows of each candidate that still runs, in turns."""
        for done in range(number):
            self.say(f"round {done + 1} of {number}")
            for result in self.results:
                window = self._try(result, lambda worker: worker.window(self.limit))
                if isinstance(window, MeasuredWindow):
                    result.windows.append(window)
                    self.say(f"{result.name}: {window.ms_per_step:.2f} ms/step")

    def pairs(self, number: int) -> list[Pair]:
        """Time windows of the first candidate and of a second process like it, begun at the same time."""
        candidate = self.results[0].candidate
        second = self._start(candidate)
        second.ready(self.limit)
        both = (self.workers[candidate.name], second)
        pairs: list[Pair] = []
        for _ in range(number):
            for worker in both:
                worker.ask(WINDOW)
            one, two = (worker.answer(self.limit) for worker in both)
            pairs.append((one, two))
            self.say(f"together: {one.ms_per_step:.2f}, {two.ms_per_step:.2f} ms/step")
        return pairs

    def _start(self, candidate: Candidate) -> BenchWorker:
        worker = BenchWorker(candidate, lambda phase: self.say(f"{candidate.name}: {phase}"))
        self.stack.callback(worker.close)
        return worker

    def _try(self, result: Result, act: Callable[[BenchWorker], Any]) -> Any:
        worker = self.workers.get(result.name)
        if worker is None:
            return None
        try:
            return act(worker)
        except AcclError as error:
            if result.candidate.backend:
                raise
            result.failed = str(error)
            self.say(f"{result.name}: failed: {error}")
            self.remove(result.name)
            return None
