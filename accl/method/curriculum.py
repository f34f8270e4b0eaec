"""From what was observed of the tasks to task weights: the distribution p_K that the sampler draws tasks from.

The method writes w_t = softmax(confusion_t / T). Taken to the letter (`seed_literal`) this collapses: with C
a raw sum, the first update gives nearly all probability to one task, and a batch of one task has no
pairs to correct it; with the mean instead of the sum and T = 2 it never leaves 1 % of uniform. The
corrected rule (`confusion`) standardises the mean confusion over tasks first and keeps a uniform share.

A policy is a pure function of `Observed` and `Knobs`; writing one function under ``@policy(name)`` adds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from accl.method.confusion import task_confusion

# Of mean cosines that were summed in fp32 over thousands of steps.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Observed:
    """What is known of the K tasks when weights are made; NaN where nothing is.

    Attributes:
        similarity_KK: mean positive cosine of encoder features. literal_KK: raw sum over contrastive embeddings.
        entropy_K: mean normalised entropy. entropy_change_K: its change between the last two updates.
        fast_loss_K, slow_loss_K: mean loss in nats over the last steps, and over more of the past.
        gain_K: importance-weighted gains of the bandit. updates: how many updates they stand for, forgetting included.
        questions_K: training questions. fixed_K: weights from a file; None without one.
    """

    similarity_KK: Tensor
    literal_KK: Tensor
    entropy_K: Tensor
    entropy_change_K: Tensor
    fast_loss_K: Tensor
    slow_loss_K: Tensor
    gain_K: Tensor
    updates: float
    questions_K: Tensor
    fixed_K: Tensor | None = None


@dataclass(frozen=True)
class Knobs:
    """Settings of a policy: temperature T > 0; floor in [0, 1]; the number in brackets after the policy's name."""

    temperature: float
    floor: float
    parameter: float = math.nan


Policy = Callable[[Observed, Knobs], Tensor]


@dataclass(frozen=True)
class Registered:
    """A policy, and when it can act.

    Attributes:
        updates: of the curriculum before it has something to act on; 0 for one that observes nothing, which
            therefore has no warm-up and is in force from the first step.
        floored: whether it keeps ``floor`` as a uniform share.
    """

    function: Policy
    updates: int
    floored: bool


POLICIES: dict[str, Registered] = {}


def policy(name: str, *, updates: int = 1, floored: bool = True) -> Callable[[Policy], Policy]:
    """Register a function of (`Observed`, `Knobs`) that returns p_K, float64, under the name used in the config."""

    def register(function: Policy) -> Policy:
        POLICIES[name] = Registered(function, updates, floored)
        return function

    return register


# --- what policies are made of


def uniform(tasks: int) -> Tensor:
    """p_t = 1/K, float64."""
    return torch.full((tasks,), 1 / tasks, dtype=torch.float64)


def with_floor(p_K: Tensor, floor: float) -> Tensor:
    """(1 - floor) p + floor / K: no task is ever forgotten."""
    return (1 - floor) * p_K + floor / len(p_K)


def standardised_softmax(score_K: Tensor, temperature: float, floor: float) -> Tensor:
    """p = (1 - floor) softmax(z / T) + floor / K, float64, with z = (score - mean) / standard deviation over tasks.

    Scale and offset of the scores do not matter. A task without score (NaN) has z = 0, the mean; when all scores
    are equal but for rounding, or fewer than two are known, p is uniform.

    Args:
        score_K: higher draws more. temperature: T > 0. floor: in [0, 1].
    """
    score_K = score_K.double()
    known_K = ~score_K.isnan()
    if known_K.sum() < 2:
        return uniform(len(score_K)).to(score_K.device)
    mean, spread = score_K[known_K].mean(), score_K[known_K].std(correction=0)
    # Equal to rounding means equal: dividing by the spread of fp32 sums would make weights of noise.
    z_K = torch.where(known_K & (spread > ROUNDING), (score_K - mean) / spread.clamp(min=ROUNDING), 0.0)
    return with_floor((z_K / temperature).softmax(-1), floor)


def confusion_policy(mean_KK: Tensor, temperature: float, floor: float) -> Tensor:
    """The corrected rule: `standardised_softmax` of the mean confusion of each task with the others.

    It depends on mean similarities alone, so not on how often a task was drawn.

    Args:
        mean_KK: mean positive cosine of task pairs, NaN where unobserved. temperature: T > 0. floor: in [0, 1].
    """
    return standardised_softmax(task_confusion(mean_KK.double()), temperature, floor)


