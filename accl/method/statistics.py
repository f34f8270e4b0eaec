"""Statistics of each task beside its confusion: loss, uncertainty, and the gains of a bandit.

All of them are buffers, so that weights after a resume follow from the checkpoint alone.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from accl.method.confusion import Addition, accumulate, membership

# Rows of the decayed sums.
_ENTROPY, _FAST, _SLOW, _WINDOW = range(4)


def bandit_reward(loss_B: Tensor, choices: int) -> Tensor:
    """Return the reward of drawing a question, r = min(1, loss / (2 log C)) in [0, 1]: 1/2 for a guess among C options.

    Source: the training loss as reward, Albalak et al. (2023, arXiv 2312.02406); the bound, EXP3.
    """
    return (loss_B / (2 * math.log(choices))).clamp(0, 1)


class TaskStatistics(nn.Module):
    """Decayed per-task means, and their change from one update of the curriculum to the next.

    A mean is sum_s keep^(now - s) v_s / sum_s keep^(now - s) over the questions of a task drawn at steps s, which in
    expectation does not depend on how often the task was drawn. NaN for a task that was never drawn.

    Args:
        tasks: number of tasks, K.
        half_life: steps after which an observation counts half, of uncertainty and of the slow loss.
        fast_half_life: likewise for the fast loss.
        gain_half_life: *updates* after which the bandit's gains count half.
    """

    sum_VK: Tensor
    count_VK: Tensor
    previous_K: Tensor
    change_K: Tensor
    gain_K: Tensor
    updates: Tensor

    def __init__(self, tasks: int, *, half_life: float, fast_half_life: float, gain_half_life: float) -> None:
        super().__init__()
        self.keep = [*(0.5 ** (1 / steps) for steps in (half_life, fast_half_life, half_life)), 1.0]
        self.gain_keep = 0.5 ** (1 / gain_half_life)
        self.register_buffer("sum_VK", torch.zeros(4, tasks))
        self.register_buffer("count_VK", torch.zeros(4, tasks))
        unknown_K = torch.full((tasks,), torch.nan, dtype=torch.float64)
        self.register_buffer("previous_K", unknown_K)
        self.register_buffer("change_K", unknown_K.clone())
        self.register_buffer("gain_K", torch.zeros(tasks, dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def observe(self, loss_B: Tensor, entropy_B: Tensor, task_B: Tensor, choices: int) -> None:
        """Add a batch: loss in nats, entropy H / log C. Questions without task (index below 0) do not count."""
        index_K = torch.arange(self.sum_VK.shape[1], device=task_B.device)
        member_BK = membership(task_B, index_K)
        accumulate(self.additions(loss_B.detach().float(), entropy_B.detach().float(), member_BK, choices))

    def additions(self, loss_B: Tensor, entropy_B: Tensor, member_BK: Tensor, choices: int) -> list[Addition]:
        """Return the terms that `observe` accumulates, from fp32 losses and entropies and the tasks' `membership`."""
        value_VB = torch.stack([entropy_B, loss_B, loss_B, bandit_reward(loss_B, choices)])
        with torch.autocast(loss_B.device.type, enabled=False):
            sum_VK, count_VK = value_VB @ member_BK, member_BK.sum(0).expand_as(self.count_VK)
        return [
            *zip(self.sum_VK, self.keep, sum_VK, strict=True),
            *zip(self.count_VK, self.keep, count_VK, strict=True),
        ]

    def entropy(self) -> Tensor:
        """Return the mean normalised entropy of each task's predictions, K float64 in [0, 1]; NaN if never drawn."""
        return self._mean(_ENTROPY)

    def fast_loss(self) -> Tensor:
        """Return the mean loss of each task over the last steps, K float64 in nats; NaN if never drawn."""
        return self._mean(_FAST)

    def slow_loss(self) -> Tensor:
        """Return the mean loss of each task over more of the past, K float64 in nats; NaN if never drawn."""
        return self._mean(_SLOW)

    def change(self) -> Tensor:
        """Return the change of `entropy` between the last two updates, K float64; NaN if not drawn in between."""
        return self.change_K

    @torch.no_grad()
    def advance(self, share_K: Tensor) -> None:
        """Close the window since the last update: record the change of uncertainty, and credit the bandit.

        A task drawn n_t of the window's N questions, with mean reward r_t, is credited the importance-weighted

            g_t = (n_t / N) / q_t * (r_t - b),   b = mean of r over the tasks drawn,

        and 0 when it was not drawn; gains G <- keep * G + g. Since E[n_t / N] = q_t this is unbiased for r_t - b.
        The baseline b shifts all tasks alike and takes out the variance that chance in n_t would add. The
        importance is capped at K, which binds only where a task is drawn more than K times its expected share.

        Source: EXP3, Auer et al. (2002), doi 10.1137/S0097539701398375; forgetting as in discounted bandits,
        Garivier and Moulines (2011, arXiv 0805.3415).

        Args:
            share_K: q_t, the expected share of the questions under the weights in force (`draw_shares`).
        """
        entropy_K = self.entropy()
        drawn_once_K = self.count_VK[_WINDOW] > 0
        self.change_K.copy_(torch.where(drawn_once_K, entropy_K - self.previous_K, torch.nan))
        self.previous_K.copy_(entropy_K)

        reward_K = self._mean(_WINDOW)
        drawn_K = self.count_VK[_WINDOW].double()
        share_K = share_K.to(drawn_K).clamp(min=torch.finfo(torch.float64).tiny)
        importance_K = (drawn_K / drawn_K.sum().clamp(min=1) / share_K).clamp(max=len(drawn_K))
        gain_K = torch.where(drawn_once_K, importance_K * (reward_K - reward_K.nanmean()), 0.0)
        self.gain_K.mul_(self.gain_keep).add_(gain_K)
        self.updates.mul_(self.gain_keep).add_(1)
        self.sum_VK[_WINDOW].zero_()
        self.count_VK[_WINDOW].zero_()

    def _mean(self, row: int) -> Tensor:
        sum_K, count_K = self.sum_VK[row].double(), self.count_VK[row].double()
        return torch.where(count_K > 0, sum_K / count_K, torch.nan)


