"""The loss of one batch: weighted cross-entropy and contrastive terms, with the figures that are logged of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from accl.config import Loss
from accl.method.contrastive import MemoryBank, contrastive_loss, uncertainty_weights
from accl.method.model import ModelOutput

# The order of the figures in `Objective.figures`.
FIGURES = ("loss", "classification", "contrastive", "accuracy", "anchor_share", "uncertainty_weight")


@dataclass(frozen=True)
class Objective:
    """The loss to minimise (scalar), and the ``FIGURES`` as one detached fp32 tensor, so that they leave the
    device together."""

    loss: Tensor
    figures: Tensor


def objective(
    output: ModelOutput,
    answer_B: Tensor,
    task_B: Tensor,
    text_B: Tensor,
    config: Loss,
    bank: MemoryBank | None,
) -> Objective:
    """classification_weight x cross-entropy + contrastive_weight x contrastive loss.

    With a contrastive weight of 0 that term is not computed, and its figures are NaN (not logged). Questions without
    task count in cross-entropy only.
    """
    logits_BC = output.logits_BC.float()
    classification = F.cross_entropy(logits_BC, answer_B)
    weight_B = uncertainty_weights(logits_BC, config.uncertainty_weight)
    loss = config.classification_weight * classification
    nothing = torch.full((), torch.nan, device=loss.device)
    contrastive, anchor_share = nothing, nothing
    if config.contrastive_weight > 0:
        result = contrastive_loss(
            output.z_BE,
            task_B,
            text_B,
            weight_B,
            temperature=config.temperature,
            denominator=config.denominator,
            bank=None if bank is None else bank.candidates(),
        )
        contrastive = result.loss
        anchor_share = result.counted_B.float().mean()
        loss = loss + config.contrastive_weight * contrastive
    accuracy = (logits_BC.argmax(-1) == answer_B).float().mean()
    figures = torch.stack([loss, classification, contrastive, accuracy, anchor_share, weight_B.mean()])
    return Objective(loss, figures.detach().float())
