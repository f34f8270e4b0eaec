"""The claims of the method document, each checked on finished runs: supported, not supported or inconclusive.

A claim is a statement about recipes, so that one seed never decides it. Over two and more, with 95 % intervals:

===========  =========================================  ==============================  =============================
claim        measured                                   supported                       not supported
===========  =========================================  ==============================  =============================
contrastive  accuracy, contrastive minus baseline       above 0, and at least 2 points  below 2 points throughout
curriculum   steps to contrastive's final validation    every run of full gets there,   full needs as many or more
             accuracy, full minus contrastive           and needs fewer steps
full         accuracy, full minus baseline and minus    all three above 0               one of them at or below 0
             contrastive; the gain on baseline on the
             hard pairs' tasks minus that elsewhere
overhead     time of a step, full against contrastive   at most 7.5 % more throughout   more than 7.5 % throughout
===========  =========================================  ==============================  =============================

"Above 0" means the whole interval, "at least 2 points" the estimate. Everything else is inconclusive, also where runs
are missing. Claims are tested one by one, without a correction over the four; ``full`` needs all of its three tests,
which needs none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from accl.analysis.candidates import unreadable_gap
from accl.analysis.claim_runs import ARMS, ClaimRuns, train_command
from accl.analysis.compare import TRIVIAL_BASELINES, describe_protocol
from accl.analysis.crossed import contrast_over_seeds, difference_over_seeds, student_t_quantile, student_t_tail
from accl.analysis.efficiency import Training, read_training, sample_efficiency
from accl.analysis.pairs import hard_pairs
from accl.analysis.power import POWER, smallest_difference
from accl.analysis.results import Results, check_pairable, read_results
from accl.analysis.stats import paired_difference
from accl.errors import AcclError
from accl.store.rundir import RunDir
from accl.text import listed

Verdict = Literal["supported", "not supported", "inconclusive"]
Unit = Literal["points", "steps", "%"]

GAIN = 0.02  # the least of the +2 to +3 points that are claimed
OVERHEAD = 0.075  # the most that reads as about 5 %
ENOUGH_SEEDS = (1, 2, 3)  # suggested where none are there


@dataclass(frozen=True)
class Evidence:
    """A number that a claim rests on.

    Attributes:
        quantity: what it is. unit: of what people see; value, low and high are fractions but for ``steps``.
        low, high, p: 95 % interval and two-sided p; None where there is none.
        test: how they were made. seeds: of the pairs. n: number of test questions; None where none were used.
        bound: whether value and low are lower bounds, because runs did not get as far.
    """

    quantity: str
    unit: Unit
    value: float
    low: float | None
    high: float | None
    p: float | None
    test: str
    seeds: tuple[int, ...]
    n: int | None
    bound: bool = False


@dataclass(frozen=True)
class Claim:
    """A claim and what the runs say of it.

    Attributes:
        key: short name. statement: the claim. rule: when it is supported.
        compared: the arms. reason: why the verdict is what it is. hint: what to type next; empty for nothing.
    """

    key: str
    statement: str
    rule: str
    compared: tuple[str, ...]
    verdict: Verdict
    reason: str
    hint: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Claims:
    """All claims, on runs of one profile and protocol (empty where there are none).

    Attributes:
        runs: ids by arm, in the order of their seeds.
        warnings: reasons to distrust the verdicts. notes: the protocol.
    """

    profile: str
    protocol: str
    runs: dict[str, tuple[str, ...]]
    claims: tuple[Claim, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


Found = tuple[Verdict, str, tuple[Evidence, ...]]


def check_claims(chosen: ClaimRuns) -> Claims:
    """Check the four claims of the method on the runs that were chosen for them."""
    reader = _Reader(chosen)
    anchor = chosen.anchor
    claims = (
        _claim(
            reader,
            "contrastive",
            "The contrastive loss gains 2 to 3 points over baseline.",
            "supported: at least +2 points, interval above 0; not supported: interval below +2",
            ("baseline", "contrastive"),
            _contrastive,
        ),
        _claim(
            reader,
            "curriculum",
            "The curriculum reaches the same accuracy in fewer epochs.",
            "supported: every run gets there, interval below 0; not supported: interval at or above 0",
            ("contrastive", "full"),
            _curriculum,
        ),
        _claim(
            reader,
            "full",
            "Full is the strongest arm, most of all on confusing task pairs.",
            "supported: all three intervals above 0; not supported: one at or below 0",
            ARMS,
            _full,
        ),
        _claim(
            reader,
            "overhead",
            "The curriculum takes about 5 % more time.",
            "supported: interval at most +7.5 %; not supported: interval above that",
            ("contrastive", "full"),
            _overhead,
        ),
    )
    runs = {arm: tuple(by_seed[seed].run.id for seed in sorted(by_seed)) for arm, by_seed in chosen.arms.items()}
    return Claims(
        anchor.config.profile if anchor else "",
        anchor.config.data.protocol if anchor else "",
        runs,
        claims,
        tuple(_warnings(chosen, reader)),
        (describe_protocol(anchor.config),) if anchor else (),
    )


class _Reader:
    """What the claims need of their runs, read once."""

    def __init__(self, chosen: ClaimRuns) -> None:
        self.chosen = chosen
        self.answers: dict[RunDir, Results] = {}
        self._trainings: dict[RunDir, Training] = {}

    def results(self, arm: str, seeds: Sequence[int]) -> list[Results]:
        """Read the answers of an arm's runs."""
        setups = [self.chosen.arms[arm][seed] for seed in seeds]
        for setup in setups:
            if setup.run not in self.answers:
                self.answers[setup.run] = read_results(setup.run)
        return [self.answers[setup.run] for setup in setups]

    def trainings(self, arm: str, seeds: Sequence[int]) -> list[Training]:
        """Read the training of an arm's runs."""
        setups = [self.chosen.arms[arm][seed] for seed in seeds]
        for setup in setups:
            if setup.run not in self._trainings:
                self._trainings[setup.run] = read_training(setup)
        return [self._trainings[setup.run] for setup in setups]


