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
# The order of what `figures` returns.
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
        terms: both without their weights, and the share of anchors that count in the second; NaN for what is not there.
        weight_B: the uncertainty weights w_i.
    """

    loss: Tensor
    classification: Tensor
    contrastive: Tensor | None
    terms: tuple[Tensor, Tensor, Tensor]
    weight_B: Tensor

    def backward(self, shared_ND: Tensor) -> Tensor:
        """Gradients of the terms, one after the other, down to the pooled features where they meet.

        Above those the terms share no parameter, so this costs what one backward pass of the sum costs, and tells the
        norms ||d term / d shared_ND|| besides: which term pulls harder on the encoder. GradNorm (Chen et al., 2018,
        arXiv 1711.02257) likewise looks at the last shared layer.

        Args:
            shared_ND: a leaf that all of the model's output was made from. Its ``grad`` holds the sum afterwards, for
                the encoder below.

        Returns:
            the two norms; NaN for a term that is not there.
        """
        norms = []
        total_ND: Tensor | None = None
        for term in (self.classification, self.contrastive):
            if term is None:
                norms.append(torch.full((), torch.nan, device=self.loss.device))
                continue
            shared_ND.grad = None
            torch.autograd.backward(term)
            gradient_ND: Tensor = shared_ND.grad  # type: ignore[assignment]  # mypy holds on to the None above
            norms.append(torch.linalg.vector_norm(gradient_ND.float()))
            total_ND = gradient_ND if total_ND is None else total_ND + gradient_ND
        shared_ND.grad = total_ND
        return torch.stack(norms)


def objective(
    output: ModelOutput,
    answer_B: Tensor,
    task_B: Tensor,
    text_B: Tensor,
    config: Loss,
    bank: MemoryBank | None,
) -> Objective:
    """classification_weight x cross-entropy + contrastive_weight x contrastive loss.

    With a contrastive weight of 0 that term is not computed. Questions without task count in cross-entropy only.

    Raises:
        ValueError: the parameter of ``config.negatives`` is out of range.
    """
    logits_BC = output.logits_BC.float()
    classification = F.cross_entropy(logits_BC, answer_B)
    weight_B = uncertainty_weights(logits_BC, config.uncertainty_weight)
    weighted = config.classification_weight * classification
    if config.contrastive_weight == 0:
        nothing = torch.full((), torch.nan, device=weighted.device)
        return Objective(weighted, weighted, None, (classification, nothing, nothing), weight_B)
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
    contrastive = config.contrastive_weight * result.loss
    terms = classification, result.loss, result.counted_B.float().mean()
    return Objective(weighted + contrastive, weighted, contrastive, terms, weight_B)


@torch.no_grad()
def figures(
    result: Objective, norms: Tensor, output: ModelOutput, answer_B: Tensor, task_B: Tensor, text_B: Tensor
) -> Tensor:
    """All ``FIGURES`` of a batch as one fp32 tensor, so that they leave the device together; NaN for what is not there.

    Beyond the terms: accuracy, mean and quantiles of the uncertainty weights, alignment and uniformity of z_BE
    (`accl.method.representation`), and the norms that `Objective.backward` gave.
    """
    classification, contrastive, anchor_share = result.terms
    scalars = (
        result.loss,
        classification,
        contrastive,
        (output.logits_BC.argmax(-1) == answer_B).float().mean(),
        anchor_share,
        result.weight_B.mean(),
        *quantiles(result.weight_B, WEIGHT_QUANTILES),
        *alignment_and_uniformity(output.z_BE, task_B, text_B),
    )
    return torch.cat([torch.stack([scalar.float() for scalar in scalars]), norms])