def seed_literal_policy(sum_KK: Tensor, temperature: float) -> Tensor:
    """The rule as written, p = softmax(confusion_t / T) with confusion_t the raw row sum over other tasks."""
    sum_KK = sum_KK.double()
    return ((sum_KK.sum(-1) - sum_KK.diagonal()) / temperature).softmax(-1)


def bandit_policy(gain_K: Tensor, updates: float, temperature: float, floor: float) -> Tensor:
    """Exponential weights over gains: p = (1 - floor) softmax(eta G / T) + floor / K, eta = sqrt(8 ln K / updates).

    EXP3 and Online Data Mixing explore by min(1/K, sqrt(ln K / (K t))), which at K = 57 is all uniform for 230
    updates: longer than a run. They draw one task per update, though, while between two updates here hundreds of
    questions show nearly every task. So the rate is that of Hedge, which sees all rewards (any time; Cesa-Bianchi
    and Lugosi, 2006, theorem 2.3), reached at T = 1; exploration is the constant floor. With no update, p is uniform.

    Args:
        gain_K, updates: as in `Observed`, for rewards in [0, 1]. temperature: divides the rate. floor: in [0, 1].
    """
    rate = math.sqrt(8 * math.log(len(gain_K)) / updates) if updates > 0 else 0.0
    return with_floor((rate * gain_K.double() / temperature).softmax(-1), floor)


# --- the policies


@policy("uniform", updates=0, floored=False)
def _uniform(seen: Observed, _knobs: Knobs) -> Tensor:
    """p_t = 1/K: stratified sampling, the honest bar for every other policy (Aioli, Chen et al., ICLR 2025)."""
    return uniform(len(seen.questions_K))


@policy("proportional", updates=0, floored=False)
def proportional(seen: Observed, knobs: Knobs) -> Tensor:
    """p_t = n_t^alpha / sum, n_t training questions: alpha 1 natural, 0 uniform over tasks with questions.

    A task without questions has 0. Source: temperature sampling of multilingual models, Devlin (2019), with
    alpha = 1/T.
    """
    n_K = seen.questions_K.double()
    return torch.where(n_K > 0, knobs.parameter * n_K.clamp(min=1).log(), -torch.inf).softmax(-1)


@policy("fixed", updates=0, floored=False)
def fixed(seen: Observed, _knobs: Knobs) -> Tensor:
    """p_t = given weight / sum of given weights, from the first step on and without floor: what was asked for."""
    assert seen.fixed_K is not None, "fixed without weights"
    return seen.fixed_K.double() / seen.fixed_K.double().sum()


@policy("confusion")
def _confusion(seen: Observed, knobs: Knobs) -> Tensor:
    """`confusion_policy`: tasks whose encoder features are like those of other tasks."""
    return confusion_policy(seen.similarity_KK, knobs.temperature, knobs.floor)


@policy("seed_literal", floored=False)
def _seed_literal(seen: Observed, knobs: Knobs) -> Tensor:
    """`seed_literal_policy`: the method to the letter, without the floor it does not have."""
    return seed_literal_policy(seen.literal_KK, knobs.temperature)


@policy("uncertainty")
def uncertainty(seen: Observed, knobs: Knobs) -> Tensor:
    """`standardised_softmax` of the mean normalised entropy of each task's predictions: what the model is unsure of."""
    return standardised_softmax(seen.entropy_K, knobs.temperature, knobs.floor)


@policy("uncertainty_gradient", updates=2)
def uncertainty_gradient(seen: Observed, knobs: Knobs) -> Tensor:
    """`standardised_softmax` of |change of mean entropy between updates|: the method's "uncertainty gradient".

    The wording gives no sign. The absolute value is taken: uncertainty that falls says the task is being
    learned, uncertainty that rises that it is being forgotten, and both call for its questions; what stands
    still is mastered or out of reach, and there the signed rule would rank a stagnant task above a learned one.
    """
    return standardised_softmax(seen.entropy_change_K.abs(), knobs.temperature, knobs.floor)


@policy("loss_bandit")
def _loss_bandit(seen: Observed, knobs: Knobs) -> Tensor:
    """`bandit_policy` on the training loss as reward."""
    return bandit_policy(seen.gain_K, seen.updates, knobs.temperature, knobs.floor)


@policy("learning_progress")
def learning_progress(seen: Observed, knobs: Knobs) -> Tensor:
    """`standardised_softmax` of |fast - slow| mean loss: tasks whose loss moves.

    Source: Graves et al. (2017, arXiv 1704.03003), loss-driven progress; the absolute value, so that forgetting
    counts as well, is that of Matiisen et al. (2017, arXiv 1707.00183).
    """
    return standardised_softmax((seen.fast_loss_K - seen.slow_loss_K).abs(), knobs.temperature, knobs.floor)
