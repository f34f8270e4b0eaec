"""Comparison of what is named on a command line, over as many seeds as there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from accl.analysis.ablation import Ablation, compare_seeds, read_grid
from accl.analysis.breakdown import Flip, Part, PartScore, find_flips, score_parts
from accl.analysis.compare import Comparison, arm_labels, compare, split_warnings
from accl.analysis.members import select_members
from accl.analysis.results import Results, Split, check_pairable, read_all
from accl.analysis.select import SeedSelection, select_runs, select_seeds, shared_seeds
from accl.errors import CompareError
from accl.store.rundir import RunDir


@dataclass(frozen=True)
class Chosen:
    """Runs to compare.

    Attributes:
        selection: of arms over several seeds; None for single runs.
        runs: single runs, or the newest of every arm.
        labels: of the arms; empty where they are to be made of the results.
        warnings: what the choice lacks.
    """

    selection: SeedSelection | None
    runs: tuple[RunDir, ...]
    labels: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Breakdown:
    """Arms compared part by part, or question by question.

    Attributes:
        reference: label of the arm that the others are compared with.
        n, seeds: number of questions, and of seeds.
        parts: empty where it is by question. flips: empty where it is by part.
        flipped: by arm, how many questions it gained and lost.
    """

    reference: str
    profile: str
    protocol: str
    split: Split
    n: int
    seeds: int
    parts: tuple[PartScore, ...]
    flips: tuple[Flip, ...]
    flipped: dict[str, tuple[int, int]]
    warnings: tuple[str, ...]


def choose(
    root: Path,
    names: Sequence[str],
    *,
    profile: str | None = None,
    all_seeds: bool | None = None,
    reference: str | None = None,
    split: Split = "test",
) -> Chosen:
    """Choose runs by recipes, runs, experiments or arms of experiments.

    Args:
        names: what `accl.analysis.members.select_members` takes; the first is the reference.
        all_seeds: True for every seed that all recipes have, also under other settings; False for one seed; None for
            every seed of one configuration of each.
        reference: name to begin with; it need not be among the others.

    Raises:
        CompareError: what is named cannot be compared.
        RunError, ConfigError: there is nothing of a name, or the files of a run are damaged.
    """
    names = [reference, *(name for name in names if name != reference)] if reference else list(names)
    selection = select_members(root, names, profile, split)
    if selection is None and all_seeds:
        selection = select_seeds(root, names, profile, split)
    if selection is None:
        chosen = select_runs(root, names, profile, split)
        if len(chosen.seeds) < len(names):
            return Chosen(None, chosen.runs, (), tuple(chosen.gaps))
        every = shared_seeds(chosen.seeds, 0)
        used = len(every.seeds) if all_seeds is None else 1
        exist = len(set.intersection(*(chosen.seeds[name].keys() | chosen.other_seeds[name] for name in chosen.seeds)))
        said = [_more_seeds(exist, used, len(every.seeds))] if exist > max(1, used) else []
        if used < 2:
            return Chosen(None, chosen.runs, (), (*said, *chosen.gaps))
        every = replace(every, absent=(*said, *chosen.gaps))
        return Chosen(every, chosen.runs, every.labels, tuple(every.gaps))
    shared = len(selection.seeds)
    runs = tuple(max(of_arm, key=lambda run: run.age_key) for of_arm in selection.runs)
    if shared > 1 and all_seeds is not False:
        return Chosen(selection, runs, selection.labels, tuple(selection.gaps))
    said = []
    if shared > 1:
        said.append(_more_seeds(shared, 1, shared))
    elif shared == 0:
        said.append("No seed has a run of every arm: the newest run of each is compared.")
    elif all_seeds or (all_seeds is None and selection.left_out):
        said.append(f"Only seed {selection.seeds[0]} has a run of every arm: there is nothing to average over.")
    return Chosen(None, runs, selection.labels, (*said, *selection.gaps))


def _more_seeds(exist: int, used: int, alike: int) -> str:
    """Say that more seeds exist than are used, of which some may have other settings."""
    settings = "" if alike == exist else ", some under other settings"
    compared = "one is compared" if used < 2 else f"{used} are compared"
    return f"{exist} seeds of every arm exist{settings}, and {compared}: --all-seeds uses them all."


def compare_chosen(chosen: Chosen, split: Split = "test") -> Comparison | Ablation:
    """Compare chosen runs.

    Raises:
        CompareError, RunError, ConfigError: as `accl.analysis.compare.compare`.
    """
    if chosen.selection is not None:
        return compare_seeds(chosen.selection, split)
    comparison = compare(chosen.runs, split, chosen.labels)
    return replace(comparison, warnings=(*chosen.warnings, *comparison.warnings))


def break_down(
    chosen: Chosen, by: Part | Literal["question"], split: Split = "test", limit: int | None = None
) -> Breakdown:
    """Compare chosen runs part by part, or question by question with at most ``limit`` questions of an arm.

    Raises:
        CompareError, RunError, ConfigError: as `accl.analysis.compare.compare`.
    """
    if len(chosen.runs) < 2:
        raise CompareError("A comparison needs at least two arms.", "For example: accl compare baseline full")
    warnings = chosen.warnings
    if chosen.selection is not None:
        selection, grid = read_grid(chosen.selection, split)
        warnings = tuple(selection.gaps)
    else:
        grid = [[result] for result in read_all(chosen.runs, split)]
    results = [result for row in grid for result in row]
    check_pairable(results)
    labels = chosen.labels or arm_labels(results)
    flips, flipped = find_flips(labels, grid, limit) if by == "question" else ([], {})
    config = results[0].setup.config
    return Breakdown(
        reference=labels[0],
        profile=config.profile,
        protocol=config.data.protocol,
        split=split,
        n=len(results[0].question_ids),
        seeds=len(grid[0]),
        parts=() if by == "question" else tuple(score_parts(labels, grid, by)),
        flips=tuple(flips),
        flipped=flipped,
        warnings=(*split_warnings(split, _accuracies(labels, grid)), *warnings),
    )


def _accuracies(labels: Sequence[str], grid: Sequence[Sequence[Results]]) -> dict[str, float]:
    of_arms = ([float(result.right.mean()) for result in row] for row in grid)
    return {label: sum(values) / len(values) for label, values in zip(labels, of_arms, strict=True)}
