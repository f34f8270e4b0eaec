"""The contrastive loss against independent references, its edge cases, and the weights."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from embeddings import contrastive_loss, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import SupConLoss
from torch import Tensor

from accl.choices import LOSSES
from accl.method.contrastive import Candidates, UncertaintyWeight, uncertainty_weights

EVERY_FORM = pytest.mark.parametrize("denominator", LOSSES.names())


# --- references


@settings(max_examples=25, deadline=None)
@given(
    task=st.lists(st.integers(0, 4), min_size=2, max_size=24),
    temperature=st.sampled_from([0.07, 0.2, 0.5, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_all_in_the_denominator_is_pytorch_metric_learnings_supcon(
    task: list[int], temperature: float, seed: int
) -> None:
    z = unit(len(task), 8, seed).requires_grad_()
    task_B = torch.tensor(task)
    ours = contrastive_loss(
        z, task_B, torch.arange(len(task)), torch.ones(len(task)), temperature=temperature, denominator="all"
    )
    theirs = SupConLoss(temperature=temperature)(z, task_B)
    torch.testing.assert_close(ours.loss, theirs.to(ours.loss.dtype), rtol=1e-5, atol=1e-6)
    (ours_grad,) = torch.autograd.grad(ours.loss, z)
    (theirs_grad,) = torch.autograd.grad(theirs, z)
    # The other one normalises again, which is why only the part along the sphere can agree.
    unit_z = z.detach()
    ours_grad = ours_grad - (ours_grad * unit_z).sum(-1, keepdim=True) * unit_z
    torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-4, atol=1e-6)


def test_decoupled_gradients_leave_the_positive_out_of_the_denominator() -> None:
    """One anchor with one positive and one negative has a slope that can be written down."""
    tau = 0.5
    z = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    task, text = torch.tensor([0, 0, 1]), torch.arange(3)
    weight = torch.tensor([1.0, 0.0, 1.0])  # only the first anchor counts: the third has no positive
    loss = contrastive_loss(z, task, text, weight, temperature=tau, denominator="negatives").loss
    loss.backward()
    assert loss.item() == pytest.approx((0.0 - 0.6) / tau)
    assert z.grad is not None
    torch.testing.assert_close(z.grad[1], -z.detach()[0] / tau)  # never saturates
    torch.testing.assert_close(z.grad[2], z.detach()[0] / tau)


# --- what counts


@EVERY_FORM
@pytest.mark.parametrize(
    ("task", "text"),
    [
        ([4, 4, 4, 4], [0, 1, 2, 3]),  # one task: no negative
        ([0, 1, 2, 3], [0, 1, 2, 3]),  # all distinct: no positive
        ([-1, -1, -1], [0, 1, 2]),  # no task at all
        ([0, 0], [0, 1]),  # a batch of two has a positive or a negative, never both
        ([0, 1], [0, 1]),
        ([0, 0, 1], [5, 5, 6]),  # the only positive is the same question
        ([0, 0, 1], [5, 6, 5]),  # for the first anchor, the only negative is the same question
    ],
    ids=["one task", "distinct", "no task", "two alike", "two apart", "duplicate positive", "duplicate negative"],
)
def test_anchors_without_positive_or_negative_do_not_count(denominator: str, task: list[int], text: list[int]) -> None:
    z = unit(len(task), 6, 3, torch.float32).requires_grad_()
    result = contrastive_loss(
        z,
        torch.tensor(task),
        torch.tensor(text),
        torch.ones(len(task)),
        temperature=0.07,
        denominator=denominator,
    )
    expected = [False] * len(task)
    if text == [5, 6, 5]:
        expected[1] = True
    assert result.counted_B.tolist() == expected
    if not any(expected):
        assert result.loss.item() == 0
    result.loss.backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    if not any(expected):
        assert not z.grad.any()


@EVERY_FORM
def test_anchors_that_do_not_count_are_left_out_of_the_normaliser(denominator: str) -> None:
    z = unit(7, 6, 4)
    task = torch.tensor([0, 0, 1, 1, 2, -1, 3])
    weight = torch.tensor([0.9, 0.4, 0.7, 0.2, 1.0, 1.0, 1.0], dtype=torch.float64)

    def loss(weight_B: Tensor) -> float:
        return contrastive_loss(
            z, task, torch.arange(7), weight_B, temperature=0.07, denominator=denominator
        ).loss.item()

    # The weights of the last three, which have no positive or no task, change nothing.
    assert loss(weight) == loss(torch.cat([weight[:4], torch.zeros(3, dtype=torch.float64)]))
    # A mean and not a sum: all weights twice as large give the same.
    assert loss(weight) == pytest.approx(loss(weight / 2), rel=1e-12)


@EVERY_FORM
@pytest.mark.parametrize("copy_task", [0, 2], ids=["same task", "other task"])
def test_an_equal_text_is_neither_positive_nor_negative(denominator: str, copy_task: int) -> None:
    """Adding a copy of anchor 0 must not change what anchor 0 is contrasted with, wherever the copy is filed."""
    z, task, text = unit(4, 6, 5), torch.tensor([0, 0, 1, 1]), torch.arange(4)
    copy = torch.cat([z, z[:1]])
    only_first = torch.tensor([1.0, 0, 0, 0, 0])
    alone = contrastive_loss(z, task, text, only_first[:4], temperature=0.07, denominator=denominator)
    joined = contrastive_loss(
        copy,
        torch.cat([task, torch.tensor([copy_task])]),
        torch.cat([text, text[:1]]),
        only_first,
        temperature=0.07,
        denominator=denominator,
    )
    assert joined.loss.item() == pytest.approx(alone.loss.item(), rel=1e-12)


@EVERY_FORM
def test_the_bank_lends_positives_to_a_batch_that_has_none_and_gets_no_gradient(denominator: str) -> None:
    z = unit(3, 6, 7, torch.float32).requires_grad_()
    task, text = torch.tensor([0, 1, 2]), torch.arange(3)
    held = unit(2, 6, 8, torch.float32).requires_grad_()
    bank = Candidates(held, torch.tensor([0, 1]), torch.tensor([10, 11]), torch.tensor([True, True]))
    result = contrastive_loss(z, task, text, torch.ones(3), temperature=0.07, denominator=denominator, bank=bank)
    assert result.counted_B.tolist() == [True, True, False]
    result.loss.backward()
    assert held.grad is None
    assert z.grad is not None
    assert z.grad[2].any()  # as a negative of the others


@EVERY_FORM
def test_the_order_of_the_batch_does_not_matter(denominator: str) -> None:
    z, task, text = unit(10, 6, 10), torch.tensor([0, 0, 1, 1, 2, 2, 3, -1, 0, 1]), torch.arange(10) % 8
    weight = torch.rand(10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    straight = contrastive_loss(z, task, text, weight, temperature=0.07, denominator=denominator)
    mixed = contrastive_loss(
        z[order], task[order], text[order], weight[order], temperature=0.07, denominator=denominator
    )
    assert mixed.loss.item() == pytest.approx(straight.loss.item(), rel=1e-12)
    assert mixed.counted_B.tolist() == straight.counted_B[order].tolist()


# --- numbers


@EVERY_FORM
def test_half_precision_embeddings_are_contrasted_in_full_precision(denominator: str) -> None:
    z = unit(8, 16, 11, torch.bfloat16).requires_grad_()
    task, text, weight = torch.arange(8) // 2, torch.arange(8), torch.rand(8)

    def loss(z_BD: Tensor) -> Tensor:
        return contrastive_loss(z_BD, task, text, weight, temperature=0.07, denominator=denominator).loss

    with torch.autocast("cpu", torch.bfloat16):
        low = loss(z)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, loss(z.detach().double()).float(), rtol=1e-5, atol=1e-5)
    low.backward()
    assert z.grad is not None
    assert z.grad.dtype == torch.bfloat16
    assert torch.isfinite(z.grad).all()


@EVERY_FORM
def test_a_small_temperature_keeps_the_exact_value(denominator: str) -> None:
    """At tau = 1e-3, exp(s) overflows by hundreds of orders; the loss is still the closest negative's distance."""
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    result = contrastive_loss(
        z,
        torch.tensor([0, 0, 1]),
        torch.arange(3),
        torch.tensor([1.0, 0.0, 0.0]),
        temperature=1e-3,
        denominator=denominator,
    )
    assert result.loss.item() == pytest.approx(800, rel=1e-6)


