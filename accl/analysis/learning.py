"""Power and sample efficiency of a comparison, from the answers and the validations of its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from accl.analysis.efficiency import SampleEfficiency, Training, read_training, sample_efficiency
from accl.analysis.power import MAX_SEEDS
from accl.analysis.results import Results
from accl.errors import AbsentError
from accl.text import listed

NAMED_ARMS = 3  # whose figures a sentence has one by one


def describe_power(n: int, seeds: int, smallest: Mapping[str, float], needed: Mapping[str, int | None]) -> str:
    """Describe in a sentence what n questions and some seeds could have shown, and the seeds for ±1 point.

    Args:
        smallest: `accl.analysis.power.smallest_difference` by arm. needed: `seeds_needed` by arm.
    """
    under = f"{seeds} seeds" if seeds > 1 else "one seed"
    could = _each({label: (value, f"{100 * value:.1f}") for label, value in smallest.items()})
    said = f"Power: {n:,} questions and {under} could have shown a difference of {could} points (with 80 % power)"
    enough = {
        label: (float(count), f"{count}") if count else (math.inf, f"over {MAX_SEEDS:,}")
        for label, count in needed.items()
        if count is not None
    }
    return f"{said}; an interval of ±1 point needs {_each(enough)} seeds." if enough else f"{said}."


def _each(figures: Mapping[str, tuple[float, str]]) -> str:
    """Write figures, given with their words by arm: one where all read alike, a few by name, or the range of many."""
    words = [word for _, word in sorted(figures.values())]
    if words[0] == words[-1]:
        return words[0]
    if len(words) <= NAMED_ARMS:
        return listed([f"{word} ({label})" for label, (_, word) in figures.items()], "or")
    return f"{words[0]} to {words[-1]}"


def read_efficiencies(arms: Sequence[Sequence[Results]]) -> list[SampleEfficiency | None]:
    """Return how soon each arm was as accurate on validation as the first; None for that, and where it is not known.

    Args:
        arms: results of each arm under the same seeds in the same order.

    Raises:
        RunError: as `accl.analysis.efficiency.read_training`, but for runs without validations.
    """
    trainings = [_trainings(row) for row in arms]
    first = trainings[0]
    return [None, *(sample_efficiency(first, row) if first and row else None for row in trainings[1:])]


def _trainings(results: Sequence[Results]) -> list[Training]:
    with suppress(AbsentError):
        return [read_training(result.setup) for result in results]
    return []
