"""The order of the list of runs: by a column, or by a configuration key or metric that the user types."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from accl.store.run_subject import RunSubject
from accl.store.vocabulary import RUNS
from tui.arms import Group
from tui.feed import RunSummary
from tui.runrows import SORTS

Entry = TypeVar("Entry")


def value_of(key: str) -> Callable[[RunSummary], object]:
    """Return the value of runs by the title of a column, a key of queries, a configuration key, or a metric."""
    if key in SORTS:
        return SORTS[key]
    found = RUNS.find(key)
    if found is None:
        return lambda summary: summary.state.latest.get(key)
    name, now = found.name, time.time()
    return lambda summary: RunSubject(summary.summary, now).get(name)


def problem_of(key: str, summaries: Sequence[RunSummary]) -> str:
    """Say why runs cannot be sorted by a key; empty where they can."""
    if any(value_of(key)(summary) is not None for summary in summaries):
        return ""
    near = RUNS.nearest(key)
    return f"No run has {key!r}." + (f" Did you mean {near!r}?" if near else "")


def ordered(summaries: Sequence[RunSummary], sort: str) -> list[RunSummary]:
    """Sort by a key and an arrow, ▼ from the largest on; unknown values, None and NaN, come last."""
    return _ordered(summaries, value_of(sort[:-1]), sort) if sort else list(summaries)


def groups_ordered(groups: Sequence[Group], sort: str) -> list[Group]:
    """Sort groups of ordered runs by the mean of a number over their runs, and by any other value of the first."""
    if not sort:
        return list(groups)
    value = value_of(sort[:-1])

    def mean(group: Group) -> object:
        known = [found for each in group.runs if _is_known(found := value(each))]
        numbers = [found for found in known if isinstance(found, int | float)]
        return float(np.mean(numbers)) if numbers else next(iter(known), None)

    return _ordered(groups, mean, sort)


def _ordered(entries: Sequence[Entry], value: Callable[[Entry], object], sort: str) -> list[Entry]:
    values = [(value(entry), entry) for entry in entries]
    known = [(found, entry) for found, entry in values if _is_known(found)]
    # All texts are larger than all numbers.
    known.sort(key=lambda each: (isinstance(each[0], str), each[0]), reverse=sort[-1] == "▼")
    return [entry for _, entry in known] + [entry for found, entry in values if not _is_known(found)]


def _is_known(value: object) -> bool:
    return value is not None and value == value
