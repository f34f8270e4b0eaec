"""The contents of a report, read from the runs; a run that cannot be read is left out, and the report says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from accl.analysis.arms import BARS, ArmsComparison, compare_arms
from accl.analysis.armset import ArmSet, choose_armsets, left_out, some_ids, without_path
from accl.analysis.claim_runs import ARMS, select_claim_runs
from accl.analysis.claims import Claims, check_claims
from accl.analysis.figures import (
    Matrix,
    Panel,
    Weights,
    confusion_matrices,
    curve_panels,
    measure_run,
    task_weights,
    warnings_of,
)
from accl.analysis.grouping import Arm
from accl.analysis.results import SIMILARITY, Results, Split, UntestedError, read_results
from accl.errors import AbsentError, AcclError
from accl.store.deadline import DEADLINE_S, within
from accl.store.labels import Labels, read_labels
from accl.store.measurements import Measurements
from accl.store.provenance import read_provenance
from accl.store.reader import Task
from accl.store.state import RunState, observe
from accl.store.tested import looks_in
from accl.text import listed

Read = TypeVar("Read")

TRAINING_SIMILARITY = "similarity"  # of the training questions, where nothing was tested
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
        states, labels, provenance: of each run; None and empty where they cannot be read.
        comparison: of the arms on the questions of ``split``, as far as the runs have answers to them.
        warnings: reasons to distrust the numbers. notes: the protocol, and the meaning of the statistics.
        claims: of the method; None where fewer than two of its arms were tested.
        panels, weights, matrices, differences: what is drawn; empty where it was not recorded.
        problems: what is missing, and why.
    """

    chosen: ArmSet
    measured: tuple[Measurements, ...]
    states: tuple[RunState | None, ...]
    labels: tuple[Labels, ...]
    provenance: tuple[dict[str, Any], ...]
    split: Split
    comparison: ArmsComparison
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    claims: Claims | None
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
    root: Path,
    names: Sequence[str] = (),
    *,
    profile: str | None = None,
    reference: str | None = None,
    split: Split | None = None,
) -> Report:
    """Read what a report of runs shows; the other arguments are those of `choose_armsets`.

    Args:
        split: questions that the arms are compared on; when None the test, or the validation of runs none of which
            was tested.

    Raises:
        CompareError, RunError: as `choose_armsets`.
    """
    chosen = choose_armsets(root, names, profile=profile, reference=reference)
    title = listed(list(names), "and") if names else f"All finished runs in {root.name}"
    return Report(title, tuple(_part(each, split) for each in chosen))


def _part(chosen: ArmSet, split: Split | None) -> Part:
    problems: list[str] = []

    def attempt(i: int, read: Callable[[], Read], otherwise: Read) -> Read:
        try:
            return read()
        except AcclError as error:
            problems.append(left_out(chosen.setups[i].run, error))
            return otherwise

    runs = [setup.run for setup in chosen.setups]
    members = sorted(i for arm in chosen.arms for i in arm.members)
    measured = [Measurements()] * len(runs)
    states: list[RunState | None] = [None] * len(runs)
    provenance: list[dict[str, Any]] = [{}] * len(runs)
    for i in members:
        measured[i] = attempt(i, partial(measure_run, runs[i], NEEDS), measured[i])
        states[i] = attempt(i, partial(within, DEADLINE_S, partial(observe, runs[i])), None)
        provenance[i] = attempt(i, partial(within, DEADLINE_S, partial(read_provenance, runs[i])), provenance[i])
    results, untested = _results(chosen, members, split or "test")
    if split is None:
        split = "test" if results or not untested else "validation"
        results, untested = (results, untested) if split == "test" else _results(chosen, members, split)
    problems += untested
    comparison = compare_arms(chosen.arms, chosen.reference, results)
    problems += [f"Not in the comparison: {without_path(runs[i], e)}" for i, e in comparison.problems.items()]
    looks = []
    if split == "test" and results:
        setup = next(iter(results.values())).setup
        looks = [str(looks_in(setup.run.path.parent, setup.fingerprint))]
    recorded = [name for name in METRICS if any(name in each.curves for each in measured)]

    kind = SIMILARITY if any(SIMILARITY in each.confusion for each in measured) else TRAINING_SIMILARITY

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
        tuple(within(DEADLINE_S, partial(read_labels, run)) for run in runs),
        tuple(provenance),
        split,
        comparison,
        tuple(warnings_of(comparison, split)),
        (*(note for note in comparison.notes if not note.startswith("!") and note != BARS), *looks),
        claims=_claims(chosen, results) if split == "test" else None,
        panels=tuple(curve_panels(chosen, measured, recorded)),
        weights=if_there(partial(task_weights, chosen, measured)),
        matrices=if_there(partial(confusion_matrices, chosen, measured, kind)),
        differences=if_there(partial(confusion_matrices, chosen, measured, kind, differences=True)),
        problems=tuple(dict.fromkeys(problems)),
    )


def _results(chosen: ArmSet, members: Sequence[int], split: Split) -> tuple[dict[int, Results], list[str]]:
    """Read the answers of runs to a split, by their indices, and say why runs have none."""
    results, untested, problems = {}, [], []
    for i in members:
        run = chosen.setups[i].run
        try:
            results[i] = read_results(run, split=split)
        except UntestedError:
            untested.append(run)
        except AcclError as error:
            problems.append(f"Not in the comparison: {without_path(run, error)}")
    if untested:
        said = f"Not in the comparison, as eval.test=false left the test unread ({len(untested)})"
        problems.append(f"{said}: {some_ids(untested)}.")
    return results, problems


def _claims(chosen: ArmSet, results: Mapping[int, Results]) -> Claims | None:
    """Check the claims of the method on the runs that were tested, if these are of two of its arms or more."""
    tested = [i for i in sorted(results) if chosen.setups[i].config.recipe in ARMS]
    if len({chosen.setups[i].config.recipe for i in tested}) < 2:
        return None
    return check_claims(select_claim_runs([chosen.setups[i].run for i in tested]))


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
