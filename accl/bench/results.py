"""The results of a comparison, and the rows that a report has of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accl.bench.protocol import Candidate, MeasuredWindow, Ready
from accl.bench.report import Row, row
from accl.bench.roofline import Rates, roofline_ms

Pair = tuple[MeasuredWindow, MeasuredWindow]


@dataclass
class Result:
    """The measurements of one candidate: its windows, and the reason where it failed."""

    candidate: Candidate
    ready: Ready | None = None
    windows: list[MeasuredWindow] = field(default_factory=list)
    failed: str | None = None

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def description(self) -> dict[str, Any]:
        """The candidate's model and device; empty before it is ready."""
        return self.ready.description if self.ready else {}

    @property
    def ms(self) -> list[float]:
        """Milliseconds per step of each window."""
        return [window.ms_per_step for window in self.windows]

    def per_second(self, amount: Callable[[MeasuredWindow], float]) -> list[float]:
        """An amount of each window, per second."""
        return [amount(window) / window.seconds for window in self.windows]


def report_rows(results: Sequence[Result], rates: Rates, pairs: Sequence[Pair]) -> list[Row]:
    """The device's rates, then every candidate's figures, then differences between candidates."""
    rows = [
        row(f"product of matrices, {rates.precision}", [rates.flops / 1e12], "TFLOP/s"),
        row("copy, read and written", [rates.bytes / 1e9], "GB/s"),
    ]
    for result in results:
        if result.failed is not None:
            what = f"{result.name}: failed: {result.failed}"
            rows.append({"what": what, "value": None, "unit": "", "spread": None, "target": None, "who": result.name})
        if result.windows:
            rows += _figures(result, rates)
            if result.candidate.backend:
                rows += [_speedup(result, peer) for peer in results if peer.windows and not peer.candidate.backend]
    rows += _differences(results)
    if pairs:
        name = f"two of {results[0].name} at once"
        alone = statistics.median(results[0].per_second(lambda window: window.questions))
        both = [_throughput(pair) for pair in pairs]
        rows.append(_row(name, "questions", both, "questions/s"))
        rows.append(_row(name, "against one alone", [value / alone for value in both], "×"))
    return rows


def _row(who: str, measure: str, samples: Sequence[float], unit: str, **more: Any) -> Row:
    return row(f"{who}: {measure}", samples, unit, who=who, measure=measure, rounds=list(samples), **more)


def _figures(result: Result, rates: Rates) -> list[Row]:
    name, windows, description = result.name, result.windows, result.description
    flops = result.per_second(lambda window: window.flops)
    rows = [
        _row(name, "time of a step", result.ms, "ms"),
        _row(name, "questions", result.per_second(lambda window: window.questions), "questions/s"),
        _row(name, "real tokens", result.per_second(lambda window: window.tokens), "tokens/s"),
        _row(name, "use of the measured rate", [100 * value / rates.flops for value in flops], "%"),
    ]
    if rates.vendor_flops is not None:
        rows.append(_row(name, "use of the maker's rate", [100 * value / rates.vendor_flops for value in flops], "%"))
    peak = max(windows, key=lambda window: window.memory)
    more = {} if peak.allocated is None else {"tensors_mib": peak.allocated / 2**20}
    rows.append(_row(name, "peak memory", [peak.memory / 2**20], "MiB", **more))
    per_step = windows[0].flops / windows[0].steps
    for which, key in (("all parameters", "trained_parameters"), ("those that change", "live_parameters")):
        bound = roofline_ms(per_step, description[key], rates)
        distance = [ms / bound for ms in result.ms]
        rows.append(_row(name, f"distance from the floor, {which}", distance, "×", floor_ms=bound))
    if result.candidate.compile:
        counts = {key: description[key] for key in ("compilations", "graph_breaks")}
        counts["compilations_while_timed"] = sum(window.compilations for window in windows)
        rows.append(_row(name, "compiling", [description["compile_seconds"]], "s", **counts))
    return rows


def _speedup(result: Result, peer: Result) -> Row:
    """Ratios of windows of the same round: what slows the machine for a while slows both."""
    ratios = [theirs / ours for theirs, ours in zip(peer.ms, result.ms, strict=False)]
    return _row(result.name, f"speed against {peer.name}", ratios, "×")


def _differences(results: Sequence[Result]) -> list[Row]:
    """Time that the contrastive loss and the tracking add to a step, within rounds and within a backend."""
    rows: list[Row] = []
    for more in results:
        for less in results:
            one, other = more.candidate, less.candidate
            if not (one.backend and one.backend == other.backend and one.tracking):
                continue
            if not other.tracking and one.config == other.config:
                rows += _difference("curriculum and confusion tracking", more, less)
            elif other.tracking and (one.config.recipe, other.config.recipe) == ("contrastive", "baseline"):
                rows += _difference("contrastive loss", more, less)
    return rows


def _difference(what: str, more: Result, less: Result) -> list[Row]:
    who = f"{what} ({more.candidate.backend})"
    added = [a - b for a, b in zip(more.ms, less.ms, strict=True)]
    shares = [100 * a / b for a, b in zip(added, less.ms, strict=True)]
    return [_row(who, "added to a step", added, "ms"), _row(who, "added, of a step", shares, "%")]


def _throughput(pair: Pair) -> float:
    """Questions of both per second, from the first one's start to the last one's end."""
    seconds = max(window.ended for window in pair) - min(window.began for window in pair)
    return sum(window.questions for window in pair) / seconds
