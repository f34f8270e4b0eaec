"""The loss of one batch: weighted cross-entropy and contrastive terms, with the figures that are logged of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from accl.config import Loss
from accl.kernels.cpu.contrast import Bank, Contrast
from accl.kernels.triton.aside import NOT_ASIDE, Aside
from accl.method.contrastive import MemoryBank, anchor_losses, uncertainty_weights, weighted_mean
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
        classification: weighted cross-entropy. contrastive: weighted contrastive loss; None where its weight is 0.
        terms: both without their weights, and the share of anchors that count in the second; NaN for what is not there.
        weight_B: the uncertainty weights w_i.
    """

    classification: Tensor
    contrastive: Tensor | None
    terms: tuple[Tensor, Tensor, Tensor]
    weight_B: Tensor

    @property
    def loss(self) -> Tensor:
        """What is minimised, scalar: the sum of the terms."""
        return self.classification if self.contrastive is None else self.classification + self.contrastive

    def backward(self, shared_ND: Tensor, apart_ND: Tensor, aside: Aside = NOT_ASIDE) -> Tensor:
        """Gradients of the terms, one beside the other, down to the pooled features where they meet.

        Above those the terms share no parameter, so this costs what one backward pass of the sum costs, and tells the
        norms ||d term / d shared_ND|| besides: which term pulls harder on the encoder. GradNorm (Chen et al., 2018,
        arXiv 1711.02257) likewise looks at the last shared layer.

        Args:
            shared_ND, apart_ND: the pooled features as leaves that the classification and the contrastive term were
                made from, which may be one. The ``grad`` of the first holds the sum afterwards, for the encoder below.
            aside: where the contrastive term was made.

        Returns:
            the two norms; NaN for a term that is not there.
        """
        contrast_ND: Tensor | None = None
        norms = [torch.full((), torch.nan, device=self.classification.device)] * 2
        if self.contrastive is not None:
            with aside.again():
                contrast_ND, norms[1] = _gradient(self.contrastive, apart_ND)
        gradient_ND, norms[0] = _gradient(self.classification, shared_ND)
        aside.join()
        shared_ND.grad = gradient_ND if contrast_ND is None else gradient_ND + contrast_ND
        return torch.stack(norms)


def _gradient(term: Tensor, leaf_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Of a term, at a leaf, and its norm; the parameters in between get theirs."""
    leaf_ND.grad = None
    torch.autograd.backward(term)
    gradient_ND: Tensor = leaf_ND.grad  # type: ignore[assignment]  # mypy holds on to the None above
    return gradient_ND, torch.linalg.vector_norm(gradient_ND.float())


def contrast(
    z_BE: Tensor,
    task_B: Tensor,
    text_id_B: Tensor,
    config: Loss,
    bank: MemoryBank | None,
    faster: Contrast | None = None,
) -> tuple[Tensor, Tensor] | None:
    """`accl.method.contrastive.anchor_losses` as configured; None, and not computed, where their weight is 0.

    Args:
        faster: computes it, as far as it can.

    Raises:
        ValueError: the parameter of ``config.negatives`` is out of range.
    """
    if config.contrastive_weight == 0:
        return None
    if faster is not None and config.negatives == "all" and config.denominator in ("negatives", "all"):
        seen = None if bank is None or not bank.enabled else Bank(bank.z_KSE, bank.text_KS, bank.written_K)
        positives = config.denominator == "all"
        return faster.anchor_losses(
            z_BE, task_B, text_id_B, temperature=config.temperature, positives=positives, bank=seen
        )
    return anchor_losses(
        z_BE,
        task_B,
        text_id_B,
        temperature=config.temperature,
        denominator=config.denominator,
        negatives=config.negatives,
        bank=None if bank is None else bank.candidates(),
    )


def classify(logits_BC: Tensor, answer_B: Tensor, config: Loss) -> tuple[Tensor, Tensor]:
    """Cross-entropy, scalar, and the uncertainty weights w_i, B."""
    logits_BC = logits_BC.float()
    return F.cross_entropy(logits_BC, answer_B), uncertainty_weights(logits_BC, config.uncertainty_weight)


def objective(
    contrasted: tuple[Tensor, Tensor] | None,
    classified: tuple[Tensor, Tensor],
    config: Loss,
    aside: Aside = NOT_ASIDE,
) -> Objective:
    """classification_weight x cross-entropy + contrastive_weight x contrastive loss.

    Args:
        contrasted: from `contrast`, made ``aside``. classified: from `classify`.
    """
    classification, weight_B = classified
    weighted = config.classification_weight * classification
    if contrasted is None:
        nothing = torch.full((), torch.nan, device=weighted.device)
        return Objective(weighted, None, (classification, nothing, nothing), weight_B)
    loss_B, counted_B = contrasted
    with aside(weight_B):
        loss = weighted_mean(loss_B, counted_B, weight_B)
        contrastive = config.contrastive_weight * loss
        terms = classification, loss, counted_B.mean(dtype=torch.float32)
    return Objective(weighted, contrastive, terms, weight_B)


@torch.no_grad()
def figures(
    result: Objective, norms: Tensor, output: ModelOutput, answer_B: Tensor, task_B: Tensor, text_id_B: Tensor
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
        (output.logits_BC.argmax(-1) == answer_B).mean(dtype=torch.float32),
        anchor_share,
        result.weight_B.mean(),
        *quantiles(result.weight_B, WEIGHT_QUANTILES),
        *alignment_and_uniformity(output.z_BE, task_B, text_id_B),
        *norms,
    )
    return torch.stack([scalar.float() for scalar in scalars])
