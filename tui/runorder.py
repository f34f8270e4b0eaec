"""The order of the list of runs: by a column, or by a configuration key or metric that the user types."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from accl.store.config_values import default_values
from accl.store.run_subject import RunSubject
from accl.store.vocabulary import CONFIG, RUNS
from tui.feed import RunSummary
from tui.runrows import SORTS


def value_of(key: str) -> Callable[[RunSummary], object]:
    """Return the value of runs by the title of a column, a key of queries, a configuration key, or a metric."""
    if key in SORTS:
        return SORTS[key]
    name = CONFIG + key if key in default_values() else key
    if RUNS.find(name) is None:
        return lambda summary: summary.state.latest.get(key)
    now = time.time()
    return lambda summary: RunSubject(summary.summary, now).get(name)


def problem_of(key: str, summaries: Sequence[RunSummary]) -> str:
    """Say why runs cannot be sorted by a key; empty where they can."""
    if any(value_of(key)(summary) is not None for summary in summaries):
        return ""
    near = RUNS.nearest(key)
    return f"No run has {key!r}." + (f" Did you mean {near!r}?" if near else "")


def ordered(summaries: Sequence[RunSummary], sort: str) -> list[RunSummary]:
    """Sort by a key and an arrow, ▼ from the largest on; unknown values, None and NaN, come last."""
    if not sort:
        return list(summaries)
    value = value_of(sort[:-1])
    values = {summary.run: value(summary) for summary in summaries}
    known = [each for each in summaries if (v := values[each.run]) is not None and v == v]
    unknown = [each for each in summaries if (v := values[each.run]) is None or v != v]
    return sorted(known, key=lambda each: _rank(values[each.run]), reverse=sort[-1] == "▼") + unknown


def _rank(value: object) -> tuple[bool, object]:
    """Return by what values are compared: all texts are larger than all numbers."""
    return isinstance(value, str), value
