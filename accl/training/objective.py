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
# The order of the figures that `Objective.backward` returns.
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
    """The loss of a batch.

    Attributes:
        loss: what is minimised, scalar: the sum of the terms.
        classification: weighted cross-entropy. contrastive: weighted contrastive loss; None where its weight is 0.
        figures: the ``FIGURES`` but the gradients, as one detached fp32 tensor, so that they leave the device
            together. A figure that this batch does not have is NaN.
    """

    loss: Tensor
    classification: Tensor
    contrastive: Tensor | None
    figures: Tensor

    def backward(self, shared_ND: Tensor) -> Tensor:
        """Gradients of the terms, one after the other, down to the pooled features where they meet.

        Above those the terms share no parameter, so this costs what one backward pass of the sum costs, and tells the
        norms ||d term / d shared_ND|| besides: which term pulls harder on the encoder. GradNorm (Chen et al., 2018,
        arXiv 1711.02257) likewise looks at the last shared layer.

        Args:
            shared_ND: a leaf that all of the model's output was made from. Its ``grad`` holds the sum afterwards, for
                the encoder below.

        Returns:
            all ``FIGURES``.
        """
        norms = []
        total_ND = torch.zeros_like(shared_ND)
        for term in (self.classification, self.contrastive):
            if term is None:
                norms.append(torch.full((), torch.nan, device=self.figures.device))
                continue
            shared_ND.grad = None
            torch.autograd.backward(term)
            gradient_ND: Tensor = shared_ND.grad  # type: ignore[assignment]  # mypy holds on to the None above
            norms.append(torch.linalg.vector_norm(gradient_ND.float()))
            total_ND = total_ND + gradient_ND
        shared_ND.grad = total_ND
        return torch.cat([self.figures, torch.stack(norms)])


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
    task count in cross-entropy, accuracy and the weights' distribution only.

    The figures beyond the terms: the share of anchors that count in the contrastive loss; mean and quantiles of the
    uncertainty weights w_i; alignment and uniformity of z_BE (`accl.method.representation`).

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
    weighted_contrastive: Tensor | None = None
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
    )
    return Objective(
        loss,
        weighted_classification,
        weighted_contrastive,
        torch.stack([figure.detach().float() for figure in figures]),
    )
