"""Comparison of runs, as the compare screen and `accl compare` show it.

The first run is the reference; every other is paired with it question by question.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accl.analysis.efficiency import SampleEfficiency
from accl.analysis.learning import describe_power, read_efficiencies
from accl.analysis.pairs import HardPairs, HardScore, describe, hard_pairs, hard_score
from accl.analysis.power import smallest_difference
from accl.analysis.results import NO_SETTINGS, Results, Split, check_pairable, read_all
from accl.analysis.stats import Z_95, PairedDifference, holm, paired_difference, standard_error
from accl.config import Config, difference
from accl.errors import CompareError
from accl.store.labels import read_labels
from accl.store.reader import Task
from accl.store.rundir import RunDir

TRIVIAL_BASELINES = {
    "majority_letter": "always giving the letter that is right most often in each task's training questions",
    "longest_option": "always giving the longest option",
}


@dataclass(frozen=True)
class Group:
    """Accuracy over the n test questions of a category or subcategory."""

    name: str
    n: int
    correct: int
    accuracy: float


@dataclass(frozen=True)
class TaskScore:
    """Accuracy over the n test questions of a task, and gains, losses and their difference to the first arm."""

    task: Task
    n: int
    correct: int
    accuracy: float
    gains: int
    losses: int
    delta: float


@dataclass(frozen=True)
class Arm:
    """One run of the comparison. Accuracies and differences are fractions.

    Attributes:
        label: the recipe, with seed or run id where arms share it.
        name: that people gave the run; empty for none.
        tested_step: step of the weights, chosen on validation, that answered the questions.
        finished: end of the run in seconds since the epoch.
        macro_accuracy: mean accuracy over the tasks that have test questions.
        loss, ece, brier: of the evaluation, see `accl.method.metrics`; None when the run did not record them.
        predicted_shares, gold_shares: share of the questions where each letter was chosen, and where it is right.
        hard: score on the questions of the hard pairs' tasks, its p not adjusted; None when no pairs could be named.
        trivial_baselines: accuracy without reading the question, by name of `TRIVIAL_BASELINES`, as recorded.
        above_trivial: whether the accuracy beats the higher trivial baseline; None when none was recorded.
        paired: difference to the first arm; None for the first arm itself.
        p_holm: McNemar p of ``paired``, adjusted over all arms.
        smallest_difference: that these questions could have shown; None for the first arm itself.
        efficiency: how soon it was as accurate on validation as the first arm; None for that, and where no validation
            was recorded.
        training_seconds: training time without evaluations. This, ``questions_per_second`` and ``tested_step`` are
            None when the run did not record them.
        tasks: tasks with test questions, in index order.
        config_difference: (value of the first arm, value of this one) by key.
    """

    label: str
    recipe: str
    run_id: str
    name: str
    path: Path
    seed: int
    steps: int
    tested_step: int | None
    finished: float
    n: int
    correct: int
    accuracy: float
    standard_error: float
    macro_accuracy: float
    loss: float | None
    ece: float | None
    brier: float | None
    predicted_shares: dict[str, float]
    gold_shares: dict[str, float]
    hard: HardScore | None
    categories: tuple[Group, ...]
    subcategories: tuple[Group, ...]
    trivial_baselines: dict[str, float]
    above_trivial: bool | None
    paired: PairedDifference | None
    p_holm: float | None
    smallest_difference: float | None
    efficiency: SampleEfficiency | None
    training_seconds: float | None
    questions_per_second: float | None
    tasks: tuple[TaskScore, ...]
    config_difference: dict[str, tuple[Any, Any]]

    @property
    def tasks_by_delta(self) -> list[TaskScore]:
        """Tasks from the largest gain on the first arm to the largest loss."""
        return sorted(self.tasks, key=lambda score: (-score.delta, score.task.index))


@dataclass(frozen=True)
class Comparison:
    """All arms, the reference first.

    Attributes:
        power: what the questions could have shown, in a sentence.
        hard_pairs: task pairs that the first arm confuses most; None when its similarities were not recorded.
        warnings: reasons to distrust the numbers. notes: the protocol, and the meaning of the statistics.
    """

    profile: str
    protocol: str
    fingerprint: str
    split: Split
    n: int
    arms: tuple[Arm, ...]
    power: str
    hard_pairs: HardPairs | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def compare(runs: Sequence[RunDir], split: Split = "test", labels: Sequence[str] = ()) -> Comparison:
    """Compare finished runs that answered the same questions of a split.

    Args:
        labels: of the arms; made from recipes, seeds and ids when there are none.

    Raises:
        CompareError: fewer than two runs, one twice, one without answers, or runs that differ in profile, protocol,
            data or questions.
        UntestedError: some of them left the test split unread.
        RunError, ConfigError: the files of a run are damaged.
    """
    if len(runs) < 2:
        raise CompareError("A comparison needs at least two runs.", "For example: accl compare baseline full")
    for run, count in Counter(RunDir(Path(os.path.realpath(run.path))) for run in runs).items():
        if count > 1:
            raise CompareError(f"Run {run.id} was named twice.", "List the runs there are with: accl runs")
    results = read_all(runs, split)
    check_pairable(results)
    first = results[0]
    comparison = compare_results(results, hard_pairs(first.tasks, first.task, [first.similarity]), labels)
    pairs = zip(comparison.arms, read_efficiencies([[result] for result in results]), strict=True)
    arms = tuple(replace(arm, efficiency=efficiency) for arm, efficiency in pairs)
    return replace(comparison, arms=arms)


def compare_results(results: Sequence[Results], hard: HardPairs | None, labels: Sequence[str] = ()) -> Comparison:
    """Compare results that passed `check_pairable`, with ``hard`` as the hard pairs; ``labels`` as in `compare`.

    How soon the arms learned is left out.
    """
    first = results[0]
    mask = None if hard is None else hard.members(first.task)
    arms = [
        _arm(result, first, label, mask) for result, label in zip(results, labels or arm_labels(results), strict=True)
    ]
    adjusted = iter(holm([arm.paired.p for arm in arms if arm.paired]))
    arms = [replace(arm, p_holm=next(adjusted)) if arm.paired else arm for arm in arms]
    smallest = {arm.label: arm.smallest_difference for arm in arms if arm.smallest_difference is not None}
    return Comparison(
        profile=first.setup.config.profile,
        protocol=first.setup.config.data.protocol,
        fingerprint=first.setup.fingerprint,
        split=first.split,
        n=len(first.question_ids),
        arms=tuple(arms),
        power=describe_power(arms[0].n, 1, smallest, {}),
        hard_pairs=hard,
        warnings=(*split_warnings(first.split, {arm.label: arm.accuracy for arm in arms}), *_warnings(arms)),
        notes=(
            describe_protocol(first.setup.config),
            f"± is one standard error. Differences are paired with {arms[0].label} question by question: exact McNemar "
            "p, Holm-adjusted over the arms, and Bonett-Price 95 % intervals. They cover the choice of questions, not "
            "of the seed: repeat with three to five seeds before believing a small difference.",
            describe(hard, arms[0].label, arms[0].n, first.split),
        ),
    )


def describe_protocol(config: Config) -> str:
    """Describe in one sentence which questions a number stands for."""
    if config.data.source == "synthetic":
        return (
            f"Protocol {config.data.protocol} on accl's built-in synthetic benchmark: "
            "these numbers say nothing about MMLU."
        )
    if config.data.protocol == "pooled":
        return (
            "Protocol pooled: all labelled questions are pooled and split anew 80/10/10, equal texts kept together; "
            "these numbers are not leaderboard MMLU."
        )
    return "Protocol official: trained on the dev and validation splits, tested on the official test split."


def split_warnings(split: Split, accuracies: Mapping[str, float]) -> list[str]:
    """Warn of questions on which weights were chosen, and say which arm is to be chosen by them."""
    if split == "test":
        return []
    best = max(accuracies, key=lambda label: accuracies[label])
    return [
        "This is the validation, not the test: the weights of every run were chosen on these questions, so that all "
        f"accuracies here are too high. Choose settings by it ({best} is best, with {100 * accuracies[best]:.2f} %), "
        "and report the test."
    ]


def _arm(result: Results, first: Results, label: str, hard: NDArray[np.bool_] | None) -> Arm:
    right, config = result.right, result.setup.config
    n, correct = len(right), int(right.sum())
    tasks = _task_scores(result, first)
    trivial = {
        name: value
        for name in TRIVIAL_BASELINES
        if (value := result.number(f"floor/{result.split}/{name}")) is not None
    }
    changed = difference(first.setup.config, config)
    changed.pop("recipe", None)
    before = None if result is first else first.right
    measured = result.evaluation.values if result.evaluation else {}
    return Arm(
        label=label,
        recipe=config.recipe,
        run_id=result.setup.run.id,
        name=read_labels(result.setup.run).name,
        path=result.setup.run.path,
        seed=config.train.seed,
        steps=result.state.step,
        tested_step=result.step,
        finished=result.state.ended,
        n=n,
        correct=correct,
        accuracy=correct / n,
        standard_error=standard_error(correct / n, n),
        macro_accuracy=float(np.mean([score.accuracy for score in tasks])),
        loss=measured.get("loss"),
        ece=measured.get("ece"),
        brier=measured.get("brier"),
        predicted_shares=_shares(result.predicted, result.choices),
        gold_shares=_shares(result.gold, result.choices),
        hard=None if hard is None else hard_score(hard, right, before),
        categories=_groups(tasks, lambda task: task.category),
        subcategories=_groups(tasks, lambda task: task.subcategory),
        trivial_baselines=trivial,
        # Trivial baselines are stored rounded; in whole questions an equal score stays equal.
        above_trivial=correct > round(max(trivial.values()) * n) if trivial else None,
        paired=None if before is None else paired_difference(before, right),
        p_holm=None,
        smallest_difference=None if before is None else smallest_difference(before[None], right[None]),
        efficiency=None,
        training_seconds=result.number("training_seconds"),
        questions_per_second=result.number("questions_per_second"),
        tasks=tuple(tasks),
        config_difference=changed,
    )


def _shares(options: NDArray[np.int64], choices: int) -> dict[str, float]:
    """Return the share of each letter among option indices."""
    counts = np.bincount(options, minlength=choices)
    return {chr(ord("A") + option): float(count / len(options)) for option, count in enumerate(counts)}


def _task_scores(result: Results, first: Results) -> list[TaskScore]:
    right, before = result.right, first.right
    k = len(result.tasks)

    def per_task(mask: Any) -> list[int]:
        return [int(value) for value in np.bincount(result.task[mask], minlength=k)]

    n_K = per_task(slice(None))
    correct_K, gains_K, losses_K = per_task(right), per_task(right & ~before), per_task(before & ~right)
    return [
        TaskScore(task, n, correct, correct / n, gains, losses, (gains - losses) / n)
        for task, n, correct, gains, losses in zip(result.tasks, n_K, correct_K, gains_K, losses_K, strict=True)
        if n
    ]


def _groups(tasks: Sequence[TaskScore], name_of: Callable[[Task], str]) -> tuple[Group, ...]:
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for score in tasks:
        total = sums[name_of(score.task)]
        total[:] = total[0] + score.n, total[1] + score.correct
    return tuple(Group(name, n, correct, correct / n) for name, (n, correct) in sorted(sums.items()))


def arm_labels(results: Sequence[Results]) -> list[str]:
    """Return the recipes; where arms share one the name that people gave, the seed, or else the end of the run id."""
    forms = []
    for result in results:
        recipe, run = result.setup.config.recipe, result.setup.run
        forms.append(((recipe, read_labels(run).name, f"{recipe} s{result.setup.config.train.seed}"), run.id))
    counts = Counter(form for short, _ in forms for form in short)
    return [
        next((form for form in short if form and counts[form] == 1), f"{short[0]} {run_id.rsplit('-', 1)[-1]}")
        for short, run_id in forms
    ]


def _warnings(arms: Sequence[Arm]) -> list[str]:
    warnings = steps_warnings({arm.label: arm.steps for arm in arms})
    settings = {arm.recipe for arm in arms}.union(*(arm.config_difference.keys() - NO_SETTINGS for arm in arms))
    if len({arm.seed for arm in arms}) > 1 and len(settings) > 1:
        seeds = ", ".join(f"{arm.label} {arm.seed}" for arm in arms)
        warnings.append(f"The arms have different seeds ({seeds}): part of any difference is the seed's.")
    return [*warnings, *filter(None, map(_floor_warning, arms))]


def steps_warnings(steps: Mapping[str, int]) -> list[str]:
    """Warn of arms, given with their numbers of optimizer steps, that cannot be compared at equal steps."""
    if len(set(steps.values())) < 2:
        return []
    said = ", ".join(f"{label} {taken:,}" for label, taken in steps.items())
    return [f"The arms did not take the same number of optimizer steps ({said}): compare at equal steps."]


def _floor_warning(arm: Arm) -> str:
    if not arm.trivial_baselines:
        return f"{arm.label} recorded no floors, so nothing says whether it learned anything."
    name, trivial = max(arm.trivial_baselines.items(), key=lambda item: item[1])
    accuracy, half, floor = 100 * arm.accuracy, 100 * Z_95 * arm.standard_error, 100 * trivial
    about = f"{floor:.1f} % for {TRIVIAL_BASELINES[name]}"
    if not arm.above_trivial:
        return f"{arm.label} does not beat its floor: {accuracy:.1f} % against {about}."
    if accuracy - floor < half:
        uncertain = f"by less than the uncertainty of its accuracy, {accuracy:.1f} % ± {half:.1f} %."
        return f"{arm.label} beats its floor ({about}) {uncertain}"
    return ""
