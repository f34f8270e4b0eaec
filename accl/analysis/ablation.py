"""Comparison of recipes over several seeds: means, spread over seeds, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from accl.analysis.compare import (
    TRIVIAL_BASELINES,
    Arm,
    Comparison,
    compare_results,
    describe_protocol,
    split_warnings,
    steps_warnings,
)
from accl.analysis.crossed import METHOD, SeedDifference, difference_over_seeds
from accl.analysis.efficiency import SampleEfficiency
from accl.analysis.learning import describe_power, read_efficiencies
from accl.analysis.pairs import HardPairs, describe, hard_pairs
from accl.analysis.power import ASSUMPTIONS, seeds_needed, smallest_difference
from accl.analysis.results import NO_SETTINGS, Results, Split, check_pairable, read_what_can_be
from accl.analysis.select import SeedSelection
from accl.analysis.stats import holm
from accl.config import difference
from accl.errors import AcclError, CompareError


@dataclass(frozen=True)
class Mean:
    """Mean and standard deviation over S seeds, with S - 1 in the denominator."""

    mean: float
    sd: float


@dataclass(frozen=True)
class SeedArm:
    """One recipe over S seeds. Accuracies and differences are fractions.

    Attributes:
        loss, ece, brier: None when a run did not record them.
        hard_accuracy: on the questions of the hard pairs' tasks; None when no pairs could be named.
        trivial_baselines: accuracy without reading the question by name of `TRIVIAL_BASELINES`, highest over seeds.
        above_trivial: number of seeds that beat their higher trivial baseline; None when a run recorded none.
        difference, hard_difference: difference to the first arm on all questions and on those of the hard pairs; None
            for the first arm itself.
        p_holm: p of ``difference``, adjusted over all arms; that of ``hard_difference`` is not adjusted.
        smallest_difference: that these questions and seeds could have shown.
        seeds_needed: for an interval of ±1 point; 0 if no number suffices. Both are None for the first arm itself.
        efficiency: how soon it was as accurate on validation as the first arm; None for that, and where no validation
            was recorded.
        config_difference: (value of the first arm, value of this one) by key, under the first seed.
    """

    label: str
    steps: int
    n: int
    accuracy: Mean
    macro_accuracy: Mean
    loss: Mean | None
    ece: Mean | None
    brier: Mean | None
    hard_accuracy: Mean | None
    trivial_baselines: dict[str, float]
    above_trivial: int | None
    difference: SeedDifference | None
    p_holm: float | None
    hard_difference: SeedDifference | None
    smallest_difference: float | None
    seeds_needed: int | None
    efficiency: SampleEfficiency | None
    config_difference: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Ablation:
    """Comparison of arms over the same S seeds, the reference first, and of their runs under each seed in that order.

    ``power`` says what the questions and seeds could have shown, ``warnings`` are reasons to distrust the numbers;
    ``notes`` say the protocol and the meaning of the statistics.
    """

    profile: str
    protocol: str
    fingerprint: str
    split: Split
    n: int
    steps: int
    seeds: tuple[int, ...]
    arms: tuple[SeedArm, ...]
    power: str
    hard_pairs: HardPairs | None
    per_seed: tuple[Comparison, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def compare_seeds(selection: SeedSelection, split: Split = "test") -> Ablation:
    """Compare arms over the seeds they share, on the questions of a split.

    Raises:
        CompareError: fewer than two recipes or seeds, or runs that did not answer the same questions.
        UntestedError: some runs left the test split unread.
        RunError, ConfigError: the files of a run are damaged.
    """
    if len(selection.runs) < 2:
        raise CompareError("A comparison needs at least two recipes.", "For example: accl compare baseline full")
    if len(selection.seeds) < 2:
        raise CompareError("Seeds are summed up from two on.", "Compare single runs without --all-seeds.")
    selection, grid = read_grid(selection, split)
    check_pairable([result for row in grid for result in row])
    seeds = len(selection.seeds)
    first = grid[0]
    hard = hard_pairs(first[0].tasks, first[0].task, [result.similarity for result in first])
    per_seed = tuple(compare_results(column, hard, selection.labels) for column in zip(*grid, strict=True))
    arms = [_arm(selection.labels[i], row, first, [c.arms[i] for c in per_seed], hard) for i, row in enumerate(grid)]
    adjusted = iter(holm([arm.difference.p for arm in arms if arm.difference]))
    arms = [replace(arm, p_holm=next(adjusted)) if arm.difference else arm for arm in arms]
    arms = [replace(arm, efficiency=found) for arm, found in zip(arms, read_efficiencies(grid), strict=True)]
    smallest = {arm.label: arm.smallest_difference for arm in arms if arm.smallest_difference is not None}
    needed = {label: arm.seeds_needed for arm in arms if (label := arm.label) in smallest}
    config = first[0].setup.config
    return Ablation(
        profile=config.profile,
        protocol=config.data.protocol,
        fingerprint=first[0].setup.fingerprint,
        split=split,
        n=per_seed[0].n,
        steps=arms[0].steps,
        seeds=selection.seeds,
        arms=tuple(arms),
        power=describe_power(arms[0].n, seeds, smallest, needed),
        hard_pairs=hard,
        per_seed=per_seed,
        warnings=(
            *split_warnings(split, {arm.label: arm.accuracy.mean for arm in arms}),
            *_warnings(arms, grid, selection),
        ),
        notes=(
            describe_protocol(config),
            *_notes(arms, selection),
            f"Power. {ASSUMPTIONS}",
            describe(hard, arms[0].label, arms[0].n, split),
        ),
    )


def read_grid(selection: SeedSelection, split: Split) -> tuple[SeedSelection, list[list[Results]]]:
    """Read the answers of all runs; a seed under which one cannot be read is left out while two others remain.

    Returns:
        What is left of the selection, and the results of each arm under each of its seeds.

    Raises:
        AcclError: as `accl.analysis.results.read_all`.
    """
    answers = iter(read_what_can_be([run for runs in selection.runs for run in runs], split))
    found = [[next(answers) for _ in runs] for runs in selection.runs]
    failed: dict[int, AcclError] = {}
    for i, seed in enumerate(selection.seeds):
        for answer in (row[i] for row in found):
            if isinstance(answer, AcclError):
                failed.setdefault(seed, answer)
    kept = [i for i, seed in enumerate(selection.seeds) if seed not in failed]
    if failed and len(kept) < 2:
        raise next(iter(failed.values()))
    said = [f"Left out: seed {seed} of every arm. {error.what}" for seed, error in failed.items()]
    left = replace(
        selection,
        seeds=tuple(selection.seeds[i] for i in kept),
        runs=tuple(tuple(runs[i] for i in kept) for runs in selection.runs),
        absent=(*said, *selection.absent),
    )
    return left, [[answer for i in kept if isinstance(answer := row[i], Results)] for row in found]


def _arm(
    label: str, row: Sequence[Results], first: Sequence[Results], runs: Sequence[Arm], hard: HardPairs | None
) -> SeedArm:
    counted = [arm.above_trivial for arm in runs]
    right, before = (np.stack([result.right for result in results]) for results in (row, first))
    mask = None if hard is None else hard.members(first[0].task)
    reference = row is first
    return SeedArm(
        label=label,
        steps=runs[0].steps,
        n=runs[0].n,
        accuracy=_mean([arm.accuracy for arm in runs]),
        macro_accuracy=_mean([arm.macro_accuracy for arm in runs]),
        loss=_recorded([arm.loss for arm in runs]),
        ece=_recorded([arm.ece for arm in runs]),
        brier=_recorded([arm.brier for arm in runs]),
        hard_accuracy=_recorded([arm.hard.accuracy if arm.hard else None for arm in runs]),
        trivial_baselines={
            name: max(arm.trivial_baselines[name] for arm in runs)
            for name in TRIVIAL_BASELINES
            if all(name in arm.trivial_baselines for arm in runs)
        },
        above_trivial=None if None in counted else sum(above is True for above in counted),
        difference=None if reference else difference_over_seeds(before, right),
        p_holm=None,
        hard_difference=None if reference or mask is None else difference_over_seeds(before[:, mask], right[:, mask]),
        smallest_difference=None if reference else smallest_difference(before, right),
        seeds_needed=None if reference else seeds_needed(before, right),
        efficiency=None,
        config_difference=runs[0].config_difference,
    )


def _mean(values: Sequence[float]) -> Mean:
    return Mean(float(np.mean(values)), float(np.std(values, ddof=1)))


def _recorded(values: Sequence[float | None]) -> Mean | None:
    found = [value for value in values if value is not None]
    return _mean(found) if len(found) == len(values) else None


def _warnings(arms: Sequence[SeedArm], grid: Sequence[Sequence[Results]], selection: SeedSelection) -> list[str]:
    seeds = len(selection.seeds)
    warnings = steps_warnings({arm.label: arm.steps for arm in arms})
    warnings += ["Two seeds say little about the spread over seeds: train three to five."] * (seeds == 2)
    for arm, row in zip(arms, grid, strict=True):
        keys = {key for result in row[1:] for key in difference(row[0].setup.config, result.setup.config)}
        if changed := keys - NO_SETTINGS:
            warnings.append(
                f"The runs of {arm.label} differ in more than the seed ({', '.join(sorted(changed))}): "
                "their mean mixes different settings."
            )
        if arm.above_trivial is None:
            warnings.append(f"{arm.label} has runs without floors, so nothing says whether they learned anything.")
        elif arm.above_trivial < seeds:
            warnings.append(f"{arm.label} beats its floor under {arm.above_trivial} of {seeds} seeds.")
    return warnings + selection.gaps


def _notes(arms: Sequence[SeedArm], selection: SeedSelection) -> list[str]:
    seeds, reference = ", ".join(map(str, selection.seeds)), arms[0].label
    trivial = arms[0].trivial_baselines.items()
    scores = "; ".join(f"{TRIVIAL_BASELINES[name]}, {100 * value:.1f} %" for name, value in trivial)
    return [
        *([f"Floors, what one gets without reading the question: {scores}."] if scores else []),
        f"Seeds {seeds}; ± is the standard deviation over them. Differences are paired with {reference} seed by seed "
        "and question by question; their 95 % intervals and p values (Holm-adjusted over the arms) cover the choice of "
        f"both: {METHOD}.",
    ]