def draw_shares(p_K: Tensor, places: int | None) -> Tensor:
    """Return the expected share of the questions that each task gets, q_K float64, when a batch is drawn from p_K.

    Independent draws (``places`` None): p itself. P tasks without replacement by Gumbel-top-k: q_t = pi_t / P with
    pi_t = 1 - exp(-c p_t) and c such that the pi sum to P. That is the inclusion probability of a task
    whose exponential clock of rate p_t rings before a fixed time c; top-k stops at the P-th ring instead, which
    differs little (Rosen, 1997, "Asymptotic theory for order sampling"): at most 6 % of q in simulations of K from 6 to
    57 and P from 3 to 16 with weights between 0.14 and 12 times uniform, where p itself was off by up to 126 %.

    Args:
        p_K: distribution; tasks that cannot be drawn have 0. places: distinct tasks of a batch, P.
    """
    p_K = p_K.double()
    if places is None:
        return p_K
    possible_K = p_K > 0
    if int(possible_K.sum()) <= places:
        return possible_K.double() / places
    # In numpy: torch takes ten times as long for so few numbers, while a GPU may be waiting.
    rate_K = p_K.numpy()
    c, further = 0.0, float(places)
    # Newton's method on an increasing concave function approaches the root from below and stops at rounding.
    while further > c:
        c = further
        silent_K = np.exp(-c * rate_K)
        slope = max((rate_K * silent_K).sum(), np.finfo(np.float64).tiny)
        further = min(c + (places - (1 - silent_K).sum()) / slope, 1e300)
    return torch.from_numpy(-np.expm1(-c * rate_K)) / places
