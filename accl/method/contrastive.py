"""Uncertainty-weighted InfoNCE over tasks, and the memory bank that gives it more candidates.

The method writes, for question i of task t_i with positives of the same task and negatives of others,

    L = - sum_i w_i log( exp(sim_pos / tau) / sum exp(sim_neg / tau) ),      w_i = H(p_i) / log C

Every form averages over an anchor's positives outside the logarithm, and over the anchors that have a positive and a
negative. Which negatives those are is a choice of `accl.method.negatives`, what the positives are divided by one of
`accl.method.losses`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accl.choices import LOSSES, NEGATIVES
from accl.method.pairs import Pairs

UncertaintyWeight = Literal["entropy", "margin", "none"]


def uncertainty_weights(logits_BC: Tensor, kind: UncertaintyWeight = "entropy") -> Tensor:
    """Return how uncertain the classifier is of each question, w_B in [0, 1], detached and in fp32.

    ``entropy``: H(p_i) / log C, as written. ``margin``: 1 - (p_first - p_second). ``none``: 1.
    If it were not detached, confident predictions would lower the loss.

    Source: the method, "uncertainty weighting"; margin after Scheffer et al., 2001.
    """
    if kind == "none":
        return logits_BC.new_ones(len(logits_BC), dtype=torch.float32)
    p_BC = logits_BC.detach().float().softmax(-1)
    if kind == "margin":
        top_B2 = p_BC.topk(2, dim=-1).values
        return 1 - (top_B2[:, 0] - top_B2[:, 1])
    return (torch.xlogy(p_BC, p_BC).sum(-1) / -math.log(p_BC.shape[-1])).clamp(0, 1)


@dataclass(frozen=True)
class Candidates:
    """Unit embeddings that anchors are contrasted with beside those of the batch; not where ``filled_M`` is False."""

    z_MD: Tensor
    task_M: Tensor
    text_id_M: Tensor
    filled_M: Tensor


def anchor_losses(
    z_BD: Tensor,
    task_B: Tensor,
    text_id_B: Tensor,
    *,
    temperature: float,
    denominator: str = "negatives",
    negatives: str = "all",
    bank: Candidates | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the contrastive loss of each anchor, B, and which anchors count; losses of the others are finite.

    With s_ij = z_i . z_j / tau, P(i) are the candidates of the same task and N(i) those of other tasks, neither
    containing i itself nor a question of equal text. With the defaults

        l_i = - 1/|P(i)| sum_{p in P(i)} ( s_ip - log sum_{n in N(i)} e^{s_in} )

    An anchor counts if P(i) and the negatives that are kept are not empty.

    Args:
        z_BD: unit embeddings of the anchors; any float type, computed in at least fp32.
        task_B: task index of each; below 0 for a question without task, which is left out altogether.
        text_id_B: an id that equal texts share: such pairs are neither positive nor negative.
        temperature: tau > 0.
        denominator: a form of `accl.method.losses`. negatives: a form of `accl.method.negatives`.
        bank: further candidates, which get no gradient.

    Raises:
        ValueError: a form is unknown, or its number out of range.
    """
    negatives_form, negatives_number = NEGATIVES.load(negatives)
    loss_form, loss_number = LOSSES.load(denominator)
    z_BD = z_BD if z_BD.dtype == torch.float64 else z_BD.float()
    z_MD, task_M, text_id_M = z_BD, task_B, text_id_B
    usable_M = task_B >= 0
    if bank is not None:
        z_MD = torch.cat([z_BD, bank.z_MD.detach().to(z_BD.dtype)])
        task_M, text_id_M = torch.cat([task_B, bank.task_M]), torch.cat([text_id_B, bank.text_id_M])
        usable_M = torch.cat([usable_M, bank.filled_M])
    with torch.autocast(z_BD.device.type, enabled=False):
        sim_BM = z_BD @ z_MD.T / temperature

    # Equal text covers the anchor itself, its old copies in the bank, and duplicates in other subjects. A question
    # without task has no positive among the usable candidates, and so does not count.
    pair_BM = usable_M & (text_id_B[:, None] != text_id_M)
    positive_BM = pair_BM & (task_B[:, None] == task_M)
    pairs = Pairs(sim_BM, positive_BM, pair_BM ^ positive_BM, temperature)

    kept_BM, log_negatives_B = negatives_form.select(pairs, negatives_number)
    loss_B: Tensor = loss_form.compute_losses(pairs, log_negatives_B, loss_number)
    return loss_B, pairs.positives_B.logical_and(kept_BM.any(-1))