def _claim(
    reader: _Reader,
    key: str,
    statement: str,
    rule: str,
    arms: tuple[str, ...],
    check: Callable[[_Reader, tuple[int, ...]], Found],
) -> Claim:
    """Check a claim, which is inconclusive where its runs are missing, cannot be read or share a single seed."""
    chosen = reader.chosen
    undecided = Claim(key, statement, rule, arms, "inconclusive", "", "", ())
    seeds_there = sorted({seed for runs in chosen.arms.values() for seed in runs}) or list(ENOUGH_SEEDS)
    if missing := [arm for arm in arms if arm not in chosen.arms]:
        beside = " beside the others" if chosen.arms else ""
        return replace(
            undecided,
            reason=f"There is no finished run of {listed(missing, 'or')}{beside}.",
            hint=f"Train first: {train_command(chosen.anchor, missing, seeds_there)}",
        )
    seeds = chosen.shared_seeds(arms)
    if not seeds:
        newest = sorted(chosen.arms[arms[0]])
        return replace(
            undecided,
            reason=f"No seed has a finished run of {listed(arms, 'and')}.",
            hint=f"Train: {train_command(chosen.anchor, arms[1:], newest)}",
        )
    try:
        verdict, reason, evidence = check(reader, seeds)
    except AcclError as error:
        return replace(undecided, reason=error.what, hint=error.hint)
    if len(seeds) == 1:
        more = [seed for seed in ENOUGH_SEEDS if seed not in seeds][:2]
        return replace(
            undecided,
            reason=f"Seed {seeds[0]} alone cannot tell the recipes from the luck of a seed.",
            hint=f"Train more: {train_command(chosen.anchor, arms, more)}",
            evidence=evidence,
        )
    return replace(undecided, verdict=verdict, reason=reason, evidence=evidence)


def _contrastive(reader: _Reader, seeds: tuple[int, ...]) -> Found:
    gain = _gain(reader, "contrastive", "baseline", seeds)
    low, high = _interval(gain)
    if low > 0 and gain.value >= GAIN:
        return "supported", "The gain is significant, and no less than claimed.", (gain,)
    if high < GAIN:
        return "not supported", "A gain of 2 points and more is ruled out.", (gain,)
    reason = "Neither a gain as claimed nor its absence is ruled out."
    if len(seeds) > 1:
        before, after = (_stacked(reader.results(arm, seeds)) for arm in ("baseline", "contrastive"))
        shown = 100 * smallest_difference(before, after)
        reason += f" These seeds and questions show {shown:.1f} points with {100 * POWER:.0f} % power."
    return "inconclusive", reason, (gain,)


def _curriculum(reader: _Reader, seeds: tuple[int, ...]) -> Found:
    found = sample_efficiency(reader.trainings("contrastive", seeds), reader.trainings("full", seeds))
    evidence = Evidence(
        "full − contrastive, to its accuracy",
        "steps",
        found.delta,
        found.low,
        found.high,
        found.p,
        "paired t over seeds",
        seeds,
        None,
        found.censored,
    )
    late = f" {len(seeds) - found.reached} of {len(seeds)} runs of full never got there." if found.censored else ""
    if found.high is not None and found.high < 0:
        saved = -found.delta / found.reference_steps
        return "supported", f"Full takes {100 * saved:.0f} % fewer steps, and so epochs.", (evidence,)
    if found.low is not None and found.low >= 0:
        return "not supported", f"Full takes no fewer steps.{late}", (evidence,)
    return "inconclusive", late.strip() or "Neither fewer steps nor their absence are ruled out.", (evidence,)


