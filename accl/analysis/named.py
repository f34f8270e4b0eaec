"""Comparison of what is named on a command line, over as many seeds as there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from accl.analysis.ablation import Ablation, compare_seeds
from accl.analysis.compare import Comparison, compare
from accl.analysis.members import select_members
from accl.analysis.results import Split
from accl.analysis.select import SeedSelection, select_runs, select_seeds, shared_seeds

Compared = TypeVar("Compared", Comparison, Ablation)


def compare_named(
    root: Path,
    names: Sequence[str],
    *,
    profile: str | None = None,
    all_seeds: bool | None = None,
    reference: str = "",
    split: Split = "test",
) -> Comparison | Ablation:
    """Compare recipes, runs, experiments or arms of experiments.

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
        every = shared_seeds(chosen.seeds, 0) if len(chosen.seeds) == len(names) else None
        if every is None or len(every.seeds) < 2:
            return _with_warnings(compare(chosen.runs, split), chosen.gaps)
        if all_seeds is None:
            return _with_warnings(compare_seeds(every, split), chosen.gaps)
        return _with_warnings(compare(chosen.runs, split), [_more_seeds(every), *chosen.gaps])
    shared = len(selection.seeds)
    if shared > 1 and all_seeds is not False:
        return compare_seeds(selection, split)
    if shared > 1:
        said = [_more_seeds(selection)]
    elif shared == 1:
        said = [f"Only seed {selection.seeds[0]} has a run of every arm: there is nothing to average over."]
    else:
        said = ["No seed has a run of every arm: the newest run of each is compared."]
    runs = [max(of_arm, key=lambda run: run.age_key) for of_arm in selection.runs]
    return _with_warnings(compare(runs, split, selection.labels), [*said, *selection.gaps])


def _more_seeds(selection: SeedSelection) -> str:
    return f"{len(selection.seeds)} seeds of every arm exist, and one is compared: --all-seeds uses them all."


def _with_warnings(compared: Compared, warnings: Sequence[str]) -> Compared:
    return replace(compared, warnings=(*warnings, *compared.warnings))
