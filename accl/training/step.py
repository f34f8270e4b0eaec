"""One training step of the method in plain torch: the reference that every backend is held against.

Shapes: B questions of a batch, N encoder sequences (B, or B x C with one score per option), D hidden, E contrastive
dimensions, C choices, K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accl.method.contrastive import anchor_losses, uncertainty_weights, weighted_mean
from accl.method.model import ModelOutput
from accl.method.representation import alignment_and_uniformity, quantiles
from accl.training.context import TrainingContext
from accl.training.device import DeviceBatch, Labels, seed_step, to_device
from accl.training.optim import learning_rate, set_learning_rate

WEIGHT_QUANTILES = (0.1, 0.5, 0.9)


def train_step(context: TrainingContext, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
    """Take optimizer step 1, 2, ...; return its `step_metrics`, on the device and not waited for."""
    config, device = context.config, context.placement.device
    # P tasks without replacement by the curriculum's p_t = (1 - eps) softmax(z_t / T) + eps / K, with z_t the
    # standardised confusion of task t (other policies: other p_t), and Q questions of each.
    draw = context.sampler.draw(step, context.curriculum.weights)
    batch = to_device(context.assembler.batch(draw.questions, draw.option_order), device)
    seed_step(config.train.seed, step, device)
    context.enable_bank(step)
    # lr_s: linear warm-up, then cosine to 0
    set_learning_rate(optimizer, learning_rate(config.optim, step, context.total_steps))
    return learn(context, optimizer, batch)


def learn(context: TrainingContext, optimizer: torch.optim.Optimizer, batch: DeviceBatch) -> dict[str, Tensor]:
    """Learn from a batch: the part of a step that runs on the device, from token ids to metrics."""
    model, labels = context.model, batch.labels
    with context.placement.autocasting():
        pooled_ND = model.pooled(batch.chunks, batch.inverse_perm_N)  # h = mean of the encoder's last hidden states
    losses = compute_losses(context, pooled_ND, labels)  # L = 0.7 L_cls + 0.3 L_con
    update_trackers(context, losses.output, labels)  # C[i, j]
    losses.total.backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), context.config.optim.max_grad_norm)  # g min(1, c / ||g||)
    optimizer.step()  # AdamW
    optimizer.zero_grad(set_to_none=True)
    return step_metrics(losses, labels, grad_norm)


@dataclass(frozen=True)
class LossOutput:
    """Losses of a batch, and what they were computed from.

    Attributes:
        total: what is minimised, scalar. classification: cross-entropy. contrastive: None where its weight is 0.
        weight_B: uncertainty weights w_i. counted_B: anchors that have a positive and a negative.
        to_classifier_ND, to_contrast_ND: the pooled features at which the two losses part; both keep their gradient.
    """

    total: Tensor
    classification: Tensor
    contrastive: Tensor | None
    weight_B: Tensor
    counted_B: Tensor | None
    output: ModelOutput
    to_classifier_ND: Tensor
    to_contrast_ND: Tensor


def compute_losses(context: TrainingContext, pooled_ND: Tensor, labels: Labels) -> LossOutput:
    """Compute L = classification_weight * L_cls + contrastive_weight * L_con from the encoder's pooled features."""
    model, config = context.model, context.config.loss
    to_classifier_ND, to_contrast_ND = pooled_ND.view_as(pooled_ND), pooled_ND.view_as(pooled_ND)
    to_classifier_ND.retain_grad()
    to_contrast_ND.retain_grad()
    with context.placement.autocasting():
        logits_BC = model.classify(to_classifier_ND, labels.task_B)  # W2 GELU(W1 [h; e_t])
        features_BD, z_BE = model.represent(to_contrast_ND)  # z = W h / ||W h||
    # L_cls = mean_i -log p_i[answer_i]
    classification = F.cross_entropy(logits_BC.float(), labels.answer_B)
    # w_i = H(p_i) / log C, detached
    weight_B = uncertainty_weights(logits_BC.float(), config.uncertainty_weight)
    total = config.classification_weight * classification
    contrastive = counted_B = None
    if config.contrastive_weight > 0:
        # l_i = -mean_p (s_ip - log sum_n exp s_in) with s = z.z / tau; L_con = sum_i w_i l_i / sum_i w_i
        loss_B, counted_B = anchor_losses(
            z_BE,
            labels.task_B,
            labels.text_id_B,
            temperature=config.temperature,
            denominator=config.denominator,
            negatives=config.negatives,
            bank=None if context.bank is None else context.bank.candidates(),
        )
        contrastive = weighted_mean(loss_B, counted_B, weight_B)
        total = total + config.contrastive_weight * contrastive
    output = ModelOutput(pooled_ND, logits_BC, features_BD, z_BE)
    return LossOutput(total, classification, contrastive, weight_B, counted_B, output, to_classifier_ND, to_contrast_ND)


def update_trackers(context: TrainingContext, output: ModelOutput, labels: Labels) -> None:
    """Add the batch to what the curriculum observes, and to the memory bank.

    C[i, j] is the decayed mean of max(0, cos(h_a, h_b)) over questions a of task i and b of task j; the curriculum
    makes p_t of it every ``curriculum.update_every`` steps.
    """
    context.curriculum.observe(output, labels.answer_B, labels.task_B)
    if context.bank is not None:
        context.bank.write(output.z_BE, labels.task_B, labels.text_id_B)


@torch.no_grad()
def step_metrics(losses: LossOutput, labels: Labels, grad_norm: Tensor) -> dict[str, Tensor]:
    """Return the metrics of a step by name, after the backward pass: fp32 scalars on the device; NaN where undefined.

    ``gradient_classification`` and ``gradient_contrastive`` are the norms of each loss's gradient at the pooled
    features, the last place that both share: which loss pulls harder on the encoder (as in GradNorm, Chen et al.,
    2018, arXiv 1711.02257). ``grad_norm`` is that of all parameters before clipping.
    """
    output, weight_B = losses.output, losses.weight_B
    alignment, uniformity = alignment_and_uniformity(output.z_BE, labels.task_B, labels.text_id_B)
    metrics = {
        "loss": losses.total,
        "classification": losses.classification,
        "accuracy": (output.logits_BC.argmax(-1) == labels.answer_B).mean(dtype=torch.float32),
        "uncertainty_weight": weight_B.mean(),
        "alignment": alignment,
        "uniformity": uniformity,
        "gradient_classification": _norm(losses.to_classifier_ND.grad),
        "grad_norm": grad_norm,
    }
    for share, value in zip(WEIGHT_QUANTILES, quantiles(weight_B, WEIGHT_QUANTILES), strict=True):
        metrics[f"uncertainty_weight_p{round(100 * share)}"] = value
    if losses.contrastive is not None and losses.counted_B is not None:
        metrics["contrastive"] = losses.contrastive
        metrics["anchor_share"] = losses.counted_B.mean(dtype=torch.float32)
        metrics["gradient_contrastive"] = _norm(losses.to_contrast_ND.grad)
    return {name: value.detach().float() for name, value in metrics.items()}


def _norm(gradient_ND: Tensor | None) -> Tensor:
    assert gradient_ND is not None, "metrics come after the backward pass"
    norm: Tensor = torch.linalg.vector_norm(gradient_ND.float())
    return norm
