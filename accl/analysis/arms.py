"""Arms with their seeds, whatever runs were chosen, and their differences to one of them.

Unlike `accl.analysis.ablation`, nothing has to be complete: arms may lack seeds, and runs may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accl.analysis.compare import TRIVIAL_BASELINES, describe_protocol
from accl.analysis.crossed import METHOD, SeedDifference, difference_over_seeds
from accl.analysis.grouping import Arm
from accl.analysis.power import seeds_needed
from accl.analysis.results import Results, check_pairable
from accl.analysis.stats import PairedDifference, holm, paired_difference
from accl.errors import AcclError
from accl.text import listed

BARS = "Bars by task: 95 % Wilson interval of the mean accuracy over seeds, of n questions."  # the last note


@dataclass(frozen=True)
class Change:
    """Accuracy on the n questions of a task or category, and the difference to the reference, over the pairs of seeds.

    Attributes:
        accuracy, before: mean of the arm and of the reference over their seeds, as fractions.
        gains, losses: summed over the pairs.
    """

    name: str
    n: int
    accuracy: float
    before: float
    delta: float
    gains: int
    losses: int


@dataclass(frozen=True)
class Flips:
    """Questions that one run got right and its partner wrong (gains), and the other way round, by their indices."""

    before: int
    run: int
    gains: int
    losses: int


@dataclass(frozen=True)
class Scores:
    """The test of an arm, fractions throughout.

    Attributes:
        accuracies: by index of the run.
        sd: standard deviation over the seeds; NaN of one alone.
        floor: accuracy that needs no reading of the question; NaN if none was recorded.
        difference: to the reference, over the pairs of seeds; None for the reference itself.
        deltas: difference of each pair, in their order.
        p_holm: its p, adjusted over the arms.
        seeds_needed: seeds of both arms for an interval of ±1 point; 0 if no number suffices, None if unknown.
        flips: of each pair.
        tasks, categories: in index order, and by name.
    """

    accuracies: dict[int, float]
    mean: float
    sd: float
    floor: float
    difference: PairedDifference | SeedDifference | None
    deltas: tuple[float, ...]
    p_holm: float | None
    seeds_needed: int | None
    flips: tuple[Flips, ...]
    tasks: tuple[Change, ...]
    categories: tuple[Change, ...]


@dataclass(frozen=True)
class ArmsComparison:
    """Arms compared with a reference.

    Attributes:
        n: number of test questions.
        scores: by label, of the arms that have results.
        problems: why the results of a run take no part, by its index.
        notes: what to know beside the numbers; those that begin with an exclamation mark are warnings.
    """

    reference: str
    n: int
    scores: dict[str, Scores]
    problems: dict[int, AcclError]
    notes: tuple[str, ...]


def compare_arms(arms: Sequence[Arm], reference: str, results: Mapping[int, Results]) -> ArmsComparison:
    """Compare arms with the reference, as far as there are results, by index of their runs.

    Two arms are paired by seed; where they share none, in the order of their seeds. One pair is compared question by
    question, several are with `difference_over_seeds`.
    """
    base_arm = next(arm for arm in arms if arm.label == reference)
    ordered = [i for arm in (base_arm, *arms) for i in arm.members if i in results]
    if not ordered:
        return ArmsComparison(reference, 0, {}, {}, ())
    first, problems = results[ordered[0]], {}
    for i in dict.fromkeys(ordered):
        try:
            check_pairable([first, results[i]])
        except AcclError as error:
            problems[i] = error
    usable = {i: result for i, result in results.items() if i not in problems}
    base = [i for i in base_arm.members if i in usable]
    scores, notes = {}, [describe_protocol(first.setup.config)]
    for arm in arms:
        if members := [i for i in arm.members if i in usable]:
            pairs, shared = pair_seeds(base, members, usable) if arm is not base_arm else ([], True)
            scores[arm.label] = _scores(members, pairs, usable)
            if pairs and not shared:
                notes.append(
                    f"! {arm.label} and {reference} share no seed: they are paired in the order of their seeds."
                )
    adjusted = iter(holm([score.difference.p for score in scores.values() if score.difference]))
    scores = {k: replace(s, p_holm=next(adjusted)) if s.difference else s for k, s in scores.items()}
    notes += _warnings(arms, scores, usable)
    return ArmsComparison(reference, len(first.question_ids), scores, problems, tuple(notes))


def pair_seeds(
    base: Sequence[int], members: Sequence[int], results: Mapping[int, Results]
) -> tuple[list[tuple[int, int]], bool]:
    """Pair the runs of two arms, and say whether by their seeds; of two runs with the same seed the last counts."""

    def seed(i: int) -> int:
        return results[i].setup.config.train.seed

    before, after = {seed(i): i for i in base}, {seed(i): i for i in members}
    shared = [(before[s], after[s]) for s in sorted(before.keys() & after.keys())]
    return shared or list(zip(before.values(), after.values(), strict=False)), bool(shared)


def _scores(members: Sequence[int], pairs: Sequence[tuple[int, int]], results: Mapping[int, Results]) -> Scores:
    accuracies = {i: float(results[i].right.mean()) for i in members}
    values = list(accuracies.values())
    floors = [results[i].number(f"floor/{results[i].split}/{name}") for name in TRIVIAL_BASELINES for i in members]
    difference: PairedDifference | SeedDifference | None = None
    needed: int | None = None
    deltas: tuple[float, ...] = ()
    flips: tuple[Flips, ...] = ()
    before = after = np.stack([results[i].right for i in members])
    if pairs:
        before, after = (np.stack([results[i].right for i in side]) for side in zip(*pairs, strict=True))
        deltas = tuple((after.mean(axis=1) - before.mean(axis=1)).tolist())
        several = len(pairs) > 1
        difference = difference_over_seeds(before, after) if several else paired_difference(before[0], after[0])
        needed = seeds_needed(before, after) if several else None
        flips = tuple(
            Flips(a, b, int((right & ~was).sum()), int((was & ~right).sum()))
            for (a, b), was, right in zip(pairs, before, after, strict=True)
        )
    result = results[members[0]]
    return Scores(
        accuracies=accuracies,
        mean=float(np.mean(values)),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
        floor=max((floor for floor in floors if floor is not None), default=float("nan")),
        difference=difference,
        deltas=deltas,
        p_holm=None,
        seeds_needed=needed,
        flips=flips,
        tasks=_changes(result, before, after, lambda i: result.tasks[i].name),
        categories=_changes(result, before, after, lambda i: result.tasks[i].category),
    )


def _changes(
    result: Results, before_SN: NDArray[np.bool_], after_SN: NDArray[np.bool_], name_of: Callable[[int], str]
) -> tuple[Change, ...]:
    names = list(dict.fromkeys(map(name_of, range(len(result.tasks)))))
    group = np.array([names.index(name_of(i)) for i in range(len(result.tasks))], np.int64)[result.task]

    def counted(answers: NDArray[np.bool_]) -> NDArray[Any]:
        return np.bincount(group, answers.sum(axis=0), len(names))

    n = np.bincount(group, minlength=len(names))
    right, was = counted(after_SN), counted(before_SN)
    gains, losses = counted(after_SN & ~before_SN), counted(before_SN & ~after_SN)
    total = np.maximum(1, n * len(after_SN))
    return tuple(
        Change(
            name,
            int(n[i]),
            float(right[i] / total[i]),
            float(was[i] / total[i]),
            float((right[i] - was[i]) / total[i]),
            int(gains[i]),
            int(losses[i]),
        )
        for i, name in enumerate(names)
        if n[i]
    )


def _warnings(arms: Sequence[Arm], scores: Mapping[str, Scores], results: Mapping[int, Results]) -> list[str]:
    notes = []
    below = [label for label, score in scores.items() if score.mean <= score.floor]
    if below:
        notes.append(f"! {listed(below, 'and')} on average {'do' if below[1:] else 'does'} not beat the floor.")
    steps = {label: {results[i].state.step for i in score.accuracies} for label, score in scores.items()}
    if len(set.union(set(), *steps.values())) > 1:
        said = ", ".join(f"{label} {' and '.join(f'{s:,}' for s in sorted(taken))}" for label, taken in steps.items())
        notes.append(f"! Not all runs took the same number of optimizer steps ({said}): compare at equal steps.")
    doubled = [
        arm.label
        for arm in arms
        if len({results[i].setup.config.train.seed for i in arm.members if i in results})
        < len([i for i in arm.members if i in results])
    ]
    if doubled:
        notes.append(f"! {listed(doubled, 'and')}: several runs of a seed, of which the newest is paired.")
    pairs = [score.difference for score in scores.values() if score.difference]
    if any(isinstance(pair, PairedDifference) for pair in pairs):
        notes.append(
            "! One pair of seeds: exact McNemar p and Bonett-Price interval, which cover the choice of questions, not "
            "of the seed. Train three to five seeds before believing a small difference."
        )
    if any(isinstance(pair, SeedDifference) for pair in pairs):
        notes.append(f"Over several seeds: interval and p cover the choice of seeds and of questions: {METHOD}.")
    if pairs:
        notes.append("p is Holm-adjusted over the arms; ± is the standard deviation over seeds.")
    return [*notes, BARS]
