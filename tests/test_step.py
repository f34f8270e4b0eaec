"""The losses and metrics of a step, by brute force and on the model itself."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from embeddings import contrastive_loss
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from accl.config import Loss
from accl.method.contrastive import uncertainty_weights
from accl.method.model import ContrastiveCurriculumModel, Head
from accl.method.representation import alignment_and_uniformity, quantiles
from accl.training.device import Labels, Placement
from accl.training.step import LossOutput, compute_losses, step_metrics

CONFIG = Loss(
    classification_weight=0.7,
    contrastive_weight=0.3,
    temperature=0.07,
    denominator="negatives",
    negatives="all",
    uncertainty_weight="entropy",
)
TASK = torch.tensor([0, 0, 1, 1, 2, -1])
TEXT = torch.tensor([0, 1, 2, 3, 0, 5])
ANSWER = torch.tensor([0, 3, 2, 1, 0, 2])


def changed(**keys: Any) -> Loss:
    return Loss(**{**CONFIG.model_dump(), **keys})


def losses_of(
    config: Loss = CONFIG, head: Head = "per_option", task_B: Tensor = TASK, seed: int = 0
) -> tuple[ContrastiveCurriculumModel, Tensor, LossOutput]:
    """Losses of a model's heads on pooled features, without an encoder below."""
    torch.manual_seed(seed)
    model = ContrastiveCurriculumModel(
        nn.Identity(), hidden=8, tasks=3, choices=4, contrastive_dim=5, head=head, dropout=0.0
    )
    pooled_ND = torch.randn(len(TASK) * model.sequences_per_question, 8, requires_grad=True)
    placement = Placement(torch.device("cpu"), None, ())
    context: Any = SimpleNamespace(model=model, config=SimpleNamespace(loss=config), placement=placement, bank=None)
    return model, pooled_ND, compute_losses(context, pooled_ND, Labels(task_B, ANSWER, TEXT))


def metrics_of(losses: LossOutput, task_B: Tensor = TASK) -> dict[str, float]:
    losses.total.backward()
    values = step_metrics(losses, Labels(task_B, ANSWER, TEXT), torch.ones(()))
    assert not any(value.requires_grad for value in values.values())
    return {name: float(value) for name, value in values.items()}


# --- the loss


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    _, _, losses = losses_of()
    output = losses.output
    classification = F.cross_entropy(output.logits_BC, ANSWER)
    contrastive = contrastive_loss(output.z_BE, TASK, TEXT, uncertainty_weights(output.logits_BC), temperature=0.07)
    torch.testing.assert_close(losses.total, 0.7 * classification + 0.3 * contrastive.loss)
    metrics = metrics_of(losses)
    assert metrics["loss"] == losses.total.item()
    assert metrics["classification"] == pytest.approx(classification.item())
    assert metrics["contrastive"] == pytest.approx(contrastive.loss.item())
    assert metrics["anchor_share"] == pytest.approx(contrastive.counted_B.float().mean().item())
    assert metrics["accuracy"] == pytest.approx((output.logits_BC.argmax(-1) == ANSWER).float().mean().item())
    assert metrics["grad_norm"] == 1


@pytest.mark.parametrize("negatives", ["hardest(1)", "semi_hard(0.5)", "debiased(0.2)"])
@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_the_configured_negatives_reach_the_loss(negatives: str, denominator: Any) -> None:
    _, _, losses = losses_of(changed(negatives=negatives, denominator=denominator))
    metrics, output = metrics_of(losses), losses.output
    expected = contrastive_loss(
        output.z_BE,
        TASK,
        TEXT,
        uncertainty_weights(output.logits_BC),
        temperature=0.07,
        denominator=denominator,
        negatives=negatives,
    )
    assert metrics["contrastive"] == pytest.approx(expected.loss.item())
    assert metrics["anchor_share"] == pytest.approx(expected.counted_B.float().mean().item())
    assert metrics["contrastive"] != metrics_of(losses_of(changed(denominator=denominator))[2])["contrastive"]


def test_without_contrastive_weight_its_metrics_are_missing_and_the_representation_is_still_measured() -> None:
    with_contrast = metrics_of(losses_of()[2])
    without = metrics_of(losses_of(changed(contrastive_weight=0.0))[2])
    assert set(with_contrast) - set(without) == {"contrastive", "anchor_share", "gradient_contrastive"}
    assert without["loss"] == pytest.approx(0.7 * without["classification"])
    assert without["uniformity"] == with_contrast["uniformity"]


