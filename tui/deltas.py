"""Differences of two arms on their test questions, paired by seed, for a list that computes them in the background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accl.store.rundir import RunDir
from tui.arms import Group

MAX_SEEDS = 16  # more would cost a list seconds; the comparison itself takes them all


@dataclass(frozen=True)
class Pairing:
    """Tested runs of a reference and of another arm, seed by seed."""

    first: tuple[RunDir, ...]
    second: tuple[RunDir, ...]


@dataclass(frozen=True)
class Delta:
    """Test accuracy of the second arm minus the first's, as a fraction, with its 95 % interval over n seeds."""

    value: float
    low: float
    high: float
    seeds: int


def pairing(reference: Group, arm: Group) -> Pairing | None:
    """Pair the newest tested run of each seed; None without a seed that both arms have."""
    if reference.name == arm.name:
        return None
    first, second = reference.tested, arm.tested
    seeds = sorted(first.keys() & second.keys())[:MAX_SEEDS]
    if not seeds:
        return None
    return Pairing(tuple(first[seed].run for seed in seeds), tuple(second[seed].run for seed in seeds))


def difference(pairing: Pairing) -> Delta:
    """Read the answers of the runs and compare them, as the comparison does.

    Raises:
        AcclError: the answers of a run cannot be read, or are not to the same questions.
    """
    # Here, since they import the schema of the configuration, which an app that shows a list can do without.
    from accl.analysis.crossed import difference_over_seeds
    from accl.analysis.results import check_pairable, read_results
    from accl.analysis.stats import paired_difference

    results = [read_results(run) for run in (*pairing.first, *pairing.second)]
    check_pairable(results)
    rights = np.array([result.right for result in results])
    first, second = rights[: len(pairing.first)], rights[len(pairing.first) :]
    if len(first) == 1:
        one = paired_difference(first[0], second[0])
        return Delta(one.delta, one.low, one.high, 1)
    found = difference_over_seeds(first, second)
    return Delta(found.delta, found.low, found.high, found.seeds)
