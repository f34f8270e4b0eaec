"""Sample efficiency: steps and questions until an arm is as accurate on validation as the reference at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accl.analysis.crossed import student_t_quantile, student_t_tail
from accl.analysis.results import DEADLINE_S, Setup
from accl.errors import AbsentError
from accl.store.deadline import within
from accl.store.merge import merge_spool
from accl.store.provenance import read_provenance
from accl.store.reader import attached, checking, group_evaluations, read_evals, read_meta
from accl.store.summary import numbers, reading


@dataclass(frozen=True)
class Training:
    """How the training of a run went.

    Attributes:
        steps, accuracies: step and accuracy of every validation, by step; of two at the same step the last counts.
        batch_size: questions of a step.
        milliseconds_per_step: training time without evaluations; None when it was not recorded.
        device: name and precision of what it ran on, as recorded.
    """

    seed: int
    run_id: str
    steps: tuple[int, ...]
    accuracies: tuple[float, ...]
    batch_size: int
    milliseconds_per_step: float | None
    device: str

    @property
    def gap(self) -> int:
        """Return the largest number of steps between two validations, the start counting as one."""
        return max(after - before for before, after in zip((0, *self.steps), self.steps, strict=False))


def read_training(setup: Setup) -> Training:
    """Read the validations and the speed of a run.

    Raises:
        AbsentError: it recorded no validation, or a file is missing.
        DamagedError: its files hold what they cannot hold.
        BusyError: another process holds the database, or the disk does not answer.
        RunError: the database has a later schema.
    """
    run = setup.run
    with reading(run.database), checking(run.database):
        return within(DEADLINE_S, lambda: _read_training(setup))


def _read_training(setup: Setup) -> Training:
    run = setup.run
    merge_spool(run)
    with attached(run.database) as execute:
        meta = read_meta(execute)
        evaluations = group_evaluations(read_evals(execute, meta["schema_version"]))
    found = {e.step: e.value("accuracy") for e in evaluations if e.split == "validation"}
    curve = sorted((step, accuracy) for step, accuracy in found.items() if math.isfinite(accuracy))
    if not curve:
        raise AbsentError(f"Run {run.id} recorded no validation.", "Validations are set by eval.every.")
    device = read_provenance(run).get("device")
    return Training(
        seed=setup.config.train.seed,
        run_id=run.id,
        steps=tuple(step for step, _ in curve),
        accuracies=tuple(accuracy for _, accuracy in curve),
        batch_size=setup.config.train.batch_size,
        milliseconds_per_step=numbers(meta, ("milliseconds_per_step",)).get("milliseconds_per_step"),
        device=", ".join(f"{key} {device[key]}" for key in sorted(device)) if isinstance(device, dict) else str(device),
    )


@dataclass(frozen=True)
class Reach:
    """When a run first was as accurate as the target.

    Attributes:
        target: validation accuracy to reach, as a fraction.
        step, questions: of the first validation at or above it, which is at most `gap` steps late; None if none was.
        last_step: step of the last validation.
    """

    seed: int
    run_id: str
    target: float
    step: int | None
    questions: int | None
    last_step: int
    gap: int

    @property
    def words(self) -> str:
        """Say when the target was reached."""
        return f"not reached by step {self.last_step:,}" if self.step is None else f"step {self.step:,}"


@dataclass(frozen=True)
class SampleEfficiency:
    """Steps and questions until each run of an arm, and its partner of the reference, reached the target.

    The target of a seed is the reference's last validation accuracy under it. The reference always reaches it, the arm
    need not: where two arms are equally good, half of the second's runs end below the first's.

    Attributes:
        reference, arm: by seed, in the same order.
        reached: number of the arm's runs that reached the target; the others are censored.
        steps, questions: mean over the arm's runs, of which the censored ones count with their last validation, so
            that it is at least this; reference_steps is that of the reference.
        delta, low, high, p: mean difference in steps to the reference over the pairs, its 95 % interval and two-sided
            p, see `sample_efficiency`; low, high and p are None with a single pair, and high and p where a run was
            censored, since delta and low then are lower bounds.
    """

    reference: tuple[Reach, ...]
    arm: tuple[Reach, ...]
    reached: int
    steps: float
    questions: float
    reference_steps: float
    delta: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def censored(self) -> bool:
        """Return whether a run of the arm did not reach its target."""
        return self.reached < len(self.arm)


def sample_efficiency(reference: Sequence[Training], arm: Sequence[Training]) -> SampleEfficiency:
    """Compare how many steps two arms need to the reference's final validation accuracy, seed by seed.

    With the differences D_s in steps over S pairs::

        error = max(sd(D), gap / sqrt(6)) / sqrt(S)
        interval = mean(D) ± t_{S-1, 0.975} error,   p = P(|t_{S-1}| > |mean(D)| / error)

    gap / sqrt(6) is the standard deviation that reading both steps off validations leaves, two uniform errors as wide
    as the largest gap between them: pairs that reach the target at the same validations would leave no error.

    Args:
        reference, arm: runs of both, paired in this order.

    Raises:
        ValueError: the arms do not have equally many runs, or none.
    """
    if len(reference) != len(arm) or not arm:
        raise ValueError(f"cannot pair {len(reference)} with {len(arm)} runs")
    targets = [training.accuracies[-1] for training in reference]
    before, after = ([_reach(*pair) for pair in zip(side, targets, strict=True)] for side in (reference, arm))
    counted, base = ([r.last_step if r.step is None else r.step for r in side] for side in (after, before))
    differences = np.subtract(counted, base).astype(float)
    seeds, delta = len(arm), float(differences.mean())
    reached = sum(reach.step is not None for reach in after)
    low = high = p = None
    if seeds > 1:
        gap = max(reach.gap for reach in (*before, *after))
        error = max(float(differences.std(ddof=1)), gap / math.sqrt(6)) / math.sqrt(seeds)
        half = student_t_quantile(0.975, seeds - 1) * error
        low = delta - half
        if reached == seeds:
            high, p = delta + half, 2 * student_t_tail(abs(delta) / error, seeds - 1)
    return SampleEfficiency(
        tuple(before),
        tuple(after),
        reached,
        steps=float(np.mean(counted)),
        questions=float(np.mean([step * training.batch_size for step, training in zip(counted, arm, strict=True)])),
        reference_steps=float(np.mean(base)),
        delta=delta,
        low=low,
        high=high,
        p=p,
    )


def _reach(training: Training, target: float) -> Reach:
    pairs = zip(training.steps, training.accuracies, strict=True)
    # Accuracies of equally many questions are equal or a question apart: rounding must not make one of two equals less.
    step = next((step for step, accuracy in pairs if accuracy >= target - 1e-9), None)
    questions = None if step is None else step * training.batch_size
    return Reach(training.seed, training.run_id, target, step, questions, training.steps[-1], training.gap)