# --- the weights' distribution


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4).map(tuple),
)
def test_quantiles_are_torchs(values: list[float], shares: tuple[float, ...]) -> None:
    values_B = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(
        torch.stack(quantiles(values_B, shares)),
        torch.quantile(values_B, torch.tensor(shares, dtype=torch.float64)),
        rtol=1e-9,
        atol=1e-12,
    )


def test_the_metrics_hold_mean_and_quantiles_of_the_uncertainty_weights() -> None:
    _, _, losses = losses_of()
    metrics, weight_B = metrics_of(losses), uncertainty_weights(losses.output.logits_BC)
    assert metrics["uncertainty_weight"] == pytest.approx(weight_B.mean().item())
    for name, share in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9)):
        assert metrics[f"uncertainty_weight_{name}"] == pytest.approx(weight_B.quantile(share).item(), rel=1e-6)
    assert metrics["uncertainty_weight_p10"] < metrics["uncertainty_weight_p90"]


def test_equal_weights_are_1_in_every_quantile() -> None:
    metrics = metrics_of(losses_of(changed(uncertainty_weight="none"))[2])
    assert {value for name, value in metrics.items() if name.startswith("uncertainty_weight")} == {1.0}


# --- alignment and uniformity


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 9)), min_size=1, max_size=12),
    seed=st.integers(0, 2**16),
    half=st.booleans(),
)
def test_alignment_and_uniformity_are_the_papers_over_pairs_of_the_batch(
    rows: list[tuple[int, int]], seed: int, half: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(len(rows), 5, generator=generator, dtype=torch.float64), dim=-1)
    close, spread = [], []
    for i, (task_i, text_i) in enumerate(rows):
        for j, (task_j, text_j) in enumerate(rows):
            if i == j or task_i < 0 or task_j < 0:
                continue
            distance = sum((a - b) ** 2 for a, b in zip(z[i].tolist(), z[j].tolist(), strict=True))
            spread.append(math.exp(-2 * distance))
            if task_i == task_j and text_i != text_j:
                close.append(distance)
    task_B, text_B = torch.tensor(rows).T
    alignment, uniformity = alignment_and_uniformity(z.float() if half else z, task_B, text_B)
    assert alignment.dtype == uniformity.dtype == torch.float32
    expected = sum(close) / len(close) if close else math.nan
    assert alignment.item() == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)
    expected = math.log(sum(spread) / len(spread)) if spread else math.nan
    assert uniformity.item() == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)


def test_collapsed_embeddings_are_perfectly_aligned_and_not_uniform_at_all() -> None:
    z = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    alignment, uniformity = alignment_and_uniformity(z, torch.arange(4) // 2, torch.arange(4))
    assert (alignment.item(), uniformity.item()) == (0.0, 0.0)
    alignment, uniformity = alignment_and_uniformity(torch.cat([z[:1], -z[:1]]), torch.tensor([0, 0]), torch.arange(2))
    assert (alignment.item(), uniformity.item()) == (4.0, -8.0)


# --- gradients


@pytest.mark.parametrize("head", ["single_sequence", "per_option"])
@pytest.mark.parametrize("weights", [(0.7, 0.3), (2.0, 0.05)])
def test_gradient_norms_are_those_of_each_weighted_term_alone(head: Head, weights: tuple[float, float]) -> None:
    config = changed(classification_weight=weights[0], contrastive_weight=weights[1])
    metrics = metrics_of(losses_of(config, head)[2])
    for name, only in (
        ("classification", changed(classification_weight=weights[0], contrastive_weight=0.0)),
        ("contrastive", changed(classification_weight=0.0, contrastive_weight=weights[1])),
    ):
        _, pooled_ND, alone = losses_of(only, head)
        alone.total.backward()
        assert pooled_ND.grad is not None
        assert metrics[f"gradient_{name}"] == pytest.approx(pooled_ND.grad.norm().item(), rel=1e-5)
        assert metrics[f"gradient_{name}"] > 0


def test_a_batch_without_anchors_has_no_contrastive_gradient() -> None:
    alone = torch.full_like(TASK, -1)
    metrics = metrics_of(losses_of(task_B=alone)[2], alone)
    assert metrics["contrastive"] == metrics["anchor_share"] == metrics["gradient_contrastive"] == 0
    assert metrics["gradient_classification"] > 0
    assert math.isnan(metrics["alignment"])
    assert math.isnan(metrics["uniformity"])