def _full(reader: _Reader, seeds: tuple[int, ...]) -> Found:
    gains = [_gain(reader, "full", arm, seeds) for arm in ("baseline", "contrastive")]
    before, after = (reader.results(arm, seeds) for arm in ("baseline", "full"))
    hard = hard_pairs(before[0].tasks, before[0].task, [result.similarity for result in before])
    untested = ""
    if hard is None:
        untested = "Which task pairs are confusing was not recorded."
    elif hard.n == len(before[0].right):
        untested = "The confusing task pairs touch every task, so that nothing is left to compare them with."
    elif len(seeds) > 1:
        group = hard.members(before[0].task)
        found = contrast_over_seeds(_stacked(before), _stacked(after), group)
        quantity = f"gain on baseline: confusing pairs ({hard.n:,}) − others ({found.n - hard.n:,})"
        gains.append(_accuracy(quantity, found.delta, found.low, found.high, found.p, seeds, found.n))
    intervals = [_interval(gain) for gain in gains]
    if failed := [gain.quantity for gain, (_, high) in zip(gains, intervals, strict=True) if high <= 0]:
        return "not supported", f"There is no gain: {'; '.join(failed)}.", tuple(gains)
    if untested:
        return "inconclusive", untested, tuple(gains)
    if all(low > 0 for low, _ in intervals):
        return "supported", "Full gains on both arms, and more on confusing pairs.", tuple(gains)
    unsure = [gain.quantity for gain, (low, _) in zip(gains, intervals, strict=True) if low <= 0]
    return "inconclusive", f"Not distinguished from 0: {'; '.join(unsure)}.", tuple(gains)


def _overhead(reader: _Reader, seeds: tuple[int, ...]) -> Found:
    logs, devices = [], set()
    for pair in zip(reader.trainings("contrastive", seeds), reader.trainings("full", seeds), strict=True):
        devices |= {training.device for training in pair}
        before, after = (training.milliseconds_per_step for training in pair)
        if not before or not after:
            return "inconclusive", "The runs did not record how long a step took.", ()
        logs.append(math.log(after / before))
    if len(devices) > 1:
        return "inconclusive", f"The runs took different devices: {'; '.join(sorted(devices))}.", ()
    mean, low, high, p = float(np.mean(logs)), None, None, None
    if len(logs) > 1:
        error = float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
        half = student_t_quantile(0.975, len(logs) - 1) * error
        low, high = math.expm1(mean - half), math.expm1(mean + half)
        p = 2 * student_t_tail(abs(mean) / error, len(logs) - 1) if error else float(mean == 0.0)
    evidence = Evidence(
        "step time, full over contrastive",
        "%",
        math.expm1(mean),
        low,
        high,
        p,
        "paired t over seeds, of logarithms",
        seeds,
        None,
    )
    low, high = _interval(evidence)
    if high <= OVERHEAD:
        return "supported", "The curriculum takes no more time than claimed.", (evidence,)
    if low > OVERHEAD:
        return "not supported", "The curriculum takes more time than claimed.", (evidence,)
    anchor = reader.chosen.anchor
    measure = f"accl bench train full --profile {anchor.config.profile if anchor else ''} --arms contrastive,full"
    return "inconclusive", f"The times of the runs vary too much. Time them in turns: {measure}", (evidence,)


def _gain(reader: _Reader, arm: str, reference: str, seeds: tuple[int, ...]) -> Evidence:
    before, after = reader.results(reference, seeds), reader.results(arm, seeds)
    check_pairable([*before, *after])
    first, second, quantity = _stacked(before), _stacked(after), f"{arm} − {reference}"
    if len(seeds) > 1:
        over = difference_over_seeds(first, second)
        return _accuracy(quantity, over.delta, over.low, over.high, over.p, seeds, over.n)
    pair = paired_difference(first[0], second[0])
    return _accuracy(quantity, pair.delta, pair.low, pair.high, pair.p, seeds, pair.n)


def _accuracy(
    quantity: str, value: float, low: float, high: float, p: float, seeds: tuple[int, ...], n: int
) -> Evidence:
    test = "t over seeds and questions" if len(seeds) > 1 else "exact McNemar"
    return Evidence(quantity, "points", value, low, high, p, test, seeds, n)


def _interval(evidence: Evidence) -> tuple[float, float]:
    """Return the interval; the whole line where there is none."""
    low, high = evidence.low, evidence.high
    return -math.inf if low is None else low, math.inf if high is None else high


def _stacked(results: Sequence[Results]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.stack([result.right for result in results])


def _warnings(chosen: ClaimRuns, reader: _Reader) -> list[str]:
    warnings = []
    below = []
    for arm, by_seed in chosen.arms.items():
        read = [reader.answers[setup.run] for setup in by_seed.values() if setup.run in reader.answers]
        floors = [floor for r in read for name in TRIVIAL_BASELINES if (floor := r.number(f"floor/test/{name}"))]
        if read and floors and float(np.mean([r.right.mean() for r in read])) <= max(floors):
            below.append(arm)
    if below:
        warnings.append(f"{listed(below, 'and')} on average {'do' if below[1:] else 'does'} not beat the floor.")
    if chosen.others:
        have = "run of these arms has" if chosen.others == 1 else "runs of these arms have"
        warnings.append(f"{chosen.others} other finished {have} other terms, values or seeds, and take no part.")
    return warnings + unreadable_gap(chosen.unreadable)
