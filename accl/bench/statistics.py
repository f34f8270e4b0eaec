"""How often the intervals and tests of a comparison are right, over simulated experiments whose truth is known.

An experiment asks every arm and seed the same questions. Question q is answered right with the chance p_q, drawn from
0.15 + 0.7 Beta(1/2, 1/2), so that most are easy or hard. An arm differs from the reference by ``delta`` and, on each
question, by a normal effect of sd `QUESTION_SD`; each of its runs by a normal effect of its seed, so that the true
difference of a pair varies over seeds with the sd ``seed_sd``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accl.analysis.crossed import difference_over_seeds, student_t_quantile, student_t_tail
from accl.analysis.power import smallest_difference
from accl.analysis.stats import Z_95, holm, mcnemar_exact, paired_difference, standard_error, wilson
from accl.bench.report import Row
from accl.text import counted

SEEDS = (2, 3, 5, 10)
SEED_SDS = (0.0, 0.005, 0.01, 0.015)  # of the true difference, as fractions
DELTA = 0.02
QUESTION_SD, QUESTION_LIMIT = 0.05, 0.1  # of an arm's effect on a question, which never leaves the limit
SEED_LIMIT = 0.05  # of a run's effect: with the limit before it, no chance leaves 0..1
SHARE_OF_HARD_PAIRS = 0.2  # of the questions; the fewer, the harder for an interval
TASKS = 57
COVERAGE = (93.0, 98.0)  # percent: least and most of a 95 % interval
POWER = (75.0, 85.0)  # percent: least and most of a nominal 80 %
ALPHA = 0.05
BLOCK = 4_000_000  # answers of one arm drawn at once

Answers = NDArray[np.bool_]


def draw(
    generator: np.random.Generator,
    experiments: int,
    seeds: int,
    questions: int,
    *,
    seed_sd: float,
    deltas: Sequence[float],
) -> tuple[Answers, NDArray[np.float64]]:
    """Draw the answers of a reference, which comes first, and of an arm for each of ``deltas``.

    Returns:
        Whether each question was answered right, (experiments, arms, S, n), and the mean chance of it given the seed,
        over all questions that there could be, (experiments, arms, S).
    """
    shape = (experiments, 1 + len(deltas))
    shift = np.array([0.0, *deltas])[None, :, None]
    chance = 0.15 + 0.7 * generator.beta(0.5, 0.5, (experiments, 1, 1, questions))
    effect = generator.normal(0, QUESTION_SD, (*shape, 1, questions)).clip(-QUESTION_LIMIT, QUESTION_LIMIT)
    effect[:, 0] = 0.0
    of_seed = generator.normal(0, seed_sd / math.sqrt(2), (*shape, seeds)).clip(-SEED_LIMIT, SEED_LIMIT) + shift
    uniform = generator.random((*shape, seeds, questions), dtype=np.float32)
    return uniform < chance + effect + of_seed[..., None], 0.5 + of_seed


def measure(_folder: Path, *, experiments: int, questions: int) -> list[Row]:
    """Simulate, and return coverage, false positives and power in percent, and the differences to scipy.

    Args:
        _folder: not written to.
        experiments: of each setting. questions: n of each experiment.
    """
    simulation = Simulation(experiments, questions)
    rows = [row for seeds in SEEDS for sd in SEED_SDS for row in simulation.over_seeds(seeds, sd)]
    return [*simulation.of_one_run(), *rows, *simulation.power(), *against_references()]


class Simulation:
    """Experiments of one size; every setting draws from a generator of its own, so that reports can be repeated."""

    def __init__(self, experiments: int, questions: int) -> None:
        self.experiments, self.questions = experiments, questions

    def over_seeds(self, seeds: int, seed_sd: float) -> Iterator[Row]:
        """Measure the intervals and tests over several seeds."""
        hard = slice(max(1, round(SHARE_OF_HARD_PAIRS * self.questions)))
        covered: dict[str, list[bool]] = {"difference": [], "difference on hard pairs": []}
        for answers, _ in self._draws(seeds, seed_sd, [DELTA]):
            for first, second in answers:
                for name, part in zip(covered, (slice(None), hard), strict=True):
                    found = difference_over_seeds(first[:, part], second[:, part])
                    covered[name].append(found.low <= DELTA <= found.high)
        where = f"{seeds} seeds, sd {100 * seed_sd:g}"
        for name, inside in covered.items():
            yield share(f"{where}: coverage, {name}", inside, COVERAGE)
        wrong = [
            min(holm([difference_over_seeds(first, arm).p for arm in arms])) <= ALPHA
            for answers, _ in self._draws(seeds, seed_sd, [0.0, 0.0])
            for first, *arms in answers
        ]
        yield share(f"{where}: false positives, two arms, Holm", wrong, self._false_positives)

    def of_one_run(self) -> Iterator[Row]:
        """Measure the intervals and tests of single runs, which are about these runs and not about their recipes."""
        of_task = slice(0, None, TASKS)
        inside: dict[str, list[bool]] = {
            "difference of two runs (Bonett-Price)": [],
            "accuracy of a run (1.96 standard errors)": [],
            "accuracy of a run (Wilson)": [],
            f"accuracy of a run on one of {TASKS} tasks (Wilson)": [],
        }
        for answers, truth in self._draws(1, 0.01, [DELTA]):
            for (first, second), (of_first, of_second) in zip(answers[:, :, 0], truth[:, :, 0], strict=True):
                paired = paired_difference(first, second)
                accuracy = float(first.mean())
                half = Z_95 * standard_error(accuracy, len(first))
                whole, task = (wilson(int(part.sum()), len(part)) for part in (first, first[of_task]))
                hits = (
                    paired.low <= of_second - of_first <= paired.high,
                    abs(accuracy - of_first) <= half,
                    whole[0] <= of_first <= whole[1],
                    task[0] <= of_first <= task[1],
                )
                for name, hit in zip(inside, hits, strict=True):
                    inside[name].append(bool(hit))
        for name, hits_of in inside.items():
            yield share(f"1 seed: coverage, {name}", hits_of, COVERAGE)
        for seed_sd, limits in ((0.0, self._false_positives), (0.01, (None, None))):
            wrong = [
                min(holm([paired_difference(first, arm).p for arm in arms])) <= ALPHA
                for answers, _ in self._draws(1, seed_sd, [0.0, 0.0])
                for first, *arms in answers[:, :, 0]
            ]
            about = ", McNemar, Holm" if limits[1] else ", read as a claim about recipes"
            yield share(f"1 seed, sd {100 * seed_sd:g}: false positives, two arms{about}", wrong, limits)

    def power(self) -> Iterator[Row]:
        """Measure how often a difference is significant that is the root mean square of `smallest_difference`."""
        for seeds, seed_sd in ((1, 0.0), (3, 0.01), (5, 0.01), (10, 0.01)):
            told = [
                smallest_difference(a, b) for answers, _ in self._draws(seeds, seed_sd, [DELTA]) for a, b in answers
            ]
            smallest = math.sqrt(np.mean(np.square(told)))
            significant = [
                (paired_difference(a[0], b[0]) if seeds == 1 else difference_over_seeds(a, b)).p <= ALPHA
                for answers, _ in self._draws(seeds, seed_sd, [smallest])
                for a, b in answers
            ]
            where = f"{counted(seeds, 'seed')}, sd {100 * seed_sd:g}"
            yield share(f"{where}: power at {100 * smallest:.1f} points", significant, POWER)

    @property
    def _false_positives(self) -> tuple[None, float]:
        """The most false positives in percent: 5 %, and twice the error of the simulation."""
        return None, 100 * (ALPHA + 2 * standard_error(ALPHA, self.experiments))

    def _draws(
        self, seeds: int, seed_sd: float, deltas: Sequence[float]
    ) -> Iterator[tuple[Answers, NDArray[np.float64]]]:
        """Draw all experiments, as many at once as fit in little memory."""
        generator = np.random.default_rng([seeds, round(1e4 * seed_sd), len(deltas), round(1e6 * sum(deltas))])
        at_once = max(1, BLOCK // (seeds * self.questions))
        for done in range(0, self.experiments, at_once):
            count = min(at_once, self.experiments - done)
            yield draw(generator, count, seeds, self.questions, seed_sd=seed_sd, deltas=deltas)


def share(what: str, hits: Sequence[bool], limits: tuple[float | None, float | None]) -> Row:
    """Make a row with a share of experiments in percent, its Monte Carlo error, and the least and most it may be."""
    value, (least, most) = float(np.mean(hits)), limits
    return {
        "what": what,
        "value": 100 * value,
        "unit": "%",
        "spread": None,
        "error": 100 * standard_error(value, len(hits)),
        "least": least,
        "target": most,
    }


def against_references() -> Iterator[Row]:
    """Compare McNemar's test, Wilson's interval, Holm's adjustment and Student's t with other implementations."""
    yield _largest("Holm against the closed test of Bonferroni tests", _holm_differences())
    if find_spec("scipy") is None:
        yield _largest("McNemar, Wilson, Student's t against scipy: left out, scipy is not installed", None)
        return
    from scipy import stats  # type: ignore[import-untyped]

    counts = [(0, 0), (1, 0), (2, 8), (35, 21), (120, 180), (600, 640), (4000, 4300)]
    yield _largest(
        "McNemar against scipy",
        [_relative(mcnemar_exact(b, c), stats.binomtest(b, b + c).pvalue if b + c else 1.0) for b, c in counts],
    )
    shares = [(0, 28), (7, 28), (28, 28), (480, 1589), (9000, 14_042)]
    yield _largest(
        "Wilson against scipy",
        [
            abs(ours - theirs)
            for k, n in shares
            for ours, theirs in zip(wilson(k, n), stats.binomtest(k, n).proportion_ci(method="wilson"), strict=True)
        ],
    )
    grid = [(t, freedom) for t in (0.0, 0.5, 2.0, 4.3, 12.7, 60.0) for freedom in (1.0, 1.7, 4.0, 25.0, 1e4)]
    yield _largest(
        "Student's t against scipy",
        [_relative(student_t_tail(t, freedom), float(stats.t.sf(t, freedom))) for t, freedom in grid]
        + [
            _relative(student_t_quantile(p, freedom), float(stats.t.ppf(p, freedom)))
            for p in (0.8, 0.975)
            for _, freedom in grid
        ],
    )


def _largest(what: str, differences: Sequence[float] | None) -> Row:
    value = None if differences is None else max(differences)
    return {"what": what, "value": value, "unit": "", "spread": None, "target": None if value is None else 1e-8}


def _relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(abs(theirs), 1e-300)


def _holm_differences() -> list[float]:
    """Return differences of `holm` to its definition: a hypothesis' largest Bonferroni p over all sets that hold it."""
    generator, differences = np.random.default_rng(0), []
    for count in (1, 2, 3, 5):
        for _ in range(20):
            p = (generator.random(count) ** 3).tolist()
            sets = [chosen for size in range(1, count + 1) for chosen in combinations(range(count), size)]
            bonferroni: dict[Any, float] = {c: min(1.0, len(c) * min(p[i] for i in c)) for c in sets}
            closed = [max(value for chosen, value in bonferroni.items() if i in chosen) for i in range(count)]
            differences += [abs(ours - theirs) for ours, theirs in zip(holm(p), closed, strict=True)]
    return differences
