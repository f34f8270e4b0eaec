"""The contents of a report, read from the runs; a run that cannot be read is left out, and the report says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from accl.analysis.arms import ArmsComparison, compare_arms
from accl.analysis.armset import ArmSet, choose_armsets, left_out
from accl.analysis.figures import (
    SIMILARITY,
    Matrix,
    Panel,
    Weights,
    confusion_matrices,
    curve_panels,
    measure_run,
    task_weights,
)
from accl.analysis.grouping import Arm
from accl.analysis.results import Results, read_results
from accl.errors import AbsentError, AcclError
from accl.store.deadline import DEADLINE_S, within
from accl.store.measurements import Measurements
from accl.store.provenance import read_provenance
from accl.store.reader import Task
from accl.store.state import RunState, observe
from accl.text import listed

Read = TypeVar("Read")

NEEDS = ("curves", "curriculum", "confusion")
METRICS = (
    "train/loss",
    "validation/accuracy",
    "validation/loss",
    "train/contrastive",
    "validation/ece",
    "curriculum/effective_tasks",
)


@dataclass(frozen=True)
class Part:
    """Runs on equal terms, and all that is known of them.

    Attributes:
        measured: of each run in ``chosen.setups``; empty where they cannot be read.
        states, provenance: of each run; None and empty where they cannot be read.
        comparison: of the arms on the test questions, as far as the runs were tested.
        panels, weights, matrices, differences: what is drawn; empty where it was not recorded.
        problems: what is missing, and why.
    """

    chosen: ArmSet
    measured: tuple[Measurements, ...]
    states: tuple[RunState | None, ...]
    provenance: tuple[dict[str, Any], ...]
    comparison: ArmsComparison
    panels: tuple[Panel, ...]
    weights: tuple[Weights, ...]
    matrices: tuple[Matrix, ...]
    differences: tuple[Matrix, ...]
    problems: tuple[str, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of the runs, in index order."""
        return next((measured.tasks for measured in self.measured if measured.tasks), ())

    def validation(self, arm: Arm) -> list[float]:
        """Return the validation accuracy of each run that has one: of the weights tested, or else the best."""
        values = [_validation(self.measured[i]) for i in arm.members]
        return [value for value in values if math.isfinite(value)]

    def totals(self, arm: Arm, key: str) -> list[float]:
        """Return a number that runs recorded at their end, such as ``training_seconds``, of each run that has it."""
        found = []
        for i in arm.members:
            try:
                found.append(float(self.measured[i].meta[key]))
            except (KeyError, ValueError):
                continue
        return [value for value in found if math.isfinite(value)]


@dataclass(frozen=True)
class Report:
    """A report: a part for each set of runs on equal terms."""

    title: str
    parts: tuple[Part, ...]


def gather(
    root: Path, names: Sequence[str] = (), *, profile: str | None = None, reference: str | None = None
) -> Report:
    """Read what a report of runs shows; the arguments are those of `choose_armsets`.

    Raises:
        CompareError, RunError: as `choose_armsets`.
    """
    chosen = choose_armsets(root, names, profile=profile, reference=reference)
    title = listed(list(names), "and") if names else f"All finished runs in {root.name}"
    return Report(title, tuple(map(_part, chosen)))


def _part(chosen: ArmSet) -> Part:
    problems: list[str] = []

    def attempt(i: int, read: Callable[[], Read], otherwise: Read) -> Read:
        try:
            return read()
        except AcclError as error:
            problems.append(left_out(chosen.setups[i].run, error))
            return otherwise

    def tested(i: int) -> Results | None:
        try:
            return read_results(runs[i], measured=False)
        except AcclError as error:
            problems.append(f"Not in the comparison: {error.what}")
            return None

    runs = [setup.run for setup in chosen.setups]
    members = sorted(i for arm in chosen.arms for i in arm.members)
    measured = [Measurements()] * len(runs)
    states: list[RunState | None] = [None] * len(runs)
    provenance: list[dict[str, Any]] = [{}] * len(runs)
    results: dict[int, Results | None] = {}
    for i in members:
        measured[i] = attempt(i, partial(measure_run, runs[i], NEEDS), measured[i])
        states[i] = attempt(i, partial(within, DEADLINE_S, partial(observe, runs[i])), None)
        provenance[i] = attempt(i, partial(within, DEADLINE_S, partial(read_provenance, runs[i])), provenance[i])
        results[i] = tested(i)
    comparison = compare_arms(chosen.arms, chosen.reference, {i: r for i, r in results.items() if r is not None})
    problems += [f"Not in the comparison: {error.what}" for error in comparison.problems.values()]
    recorded = [name for name in METRICS if any(name in each.curves for each in measured)]

    def if_there(make: Callable[[], list[Any]]) -> tuple[Any, ...]:
        try:
            return tuple(make())
        except AbsentError:  # a section less
            return ()
        except AcclError as error:
            problems.append(str(error))
            return ()

    return Part(
        chosen,
        tuple(measured),
        tuple(states),
        tuple(provenance),
        comparison,
        panels=tuple(curve_panels(chosen, measured, recorded)),
        weights=if_there(partial(task_weights, chosen, measured)),
        matrices=if_there(partial(confusion_matrices, chosen, measured, SIMILARITY)),
        differences=if_there(partial(confusion_matrices, chosen, measured, SIMILARITY, differences=True)),
        problems=tuple(dict.fromkeys(problems)),
    )


def _validation(measured: Measurements) -> float:
    tested = measured.tested("accuracy")
    if math.isfinite(tested):
        return tested
    values = [e.value("accuracy") for e in measured.evaluations if e.split == "validation"]
    known = [value for value in values if math.isfinite(value)]
    return max(known, default=math.nan)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation (n - 1 in the denominator); NaN where there are too few values."""
    mean = float(np.mean(values)) if values else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
