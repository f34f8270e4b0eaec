"""The loss of one batch: weighted cross-entropy and contrastive terms, with the figures that are logged of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from accl.config import Loss, parse_choice
from accl.method.contrastive import MemoryBank, contrastive_loss, uncertainty_weights
from accl.method.model import ModelOutput
from accl.method.representation import alignment_and_uniformity, quantiles

WEIGHT_QUANTILES = (0.1, 0.5, 0.9)
# The order of the figures in `Objective.figures`.
FIGURES = (
    "loss",
    "classification",
    "contrastive",
    "accuracy",
    "anchor_share",
    "uncertainty_weight",  # the mean
    *(f"uncertainty_weight_p{round(100 * share)}" for share in WEIGHT_QUANTILES),
    "alignment",
    "uniformity",
    "gradient_classification",
    "gradient_contrastive",
)


@dataclass(frozen=True)
class Objective:
    """The loss to minimise (scalar), and the ``FIGURES`` as one detached fp32 tensor, so that they leave the
    device together. A figure that this batch does not have is NaN."""

    loss: Tensor
    figures: Tensor


def objective(
    output: ModelOutput,
    answer_B: Tensor,
    task_B: Tensor,
    text_B: Tensor,
    config: Loss,
    bank: MemoryBank | None,
    shared_ND: Tensor | None = None,
) -> Objective:
    """classification_weight x cross-entropy + contrastive_weight x contrastive loss.

    With a contrastive weight of 0 that term is not computed, and its figures are NaN (not logged). Questions without
    task count in cross-entropy, accuracy and the weights' distribution only.

    The figures beyond the terms: the share of anchors that count in the contrastive loss; mean and quantiles of the
    uncertainty weights w_i; alignment and uniformity of z_BE (`accl.method.representation`); and, where ``shared_ND``
    is given, the gradient norm of each term as weighted in the loss, ||d(weight x term) / d shared_ND||. That is the
    gradient at the shared representation, not over all parameters: it shows which term pulls harder on the encoder,
    and costs a backward pass through the heads alone. GradNorm (Chen et al., 2018, arXiv 1711.02257) likewise looks
    at the last shared layer.

    Args:
        shared_ND: the pooled features that all of ``output`` was made from; None leaves the gradient norms NaN.

    Raises:
        ValueError: the parameter of ``config.negatives`` is out of range.
    """
    logits_BC = output.logits_BC.float()
    classification = F.cross_entropy(logits_BC, answer_B)
    weight_B = uncertainty_weights(logits_BC, config.uncertainty_weight)
    weighted_classification = config.classification_weight * classification
    loss = weighted_classification
    nothing = torch.full((), torch.nan, device=loss.device)
    contrastive, anchor_share = nothing, nothing
    gradient_classification, gradient_contrastive = nothing, nothing
    if shared_ND is not None:
        gradient_classification = _gradient_norm(weighted_classification, shared_ND)
    if config.contrastive_weight > 0:
        negatives, parameter = parse_choice(config.negatives)
        result = contrastive_loss(
            output.z_BE,
            task_B,
            text_B,
            weight_B,
            temperature=config.temperature,
            denominator=config.denominator,
            negatives=negatives,
            parameter=parameter,
            bank=None if bank is None else bank.candidates(),
        )
        contrastive = result.loss
        anchor_share = result.counted_B.float().mean()
        weighted_contrastive = config.contrastive_weight * contrastive
        if shared_ND is not None:
            gradient_contrastive = _gradient_norm(weighted_contrastive, shared_ND)
        loss = loss + weighted_contrastive
    accuracy = (logits_BC.argmax(-1) == answer_B).float().mean()
    figures = (
        loss,
        classification,
        contrastive,
        accuracy,
        anchor_share,
        weight_B.mean(),
        *quantiles(weight_B, WEIGHT_QUANTILES),
        *alignment_and_uniformity(output.z_BE, task_B, text_B),
        gradient_classification,
        gradient_contrastive,
    )
    return Objective(loss, torch.stack([figure.detach().float() for figure in figures]))


def _gradient_norm(term: Tensor, shared_ND: Tensor) -> Tensor:
    # The graph is kept: the backward pass of the whole loss goes through it again.
    (gradient_ND,) = torch.autograd.grad(term, shared_ND, retain_graph=True)
    norm: Tensor = torch.linalg.vector_norm(gradient_ND.float())
    return norm