# --- weights


def test_entropy_is_1_when_undecided_and_0_when_certain() -> None:
    logits = torch.tensor([[0.0, 0, 0, 0], [500.0, 0, 0, 0], [7.0, 7.0, -500, -500]])
    torch.testing.assert_close(uncertainty_weights(logits, "entropy"), torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(uncertainty_weights(logits), uncertainty_weights(logits, "entropy"))


def test_margin_is_1_less_the_lead_of_the_first_over_the_second() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.0, 1.0, 0.0]]).clamp(min=1e-30).log()
    torch.testing.assert_close(uncertainty_weights(logits, "margin"), torch.tensor([0.8, 1.0, 0.0]))


def test_none_weights_every_question_the_same() -> None:
    assert (
        uncertainty_weights(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), "none").tolist() == [1] * 5
    )


@pytest.mark.parametrize("kind", get_args(UncertaintyWeight))
@settings(max_examples=30, deadline=None)
@given(
    logits=st.integers(2, 6).flatmap(
        lambda c: st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=c, max_size=c), min_size=1, max_size=5)
    )
)
def test_weights_lie_between_0_and_1_in_full_precision(kind: UncertaintyWeight, logits: list[list[float]]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        w_B = uncertainty_weights(torch.tensor(logits, dtype=dtype), kind)
        assert w_B.dtype == torch.float32
        assert ((w_B >= 0) & (w_B <= 1)).all()


@pytest.mark.parametrize("kind", get_args(UncertaintyWeight))
def test_no_gradient_reaches_the_classifier_through_the_weights(kind: UncertaintyWeight) -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = uncertainty_weights(logits, kind)
    assert not weight.requires_grad
    z = unit(6, 4, 12, torch.float32).requires_grad_()
    loss = contrastive_loss(z, torch.arange(6) // 2, torch.arange(6), weight, temperature=0.07).loss
    loss.backward()
    assert logits.grad is None
    assert z.grad is not None


def test_unsure_questions_pull_more_than_sure_ones() -> None:
    z = unit(4, 6, 13).requires_grad_()
    task, text = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    parts = [
        contrastive_loss(z, task, text, torch.eye(4)[i], temperature=0.07).loss.item() for i in range(4)
    ]  # one anchor each
    weight = torch.tensor([1.0, 0.25, 0.5, 0.0], dtype=torch.float64)
    together = contrastive_loss(z, task, text, weight, temperature=0.07).loss.item()
    expected = sum(w * part for w, part in zip(weight.tolist(), parts, strict=True)) / weight.sum().item()
    assert together == pytest.approx(expected, rel=1e-9)
