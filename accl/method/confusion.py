"""The task confusion matrix: how similar the embeddings of two tasks are, and which tasks are taken for which.

The method writes C[i, j] = sum max(0, cos(e_a, e_b)) over a in task i and b in task j. The raw sum grows
with how often a pair of tasks was drawn, so `TaskConfusion` keeps the number of pairs beside it; their
quotient, the mean positive cosine, does not depend on the sampler. `PrototypeConfusion` is a confusion matrix
in the sense of classification: the share of a task's questions that lie nearest to the prototype of each task.
Everything here works for any K, stays on the device and has shapes that do not depend on the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A decayed sum, the factor that it decays by, and the term that is added to it.
Addition = tuple[Tensor, float, Tensor]


def accumulate(additions: Iterable[Addition]) -> None:
    """Update decayed sums in place, sum <- keep * sum + new, all in two operations: on a GPU each costs a launch."""
    sums, keeps, news = zip(*additions, strict=True)
    torch._foreach_mul_(sums, keeps)
    torch._foreach_add_(sums, news)


def membership(task_B: Tensor, index_K: Tensor) -> Tensor:
    """Return the one-hot tasks of questions, B x K in fp32; zeros for a question without task (index below 0)."""
    return (task_B[:, None] == index_K).float()


def pair_sums(embeddings: Sequence[Tensor], member_BK: Tensor) -> Tensor:
    """Compute `pair_similarities` for X kinds of embeddings at once, B x D each, any D, of length 1 and in fp32.

    Returns:
        the X sums, then the number of pairs, (X + 1) x K x K.
    """
    with torch.autocast(member_BK.device.type, enabled=False):
        one_BB = member_BK.new_ones(len(member_BK), len(member_BK))
        sim_XBB = torch.stack([*(e_BD @ e_BD.T for e_BD in embeddings), one_BB]).clamp(min=0)
        # The upper triangle, then its mirror image: no question is paired with itself, and symmetry is exact.
        sum_XKK = member_BK.T @ (sim_XBB.triu(1) @ member_BK)
    return sum_XKK + sum_XKK.mT


def pair_similarities(e_BD: Tensor, task_B: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
    """Compute sums and numbers of positive cosines between the tasks of a batch.

    sum[i, j] = sum_{a != b} max(0, cos(e_a, e_b)) over a in task i and b in task j; both results are K x K,
    symmetric and fp32. An embedding is never paired with itself. Questions without task (index below 0) do not count.
    """
    e_BD = F.normalize(e_BD.detach().float(), dim=-1)
    member_BK = membership(task_B, torch.arange(tasks, device=task_B.device))
    sum_KK, count_KK = pair_sums([e_BD], member_BK)
    return sum_KK, count_KK


class TaskConfusion(nn.Module):
    """Streaming K x K confusion with exponential forgetting, in buffers that are part of a checkpoint.

    An observation counts half after ``half_life`` optimizer steps; None never forgets (as written).
    """

    sum_KK: Tensor
    count_KK: Tensor

    def __init__(self, tasks: int, half_life: float | None) -> None:
        super().__init__()
        self.keep = 1.0 if half_life is None else 0.5 ** (1 / half_life)
        self.register_buffer("sum_KK", torch.zeros(tasks, tasks))
        self.register_buffer("count_KK", torch.zeros(tasks, tasks))

    @torch.no_grad()
    def observe(self, e_BD: Tensor, task_B: Tensor) -> None:
        """Add the pairs of one batch of embeddings; they need not be normalised."""
        accumulate(self.additions(*pair_similarities(e_BD, task_B, len(self.sum_KK))))

    def additions(self, sum_KK: Tensor, count_KK: Tensor) -> list[Addition]:
        """Return the terms that `observe` accumulates, from a batch's `pair_similarities`."""
        return [(self.sum_KK, self.keep, sum_KK), (self.count_KK, self.keep, count_KK)]

    def mean(self) -> Tensor:
        """Return the mean positive cosine of every pair of tasks, K x K in [0, 1]; NaN where no pair was observed."""
        return torch.where(self.count_KK > 0, self.sum_KK / self.count_KK, torch.nan)

    def total(self) -> Tensor:
        """Return the sum of positive cosines of every pair of tasks, K x K; NaN where no pair was observed."""
        return torch.where(self.count_KK > 0, self.sum_KK, torch.nan)