def weighted_mean(loss_B: Tensor, counted_B: Tensor, weight_B: Tensor) -> Tensor:
    """Return the loss of a batch, L = sum_i w_i l_i / sum_i w_i over the anchors that count, scalar; 0 without any."""
    # All-zero weights (every answer certain) stay 0. Losses of anchors that do not count are finite, and so add 0.
    weight_B = F.normalize(weight_B.to(loss_B.dtype) * counted_B, p=1, dim=0, eps=torch.finfo(loss_B.dtype).tiny)
    return (weight_B * loss_B).sum()


class MemoryBank(nn.Module):
    """The last S embeddings of each task, kept as extra candidates in one ring buffer per task.

    Contents and pointers are buffers of the module, and so part of a checkpoint.

    Source: cross-batch memory (Wang et al., 2020, arXiv 1912.06798).

    Args:
        tasks: number of tasks, K. size: embeddings per task, S, at least the questions of one task in a batch.
        dim: dimensions of an embedding, E.
    """

    z_KSE: Tensor
    text_KS: Tensor
    written_K: Tensor
    task_M: Tensor
    slot_S: Tensor
    enabled_flag: Tensor

    def __init__(self, tasks: int, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("z_KSE", torch.zeros(tasks, size, dim))
        self.register_buffer("text_KS", torch.full((tasks, size), -1, dtype=torch.long))
        self.register_buffer("written_K", torch.zeros(tasks, dtype=torch.long))
        self.register_buffer("task_M", torch.arange(tasks).repeat_interleave(size), persistent=False)
        self.register_buffer("slot_S", torch.arange(size), persistent=False)
        # On the device, so that a captured step reads it anew; not persistent: it follows from the step.
        self.enabled = True
        self.register_buffer("enabled_flag", torch.ones((), dtype=torch.bool), persistent=False)

    def enable(self, enabled: bool) -> None:
        """Set whether `candidates` gives anything: embeddings of an encoder that still warms up age too fast."""
        self.enabled = enabled
        self.enabled_flag.fill_(enabled)

    def candidates(self) -> Candidates:
        """Return all M = K * S slots without gradient; shapes do not depend on how many are filled.

        The tensors are views of the buffers, which losses copy: call `write` after the losses are computed.
        """
        filled_KS = (self.slot_S < self.written_K[:, None]) & self.enabled_flag
        return Candidates(self.z_KSE.flatten(0, 1), self.task_M, self.text_KS.flatten(), filled_KS.flatten())

    @torch.no_grad()
    def write(self, z_BE: Tensor, task_B: Tensor, text_id_B: Tensor) -> None:
        """Put a batch into the rings, replacing the oldest; questions without task (index below 0) are left out.

        Of more than S questions of one task in a batch, the last S are kept.
        """
        known_B, row_B = task_B >= 0, task_B.clamp(min=0)
        before_BB = (task_B[:, None] == task_B).long().tril(-1)
        earlier_B, later_B = before_BB.sum(1), before_BB.sum(0)
        kept_B = known_B & (later_B < self.size)
        slot_B = (self.written_K[row_B] + earlier_B) % self.size
        # Shapes must not depend on the data, for graph capture: entries that are not kept go to a spare last row.
        flat_B = torch.where(kept_B, slot_B.add(row_B, alpha=self.size), len(self.task_M))
        for rings_KS, new_B in ((self.z_KSE, z_BE.to(self.z_KSE.dtype)), (self.text_KS, text_id_B)):
            old_M = rings_KS.flatten(0, 1)
            new_M = torch.cat([old_M, new_B[:1]]).index_copy_(0, flat_B, new_B)
            rings_KS.copy_(new_M[: len(old_M)].view_as(rings_KS))
        self.written_K.index_add_(0, row_B, known_B.long())
