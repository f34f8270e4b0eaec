"""The results of a comparison, and the rows that a report has of them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accl.bench.protocol import Candidate, MeasuredWindow, Rates, Work
from accl.bench.report import Row, row
from accl.bench.whole import WholeRun
from accl.bench.worker import BenchWorker

# Bytes that one fp32 parameter moves in one step: AdamW reads parameter, gradient and two moments, and writes all but
# the gradient; the backward pass writes the gradient, and clipping reads it for the norm.
UPDATE_BYTES = (7 + 2) * 4
# What the rows of a whole run are of, besides its phases.
WHOLE, READY = "whole run", "ready for the first step"

Pair = tuple[MeasuredWindow, MeasuredWindow]


@dataclass
class Result:
    """The measurements of one candidate.

    Attributes:
        worker: its process, while that runs.
        description: model and device; empty before the worker is ready.
        failed: the reason why there are no further windows.
    """

    candidate: Candidate
    worker: BenchWorker | None = None
    description: dict[str, Any] = field(default_factory=dict)
    windows: list[MeasuredWindow] = field(default_factory=list)
    failed: str | None = None

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def ms(self) -> list[float]:
        """Milliseconds per step of each window."""
        return [window.ms_per_step for window in self.windows]

    def per_second(self, amount: Callable[[Work], float]) -> list[float]:
        """An amount of each window, per second."""
        return [amount(window.work) / window.seconds for window in self.windows]


def roofline_ms(flops: float, parameters: int, rates: Rates) -> float:
    """Return the milliseconds that no step which updates ``parameters`` fp32 parameters can beat.

    They are the operations at the rate of products, then the optimizer's bytes at that of copies: an optimizer step
    needs every gradient's norm first, so it cannot run beside the products. A backend that leaves the updates of words
    to the steps that read them moves fewer bytes.
    """
    return 1000 * (flops / rates.flops + parameters * UPDATE_BYTES / rates.bytes)


def rate_rows(rates: Rates) -> list[Row]:
    """Return the rows of a device's rates."""
    return [
        row(f"product of matrices, {rates.precision}", [rates.flops / 1e12], "TFLOP/s"),
        row("copy, read and written", [rates.bytes / 1e9], "GB/s"),
    ]


def failure_row(who: str, reason: str, peer: str = "") -> Row:
    """Return the row of something that could not be measured; ``peer`` is set where it is none of accl's."""
    return row(f"{who}: failed: {reason}", [], "", who=who, failed=reason, peer=peer)


def whole_rows(who: str, whole: WholeRun) -> list[Row]:
    """Return the seconds of a whole run, and those of its phases with their shares."""
    parts = {WHOLE: whole.seconds, READY: whole.ready, **whole.phases}
    return [
        row(f"{who}: {phase}", [seconds], "s", who=who, phase=phase, share=seconds / whole.seconds, steps=whole.steps)
        for phase, seconds in parts.items()
    ]


def report_rows(results: Sequence[Result], rates: Rates | None, pairs: Sequence[Pair]) -> list[Row]:
    """Return every candidate's figures, then differences between candidates; without rates no multiples of them."""
    rows: list[Row] = []
    for result in results:
        if result.failed is not None:
            rows.append(failure_row(result.name, result.failed, result.candidate.peer))
        if result.windows:
            rows += _figures(result, rates)
            if result.candidate.backend:
                rows += [_speedup(result, peer) for peer in results if peer.windows and not peer.candidate.backend]
    rows += _differences(results)
    if pairs and results[0].windows:
        name = f"two of {results[0].name} at once"
        alone = statistics.median(results[0].per_second(lambda work: work.questions))
        both = [_throughput(pair) for pair in pairs]
        rows.append(_row(name, "questions", both, "questions/s"))
        rows.append(_row(name, "against one alone", [value / alone for value in both], "×"))
    return rows


def _row(who: str, measure: str, samples: Sequence[float], unit: str, **more: Any) -> Row:
    return row(f"{who}: {measure}", samples, unit, who=who, measure=measure, rounds=list(samples), **more)


def _figures(result: Result, rates: Rates | None) -> list[Row]:
    name, windows, description = result.name, result.windows, result.description
    backend = {key: description[key] for key in ("backend", "why") if key in description}
    rows = [
        _row(name, "time of a step", result.ms, "ms", peer=result.candidate.peer, **backend),
        _row(name, "questions", result.per_second(lambda work: work.questions), "questions/s"),
        _row(name, "real tokens", result.per_second(lambda work: work.tokens), "tokens/s"),
        *(_of_the_rates(result, rates) if rates else []),
    ]
    peak = max(windows, key=lambda window: window.memory)
    more = {} if peak.allocated is None else {"tensors_mib": peak.allocated / 2**20}
    rows.append(_row(name, "peak memory", [peak.memory / 2**20], "MiB", **more))
    if result.candidate.compile:
        counts = {key: description[key] for key in ("compilations", "graph_breaks")}
        counts["compilations_while_timed"] = sum(window.compilations for window in windows)
        rows.append(_row(name, "compiling", [description["compile_seconds"]], "s", **counts))
    return rows


def _of_the_rates(result: Result, rates: Rates) -> list[Row]:
    """Return the share of the device's rates that the steps reach, and how many times the roofline they take."""
    name, description, work = result.name, result.description, result.windows[0].work
    flops = result.per_second(lambda work: work.flops)
    rows = [_row(name, "use of the measured rate", [100 * value / rates.flops for value in flops], "%")]
    if rates.vendor_flops is not None:
        rows.append(_row(name, "use of the maker's rate", [100 * value / rates.vendor_flops for value in flops], "%"))
    for which, key in (("all parameters", "trained_parameters"), ("those that change", "live_parameters")):
        bound = roofline_ms(work.flops / work.steps, description[key], rates)
        distance = [ms / bound for ms in result.ms]
        rows.append(_row(name, f"distance from the floor, {which}", distance, "×", floor_ms=bound))
    return rows


def _speedup(result: Result, peer: Result) -> Row:
    """Ratios of windows of the same round: what slows the machine for a while slows both."""
    ratios = [theirs / ours for theirs, ours in zip(peer.ms, result.ms, strict=False)]
    return _row(result.name, f"speed against {peer.name}", ratios, "×")


def _differences(results: Sequence[Result]) -> list[Row]:
    """Time that the contrastive loss and the tracking add to a step, within rounds and within a backend."""
    rows: list[Row] = []
    for more, less in itertools.permutations(results, 2):
        one, other = more.candidate, less.candidate
        if not (one.backend and one.backend == other.backend and one.tracking):
            continue
        if not other.tracking and one.config == other.config:
            what = "curriculum and confusion tracking"
        elif other.tracking and (one.config.recipe, other.config.recipe) == ("contrastive", "baseline"):
            what = "contrastive loss"
        else:
            continue
        # A candidate that failed has fewer windows.
        added = [a - b for a, b in zip(more.ms, less.ms, strict=False)]
        shares = [100 * a / b for a, b in zip(added, less.ms, strict=False)]
        if not added:
            continue
        who = f"{what} ({one.backend})"
        rows += [_row(who, "added to a step", added, "ms"), _row(who, "added, of a step", shares, "%")]
    return rows


def _throughput(pair: Pair) -> float:
    """Questions of both per second, from the first one's start to the last one's end."""
    seconds = max(window.ended for window in pair) - min(window.began for window in pair)
    return sum(window.work.questions for window in pair) / seconds
