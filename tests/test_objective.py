"""The loss of a batch and the figures logged of it, by brute force and on the model itself."""

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
from accl.method.model import ContrastiveCurriculumModel, Head, ModelOutput
from accl.method.representation import alignment_and_uniformity, quantiles
from accl.training.objective import FIGURES, Objective, classify, contrast, objective
from accl.training.objective import figures as all_figures

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


def named(
    output: ModelOutput, result: Objective, shared_ND: Tensor | None = None, task_B: Tensor = TASK
) -> dict[str, float]:
    """The figures by name; those of the gradients only with the features that they are taken at."""
    norms = torch.full((2,), torch.nan) if shared_ND is None else result.backward(shared_ND, shared_ND)
    values = all_figures(result, norms, output, ANSWER, task_B, TEXT)
    assert not values.requires_grad
    return dict(zip(FIGURES, values.tolist(), strict=True))


def outputs(head: Head = "per_option", seed: int = 0) -> tuple[ContrastiveCurriculumModel, Tensor, ModelOutput]:
    """A model's heads on pooled features, without an encoder below."""
    torch.manual_seed(seed)
    model = ContrastiveCurriculumModel(
        nn.Identity(), hidden=8, tasks=3, choices=4, contrastive_dim=5, head=head, dropout=0.0
    )
    pooled_ND = torch.randn(len(TASK) * model.sequences_per_question, 8, requires_grad=True)
    return model, pooled_ND, model.heads(pooled_ND, TASK)


def measure(output: ModelOutput, config: Loss = CONFIG, task_B: Tensor = TASK) -> Objective:
    contrasted = contrast(output.z_BE, task_B, TEXT, config, None)
    return objective(contrasted, classify(output.logits_BC, ANSWER, config), config)


# --- the loss


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    _, _, output = outputs()
    result = measure(output)
    classification = F.cross_entropy(output.logits_BC, ANSWER)
    contrastive = contrastive_loss(output.z_BE, TASK, TEXT, uncertainty_weights(output.logits_BC), temperature=0.07)
    torch.testing.assert_close(result.loss, 0.7 * classification + 0.3 * contrastive.loss)
    figures = named(output, result)
    assert figures["loss"] == result.loss.item()
    assert figures["classification"] == pytest.approx(classification.item())
    assert figures["contrastive"] == pytest.approx(contrastive.loss.item())
    assert figures["anchor_share"] == pytest.approx(contrastive.counted_B.float().mean().item())
    assert figures["accuracy"] == pytest.approx((output.logits_BC.argmax(-1) == ANSWER).float().mean().item())


@pytest.mark.parametrize("negatives", ["hardest(1)", "semi_hard(0.5)", "debiased(0.2)"])
@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_the_configured_negatives_reach_the_loss(negatives: str, denominator: Any) -> None:
    _, _, output = outputs()
    figures = named(output, measure(output, changed(negatives=negatives, denominator=denominator)))
    expected = contrastive_loss(
        output.z_BE,
        TASK,
        TEXT,
        uncertainty_weights(output.logits_BC),
        temperature=0.07,
        denominator=denominator,
        negatives=negatives,
    )
    assert figures["contrastive"] == pytest.approx(expected.loss.item())
    assert figures["anchor_share"] == pytest.approx(expected.counted_B.float().mean().item())
    assert figures["contrastive"] != named(output, measure(output, changed(denominator=denominator)))["contrastive"]


def test_without_contrastive_weight_its_figures_are_missing_and_the_representation_is_still_measured() -> None:
    _, pooled_ND, output = outputs()
    figures = named(output, measure(output, changed(contrastive_weight=0.0)), pooled_ND)
    missing = {name for name, value in figures.items() if math.isnan(value)}
    assert missing == {"contrastive", "anchor_share", "gradient_contrastive"}
    assert figures["loss"] == pytest.approx(0.7 * figures["classification"])


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


