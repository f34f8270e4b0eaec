"""Groups of runs: those of an arm have the same configuration, and differ by their seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from accl.store.state import State
from tui.feed import RunSummary

BASELINE = "baseline"


def arm_of(summary: RunSummary) -> tuple[str, str]:
    """Return the name of the arm, which is the recipe where nothing else tells it from others, and the profile."""
    return summary.arm or summary.setup.recipe, summary.setup.profile


GROUPINGS: Mapping[str, Callable[[RunSummary], tuple[str, ...]]] = {
    "arm": arm_of,
    "profile": lambda summary: (summary.setup.profile,),
    "experiment": lambda summary: (summary.summary.experiment or "no experiment",),
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

    @cached_property
    def is_arm(self) -> bool:
        """Whether its runs differ by nothing but the seed, as far as their setups tell."""
        return len({arm_of(summary) for summary in self.runs}) == 1

    @property
    def profile(self) -> str:
        """Profile of its first run, which is that of all runs of an arm."""
        return self.runs[0].setup.profile

    @property
    def is_baseline(self) -> int:
        """How well it does as a reference: 2 for the baseline, 1 for one of several baselines, 0 for others."""
        return (self.runs[0].setup.recipe == BASELINE) + (arm_of(self.runs[0])[0] == BASELINE)

    @cached_property
    def tests(self) -> tuple[float, ...]:
        """Test accuracy of every seed, that of its newest run that has one: a repeated seed is no further sample."""
        runs = sorted(self.runs, key=lambda each: each.summary.age_key)
        by_seed = {each.setup.seed: test for each in runs if math.isfinite(test := each.latest("test/accuracy"))}
        return tuple(by_seed.values())

    @cached_property
    def tested(self) -> dict[int, RunSummary]:
        """The newest run that was tested in the end, by seed."""
        runs = sorted(self.runs, key=lambda each: each.summary.age_key)
        ended = (each for each in runs if each.state.state is State.FINISHED)
        return {each.setup.seed: each for each in ended if "test/accuracy" in each.state.latest}

    @cached_property
    def mean(self) -> float:
        """Mean test accuracy, NaN without any."""
        return float(np.mean(self.tests)) if self.tests else math.nan

    @cached_property
    def sd(self) -> float:
        """Standard deviation of the test accuracies, with n - 1 in the denominator; NaN for fewer than two."""
        return float(np.std(self.tests, ddof=1)) if len(self.tests) > 1 else math.nan

    @cached_property
    def validated(self) -> float:
        """Mean over the seeds of the validation accuracy of the best weights, NaN without any."""
        runs = sorted(self.runs, key=lambda each: each.summary.age_key)
        by_seed = {each.setup.seed: each.validated for each in runs if math.isfinite(each.validated)}
        return float(np.mean(list(by_seed.values()))) if by_seed else math.nan


def grouped(summaries: Sequence[RunSummary], grouping: str) -> list[Group]:
    """Put runs together by a key of `GROUPINGS`, or all of them; a group stands where its first run stood."""
    name_of = GROUPINGS.get(grouping)
    found: dict[tuple[str, ...], list[RunSummary]] = {}
    for summary in summaries:
        found.setdefault(name_of(summary) if name_of else (), []).append(summary)
    return [Group(name, tuple(runs)) for name, runs in found.items()]


@dataclass(frozen=True)
class Reference:
    """The arm that the others of its profile are compared with; ``alone`` if there is no other."""

    arm: Group
    alone: bool

    @cached_property
    def by_seed(self) -> dict[int, RunSummary]:
        """Runs by seed, of several with one seed the newest; the newest of all comes last."""
        runs = sorted(self.arm.runs, key=lambda each: each.summary.age_key)
        return {each.setup.seed: each for each in runs}

    def counterpart(self, summary: RunSummary) -> RunSummary:
        """Return the run with the same seed; the newest seed's where there is none."""
        by_seed = self.by_seed
        return by_seed.get(summary.setup.seed) or next(reversed(by_seed.values()))


def references(arms: Sequence[Group]) -> dict[str, Reference]:
    """Return the reference of each profile: the baseline, of several the oldest, or else the oldest arm."""
    found: dict[str, Group] = {}
    for arm in sorted(arms, key=lambda arm: min(each.summary.age_key for each in arm.runs)):
        if (before := found.get(arm.profile)) is None or arm.is_baseline > before.is_baseline:
            found[arm.profile] = arm
    counts = Counter(profile for _, profile in (arm.name for arm in arms))
    return {profile: Reference(arm, counts[profile] == 1) for profile, arm in found.items()}
