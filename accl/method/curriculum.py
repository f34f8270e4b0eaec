"""From observations of the tasks to task weights: the distribution p_K that the sampler draws tasks from.

The method writes w_t = softmax(confusion_t / T). Taken to the letter (`as_published`) this collapses: with C a raw
sum, the first update gives nearly all probability to one task, and a batch of one task has no pairs to correct it;
with the mean instead of the sum and T = 2 it never leaves 1 % of uniform. The corrected rule (`confusion`)
standardises the mean confusion over tasks first and keeps a uniform share. Every rule is a file of
`accl.method.policies`; this module holds their arguments and the parts that they share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from accl.choices import POLICIES

# Spread of scores below which they are equal: the rounding of mean cosines summed in fp32 over thousands of steps.
ROUNDING = 1e-5


@dataclass(frozen=True)
class TaskStats:
    """Observations of the K tasks at an update of the curriculum; NaN where a task was not observed.

    Attributes:
        similarity_KK: mean positive cosine of encoder features. literal_KK: raw sum over contrastive embeddings.
        entropy_K: mean normalised entropy. entropy_change_K: its change between the last two updates.
        fast_loss_K, slow_loss_K: mean loss in nats over the last steps, and over more of the past.
        gain_K: importance-weighted gains of the bandit. updates: how many updates they sum over, forgetting included.
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
class PolicyParams:
    """Settings of a policy: temperature T > 0, uniform share epsilon in [0, 1], and the policy's number in brackets."""

    temperature: float
    epsilon: float
    parameter: float = math.nan


@dataclass(frozen=True)
class Policy:
    """A policy that was loaded, with the constants that `accl.method.policies` describes."""

    compute_weights: Callable[[TaskStats, PolicyParams], Tensor]
    parameter: float
    updates_needed: int
    uses_epsilon: bool


def load_policy(text: str) -> Policy:
    """Import the policy that ``text`` names, such as ``proportional(0.5)``.

    Raises:
        ValueError: there is no such policy, or its number is out of range.
    """
    module, parameter = POLICIES.load(text)
    needed, uses_epsilon = getattr(module, "UPDATES_NEEDED", 1), getattr(module, "USES_EPSILON", True)
    return Policy(module.compute_weights, parameter, needed, uses_epsilon)


def uniform(tasks: int) -> Tensor:
    """Return p_t = 1/K, float64."""
    return torch.full((tasks,), 1 / tasks, dtype=torch.float64)


def mix_uniform(p_K: Tensor, epsilon: float) -> Tensor:
    """Return (1 - epsilon) p + epsilon / K, so that no task is ever left out."""
    return (1 - epsilon) * p_K + epsilon / len(p_K)


def standardised_softmax(score_K: Tensor, temperature: float, epsilon: float) -> Tensor:
    """Return p = (1 - epsilon) softmax(z / T) + epsilon / K, float64, with z = (score - mean) / standard deviation.

    Scale and offset of the scores do not matter. A task without score (NaN) has z = 0, the mean; when all scores
    are equal but for rounding, or fewer than two are known, p is uniform.

    Args:
        score_K: tasks with higher scores are drawn more often. temperature: T > 0. epsilon: in [0, 1].
    """
    score_K = score_K.double()
    known_K = ~score_K.isnan()
    if known_K.sum() < 2:
        return uniform(len(score_K)).to(score_K.device)
    mean, spread = score_K[known_K].mean(), score_K[known_K].std(correction=0)
    # Dividing by a spread that is rounding of fp32 sums would make weights of noise.
    z_K = torch.where(known_K & (spread > ROUNDING), (score_K - mean) / spread.clamp(min=ROUNDING), 0.0)
    return mix_uniform((z_K / temperature).softmax(-1), epsilon)