def test_the_figures_hold_mean_and_quantiles_of_the_uncertainty_weights() -> None:
    _, _, output = outputs()
    figures, weight_B = named(output, measure(output)), uncertainty_weights(output.logits_BC)
    assert figures["uncertainty_weight"] == pytest.approx(weight_B.mean().item())
    for name, share in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9)):
        assert figures[f"uncertainty_weight_{name}"] == pytest.approx(weight_B.quantile(share).item(), rel=1e-6)
    assert figures["uncertainty_weight_p10"] < figures["uncertainty_weight_p90"]


def test_equal_weights_are_1_in_every_quantile() -> None:
    _, _, output = outputs()
    figures = named(output, measure(output, changed(uncertainty_weight="none")))
    assert {value for name, value in figures.items() if name.startswith("uncertainty_weight")} == {1.0}


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
    task_B, text_id_B = torch.tensor(rows).T
    alignment, uniformity = alignment_and_uniformity(z.float() if half else z, task_B, text_id_B)
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
    _, pooled_ND, output = outputs(head)
    figures = named(output, measure(output, config), pooled_ND)
    for name, only in (
        ("classification", changed(classification_weight=weights[0], contrastive_weight=0.0)),
        ("contrastive", changed(classification_weight=0.0, contrastive_weight=weights[1])),
    ):
        _, alone_ND, again = outputs(head)
        measure(again, only).loss.backward()
        assert alone_ND.grad is not None
        assert figures[f"gradient_{name}"] == pytest.approx(alone_ND.grad.norm().item(), rel=1e-5)
        assert figures[f"gradient_{name}"] > 0


@pytest.mark.parametrize("head", ["single_sequence", "per_option"])
@pytest.mark.parametrize("contrastive_weight", [0.0, 0.3])
def test_term_by_term_gradients_are_those_of_the_whole_loss(head: Head, contrastive_weight: float) -> None:
    config = changed(contrastive_weight=contrastive_weight)
    gradients = []
    for whole in (True, False):
        model, pooled_ND, output = outputs(head)
        result = measure(output, config)
        if whole:
            result.loss.backward()
        else:
            result.backward(pooled_ND, pooled_ND)
        gradients.append([pooled_ND.grad, *(parameter.grad for parameter in model.parameters())])
    assert gradients[0][0] is not None
    for a, b in zip(*gradients, strict=True):
        if a is None:
            assert b is None
        else:
            torch.testing.assert_close(a, b)


def test_a_batch_without_anchors_has_no_contrastive_gradient() -> None:
    _, pooled_ND, output = outputs()
    alone = torch.full_like(TASK, -1)
    figures = named(output, measure(output, task_B=alone), pooled_ND, alone)
    assert figures["contrastive"] == figures["anchor_share"] == figures["gradient_contrastive"] == 0
    assert figures["gradient_classification"] > 0
    assert math.isnan(figures["alignment"])
    assert math.isnan(figures["uniformity"])


def test_gradients_can_be_measured_where_the_forward_pass_is_split() -> None:
    """The loop pools and applies the heads in two steps; that is the same forward pass."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 8)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=self.table(input_ids) * attention_mask.unsqueeze(-1))

    torch.manual_seed(1)
    model = ContrastiveCurriculumModel(
        Encoder(), hidden=8, tasks=3, choices=4, contrastive_dim=5, head="single_sequence", dropout=0.0
    )
    chunks = [(torch.randint(20, (n, 7)), torch.ones(n, 7, dtype=torch.long)) for n in (2, 4)]
    inverse_perm_N = torch.tensor([3, 1, 5, 0, 2, 4])
    whole = model(chunks, inverse_perm_N, TASK)
    pooled_ND = torch.cat([model.pool(ids, mask) for ids, mask in chunks])[inverse_perm_N]
    split = model.heads(pooled_ND, TASK)
    for name in ("logits_BC", "features_BD", "z_BE"):
        assert torch.equal(getattr(whole, name), getattr(split, name))
    shared_ND = pooled_ND.detach().requires_grad_()
    again = model.heads(shared_ND, TASK)
    assert named(again, measure(again), shared_ND)["gradient_contrastive"] > 0
