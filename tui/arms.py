"""Groups of runs: an arm is a recipe with a profile, and its runs differ by their seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tui.feed import RunSummary

BASELINE = "baseline"


def arm_of(summary: RunSummary) -> tuple[str, str]:
    """Return recipe and profile."""
    return summary.setup.recipe, summary.setup.profile


GROUPINGS: Mapping[str, Callable[[RunSummary], tuple[str, ...]]] = {
    "arm": arm_of,
    "profile": lambda summary: (summary.setup.profile,),
    "state": lambda summary: (summary.state_label[0][2:],),
}


@dataclass(frozen=True)
class Group:
    """Runs that a grouping puts together, in the order of the list."""

    name: tuple[str, ...]
    runs: tuple[RunSummary, ...]

    @property
    def key(self) -> str:
        """Key of its row; the id of a run never holds such a sign."""
        return "\n".join(("group", *self.name))

    @property
    def is_arm(self) -> bool:
        """Whether its runs differ by nothing but the seed, as far as their setups tell."""
        return len({arm_of(summary) for summary in self.runs}) == 1

    @cached_property
    def tests(self) -> tuple[float, ...]:
        """Test accuracies of the runs that have one."""
        return tuple(test for each in self.runs if math.isfinite(test := each.latest("test/accuracy")))

    @property
    def mean(self) -> float:
        """Mean test accuracy, NaN without any."""
        return float(np.mean(self.tests)) if self.tests else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation of the test accuracies, with n - 1 in the denominator; NaN for fewer than two."""
        return float(np.std(self.tests, ddof=1)) if len(self.tests) > 1 else math.nan

    @property
    def validated(self) -> float:
        """Best validation accuracy of a run, NaN without any."""
        return max((each.validated for each in self.runs if math.isfinite(each.validated)), default=math.nan)


def grouped(summaries: Sequence[RunSummary], grouping: str) -> list[Group]:
    """Put runs together by a key of `GROUPINGS`; a group stands where its first run stood."""
    found: dict[tuple[str, ...], list[RunSummary]] = {}
    for summary in summaries:
        found.setdefault(GROUPINGS[grouping](summary), []).append(summary)
    return [Group(name, tuple(runs)) for name, runs in found.items()]


def references(arms: Sequence[Group]) -> dict[str, Group]:
    """Return the arm of each profile that the others are compared with: the baseline, or else the oldest."""
    by_profile: dict[str, Group] = {}
    for arm in sorted(arms, key=lambda arm: min(each.summary.age_key for each in arm.runs)):
        profile = arm.name[1]
        if profile not in by_profile or arm.name[0] == BASELINE:
            by_profile[profile] = arm
    return by_profile


def counterpart(summary: RunSummary, reference: Group) -> RunSummary:
    """Return the run of the reference with the same seed, of several the newest; any where there is none."""
    runs = sorted(reference.runs, key=lambda each: (each.setup.seed == summary.setup.seed, each.summary.age_key))
    return runs[-1]
