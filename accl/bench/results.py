"""What a race found, as rows of a report and as a table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accl.bench.floor import Rates, floor_ms
from accl.bench.process import Entry, Ready, Window
from accl.bench.report import Row, figure, row

PEER = "Trainer"  # what a peer's name begins with

Pair = tuple[Window, Window]


@dataclass
class Result:
    """What became of one contestant: its windows, or why there are none (or fewer)."""

    entry: Entry
    ready: Ready | None = None
    windows: list[Window] = field(default_factory=list)
    failed: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Of its model and device; empty before it is ready."""
        return self.ready.facts if self.ready else {}

    @property
    def ms(self) -> list[float]:
        """Milliseconds per step of each window."""
        return [1000 * window.seconds / window.steps for window in self.windows]

    def rate(self, of: Callable[[Window], float]) -> list[float]:
        """Something of each window, per second."""
        return [of(window) / window.seconds for window in self.windows]


def report_rows(results: Sequence[Result], rates: Rates, pairs: Sequence[Pair]) -> list[Row]:
    """The device's rates, then every contestant's figures, then what can be said of several."""
    rows = [
        row(f"product of matrices, {rates.precision}", [rates.flops / 1e12], "TFLOP/s"),
        row("copy, read and written", [rates.bytes / 1e9], "GB/s"),
    ]
    for result in results:
        rows += _figures(result, rates, [peer for peer in results if not peer.entry.path])
    rows += _differences(results)
    if pairs:
        alone = statistics.median(results[0].rate(lambda window: window.questions))
        both = [_throughput(pair) for pair in pairs]
        name = f"two of {results[0].entry.name} at once"
        rows += [
            _row(name, "questions", both, "questions/s"),
            _row(name, "against one alone", [value / alone for value in both], "×"),
        ]
    return rows


def _row(who: str, measure: str, samples: Sequence[float], unit: str, **more: Any) -> Row:
    return row(f"{who}: {measure}", samples, unit, who=who, measure=measure, rounds=list(samples), **more)


def _figures(result: Result, rates: Rates, peers: Sequence[Result]) -> list[Row]:
    name, windows = result.entry.name, result.windows
    rows: list[Row] = []
    if result.failed is not None:
        words = f"{name}: failed: {result.failed}"
        rows.append({"what": words, "value": None, "unit": "", "spread": None, "target": None, "who": name})
    if not windows:
        return rows
    flops = result.rate(lambda window: window.flops)
    rows += [
        _row(name, "time of a step", result.ms, "ms"),
        _row(name, "questions", result.rate(lambda window: window.questions), "questions/s"),
        _row(name, "real tokens", result.rate(lambda window: window.tokens), "tokens/s"),
        _row(name, "use of the measured rate", [100 * value / rates.flops for value in flops], "%"),
    ]
    if rates.vendor_flops is not None:
        rows.append(_row(name, "use of the maker's rate", [100 * value / rates.vendor_flops for value in flops], "%"))
    held = max(windows, key=lambda window: window.memory)
    more = {} if held.allocated is None else {"tensors_mib": held.allocated / 2**20}
    rows.append(_row(name, "peak memory", [held.memory / 2**20], "MiB", **more))
    per_step = windows[0].flops / windows[0].steps
    for which, key in (("all parameters", "trained_parameters"), ("those that change", "live_parameters")):
        floor = floor_ms(per_step, result.facts[key], rates)
        distance = [ms / floor for ms in result.ms]
        rows.append(_row(name, f"distance from the floor, {which}", distance, "×", floor_ms=floor))
    if result.entry.compile:
        found = {key: result.facts[key] for key in ("compilations", "graph_breaks")}
        found["compilations_while_timed"] = sum(window.facts["compilations"] for window in windows)
        rows.append(_row(name, "compiling", [result.facts["compile_seconds"]], "s", **found))
    if result.entry.path:
        for peer in peers:
            if peer.windows:
                # Windows of the same round: what slows the machine for a while slows both.
                faster = [theirs / ours for theirs, ours in zip(peer.ms, result.ms, strict=False)]
                rows.append(_row(name, f"speed against {peer.entry.name}", faster, "×"))
    return rows


def _differences(results: Sequence[Result]) -> list[Row]:
    """What the contrastive loss and the tracking add to a step, within rounds and within a path."""
    rows: list[Row] = []
    for result in results:
        entry = result.entry
        for other in results:
            if entry.path and other.entry.path == entry.path:
                if not other.entry.tracking and entry.tracking and entry.config == other.entry.config:
                    rows += _difference("curriculum and confusion tracking", result, other)
                elif (
                    (entry.config.recipe, other.entry.config.recipe) == ("contrastive", "baseline")
                    and entry.tracking
                    and other.entry.tracking
                ):
                    rows += _difference("contrastive loss", result, other)
    return rows


def _difference(what: str, more: Result, less: Result) -> list[Row]:
    who = f"{what} ({more.entry.path})"
    added = [a - b for a, b in zip(more.ms, less.ms, strict=True)]
    shares = [100 * a / b for a, b in zip(added, less.ms, strict=True)]
    return [_row(who, "added to a step", added, "ms"), _row(who, "added, of a step", shares, "%")]


def _throughput(pair: Pair) -> float:
    """Questions of both per second, from the first one's start to the last one's end."""
    seconds = max(window.ended for window in pair) - min(window.began for window in pair)
    return sum(window.questions for window in pair) / seconds


def print_table(results: Sequence[Result], rows: Sequence[Row]) -> None:
    """One line for each contestant, then whatever is not of one contestant."""
    titles = {
        "time of a step": "ms/step",
        "questions": "questions/s",
        "real tokens": "tokens/s",
        "use of the measured rate": "use %",
        "use of the maker's rate": "of maker's %",
        "peak memory": "MiB",
        "distance from the floor, all parameters": "× floor",
        "distance from the floor, those that change": "× least",
        **{f"speed against {result.entry.name}": f"× {result.entry.name}" for result in results},
    }
    names = [result.entry.name for result in results]
    cells = {(found["who"], found["measure"]): _with_spread(found) for found in rows if "measure" in found}
    used = [measure for measure in titles if any((name, measure) in cells for name in names)]
    table = [["", *(titles[measure] for measure in used)]]
    table += [[name, *(cells.get((name, measure), "–") for measure in used)] for name in names]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *rest in table:
        padded = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *padded]).rstrip())  # noqa: T201
    print()  # noqa: T201
    for found in rows:
        if found.get("who") not in names or found.get("measure") not in used:
            value = "" if found["value"] is None else f": {_with_spread(found)} {found['unit']}"
            print(found["what"] + value)  # noqa: T201


def _with_spread(found: Row) -> str:
    half = "" if found["spread"] is None else f" ± {figure(found['spread'] / 2)}"
    return figure(found["value"]) + half