class PrototypeConfusion(nn.Module):
    """Streaming nearest-prototype confusion with exponential forgetting, in buffers that are part of a checkpoint.

    The prototype of a task is the decayed mean of its unit features; the nearest one has the largest cosine. A question
    is assigned before it is added to its own prototype, so that it is never compared with itself, and counts once its
    own task has a prototype. The matrix is not symmetric: a broad task is taken for a narrow one more often than the
    other way round.

    Source: Snell et al. (2017, arXiv 1703.05175).
    """

    sum_KD: Tensor
    weight_K: Tensor
    nearest_KK: Tensor
    count_KK: Tensor
    one_KK: Tensor

    def __init__(self, tasks: int, dim: int, half_life: float | None) -> None:
        super().__init__()
        self.keep = 1.0 if half_life is None else 0.5 ** (1 / half_life)
        self.register_buffer("sum_KD", torch.zeros(tasks, dim))
        self.register_buffer("weight_K", torch.zeros(tasks))
        self.register_buffer("nearest_KK", torch.zeros(tasks, tasks))  # questions of i nearest to prototype j
        self.register_buffer("count_KK", torch.zeros(tasks, tasks))  # questions of i that had j to choose from
        self.register_buffer("one_KK", torch.eye(tasks), persistent=False)  # row t: one-hot of task t

    @torch.no_grad()
    def observe(self, e_BD: Tensor, task_B: Tensor) -> None:
        """Assign a batch of embeddings (any length, any float type), then add it to the prototypes.

        Questions without task (index below 0) do not count.
        """
        e_BD = F.normalize(e_BD.detach().float(), dim=-1)
        accumulate(self.additions(e_BD, membership(task_B, torch.arange(len(self.weight_K), device=task_B.device))))

    def additions(self, e_BD: Tensor, member_BK: Tensor) -> list[Addition]:
        """Return the terms that `observe` accumulates, from unit embeddings in fp32 and their `membership`."""
        exists_K = self.weight_K.sign()
        counted_BK = member_BK * exists_K
        with torch.autocast(e_BD.device.type, enabled=False):
            # log 1 = 0, and log 0 = -inf rules out prototypes that do not exist yet.
            nearest_B = F.linear(e_BD, F.normalize(self.sum_KD, dim=-1), exists_K.log()).argmax(-1)
            return [
                (self.nearest_KK, self.keep, counted_BK.T @ self.one_KK[nearest_B]),
                (self.count_KK, self.keep, counted_BK.sum(0)[:, None] * exists_K),
                (self.sum_KD, self.keep, member_BK.T @ e_BD),
                (self.weight_K, self.keep, member_BK.sum(0)),
            ]

    def share(self) -> Tensor:
        """Return the share of task i's questions nearest to prototype j, K x K; rows sum to 1.

        NaN where no question of i was ever assigned while j had a prototype.
        """
        share_KK = self.nearest_KK / self.nearest_KK.sum(-1, keepdim=True)
        return torch.where(self.count_KK > 0, share_KK, torch.nan)


@torch.no_grad()
def prototype_confusion(e_ND: Tensor, task_N: Tensor, tasks: int) -> tuple[Tensor, Tensor]:
    """Compute the share of each task's questions nearest to each prototype over a split, and their number, K x K.

    Leave-one-out: a question is compared with the mean of the *other* unit embeddings of its own task, so a task
    of one question has no prototype for it and its row is NaN; so is the column of a task without questions.
    Otherwise as `PrototypeConfusion`, without decay. Questions without task (index below 0) do not count.
    """
    member_NK = task_N[:, None] == torch.arange(tasks, device=task_N.device)
    size_K = member_NK.sum(0)
    sim_NK = _prototype_similarity(e_ND, task_N, member_NK)
    nearest_NK = sim_NK.argmax(-1, keepdim=True) == torch.arange(tasks, device=task_N.device)
    counted_K = torch.where(size_K > 1, size_K, 0)
    count_KK = (counted_K[:, None] * (size_K > 0)).float()
    nearest_KK = member_NK.float().T @ nearest_NK.float()
    return torch.where(count_KK > 0, nearest_KK / size_K[:, None], torch.nan), count_KK


@torch.no_grad()
def nearest_tasks(e_ND: Tensor, task_N: Tensor, tasks: int, most: int) -> list[list[int]]:
    """Return the tasks, other than its own, whose prototypes are nearest to each question, nearest first.

    N rows of at most ``most`` tasks; a task without questions has no prototype.
    """
    member_NK = task_N[:, None] == torch.arange(tasks, device=task_N.device)
    sim_NK = _prototype_similarity(e_ND, task_N, member_NK).masked_fill(member_NK, -torch.inf)
    value_NM, task_NM = sim_NK.topk(min(most, tasks), dim=-1)
    exists_NM = value_NM > -torch.inf
    return [row[:n] for row, n in zip(task_NM.tolist(), exists_NM.sum(-1).tolist(), strict=True)]


def _prototype_similarity(e_ND: Tensor, task_N: Tensor, member_NK: Tensor) -> Tensor:
    """Return the cosine of each embedding with each prototype, leave-one-out, N x K; -inf where there is none."""
    e_ND = F.normalize(e_ND.float(), dim=-1)
    sum_KD = member_NK.float().T @ e_ND
    others_ND = F.normalize(sum_KD[task_N.clamp(min=0)] - e_ND, dim=-1)
    own_N1 = (e_ND * others_ND).sum(-1, keepdim=True)
    sim_NK = torch.where(member_NK, own_N1, e_ND @ F.normalize(sum_KD, dim=-1).T)
    return sim_NK.masked_fill(member_NK.sum(0) == 0, -torch.inf)


@torch.no_grad()
def mean_similarity(e_ND: Tensor, task_N: Tensor, tasks: int, rows: int = 2048) -> tuple[Tensor, Tensor]:
    """Compute the mean positive cosine between all questions of every two tasks, and the number of pairs, both K x K.

    This is the quantity that `TaskConfusion` estimates from batches, over a whole split, ``rows`` rows of the N x N
    similarities at a time. NaN where there is no pair.
    """
    e_ND = F.normalize(e_ND.float(), dim=-1)
    member_NK = (task_N[:, None] == torch.arange(tasks, device=task_N.device)).float()
    sum_KK = torch.zeros(tasks, tasks, device=e_ND.device)
    for start in range(0, len(e_ND), rows):
        part = slice(start, start + rows)
        sim_RN = (e_ND[part] @ e_ND.T).clamp(min=0)
        sim_RN[torch.arange(len(sim_RN)), torch.arange(start, start + len(sim_RN))] = 0  # the question itself
        sum_KK += member_NK[part].T @ (sim_RN @ member_NK)
    size_K = member_NK.sum(0)
    count_KK = size_K[:, None] * size_K - torch.diag(size_K)
    mean_KK = torch.where(count_KK > 0, sum_KK / count_KK, torch.nan)
    return (mean_KK + mean_KK.T) / 2, count_KK


def task_confusion(mean_KK: Tensor) -> Tensor:
    """Return how confusable each task is: the mean of its row over the *other* tasks, K; NaN if none was observed."""
    return mean_KK.clone().fill_diagonal_(torch.nan).nanmean(-1)
