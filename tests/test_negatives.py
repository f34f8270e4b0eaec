"""The forms of negatives against references in plain loops, and where they have little or nothing to choose from."""

from __future__ import annotations

import math

import pytest
import torch
from embeddings import contrastive_loss, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accl.choices import LOSSES, NEGATIVES
from accl.method.contrastive import Candidates
from accl.method.pairs import Pairs, log_sum

FORMS = [
    "all",
    "hardest(1)",
    "hardest(3)",
    "hardest(1000)",
    "semi_hard(0.3)",
    "semi_hard(4)",  # wider than cosines can differ
    "debiased(0)",
    "debiased(0.1)",
    "debiased(0.6)",
]
EVERY_FORM = pytest.mark.parametrize("negatives", FORMS)
EVERY_DENOMINATOR = pytest.mark.parametrize("denominator", LOSSES.names())
Bank = tuple[list[list[float]], list[int], list[int], list[bool]]


def reference(
    z: list[list[float]],
    task: list[int],
    text: list[int],
    weight: list[float],
    tau: float,
    denominator: str,
    form: str,
    bank: Bank = ([], [], [], []),
) -> tuple[float, list[bool]]:
    """The docstrings' formulas one anchor at a time, in sums of exponentials as the papers write them."""
    candidates = list(zip(z, task, text, [t >= 0 for t in task], strict=True)) + list(zip(*bank, strict=True))
    choice, parameter = NEGATIVES.parse(form)
    negatives, total, norm, counted = choice.name, 0.0, 0.0, []
    for i in range(len(z)):
        positive, negative = [], []
        for j, (other, other_task, other_text, usable) in enumerate(candidates):
            if j == i or not usable or task[i] < 0 or other_text == text[i]:
                continue
            cosine = sum(a * b for a, b in zip(z[i], other, strict=True))
            (positive if other_task == task[i] else negative).append(cosine)
        if positive and negatives == "hardest":
            negative = sorted(negative, reverse=True)[: int(parameter)]
        if positive and negatives == "semi_hard":
            mean = sum(positive) / len(positive)
            negative = [c for c in negative if mean - parameter < c < mean]
        counted.append(bool(positive and negative))
        if not counted[-1]:
            continue
        below = sum(math.exp(c / tau) for c in negative)
        if negatives == "debiased":
            n, p = len(negative), sum(math.exp(c / tau) for c in positive) / len(positive)
            below = n * max((below / n - parameter * p) / (1 - parameter), math.exp(-1 / tau))
        if denominator == "all":
            below += sum(math.exp(c / tau) for c in positive)
        total += weight[i] * -sum(c / tau - math.log(below) for c in positive) / len(positive)
        norm += weight[i]
    return (total / norm if norm else 0.0), counted


@EVERY_FORM
@EVERY_DENOMINATOR
@settings(max_examples=25, deadline=None)
@given(data=st.data(), with_bank=st.booleans(), tau=st.sampled_from([0.07, 0.5]))
def test_the_loss_is_the_written_one_on_batch_and_bank(
    denominator: str, negatives: str, data: st.DataObject, with_bank: bool, tau: float
) -> None:
    count = data.draw(st.integers(2, 12))
    task = data.draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count))
    text = data.draw(st.lists(st.integers(0, 15), min_size=count, max_size=count))
    weight = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=count, max_size=count))
    seed = data.draw(st.integers(0, 2**16))
    z = unit(count, 4, seed)
    bank, plain = None, ([], [], [], [])
    if with_bank:
        slots = data.draw(st.integers(1, 12))
        bank_task = data.draw(st.lists(st.integers(0, 2), min_size=slots, max_size=slots))
        bank_text = data.draw(st.lists(st.integers(0, 15), min_size=slots, max_size=slots))
        filled = data.draw(st.lists(st.booleans(), min_size=slots, max_size=slots))
        bank_z = unit(slots, 4, seed + 1)
        bank = Candidates(bank_z, torch.tensor(bank_task), torch.tensor(bank_text), torch.tensor(filled))
        plain = (bank_z.tolist(), bank_task, bank_text, filled)
    result = contrastive_loss(
        z,
        torch.tensor(task),
        torch.tensor(text),
        torch.tensor(weight, dtype=torch.float64),
        temperature=tau,
        denominator=denominator,
        negatives=negatives,
        bank=bank,
    )
    loss, counted = reference(z.tolist(), task, text, weight, tau, denominator, negatives, plain)
    assert result.counted_B.tolist() == counted
    # The reference of the debiased form subtracts sums that may nearly cancel.
    tolerance = 1e-7 if negatives.startswith("debiased") else 1e-9
    assert result.loss.item() == pytest.approx(loss, rel=tolerance, abs=tolerance)


@EVERY_FORM
@EVERY_DENOMINATOR
@pytest.mark.parametrize("with_bank", [False, True])
def test_gradients_are_those_of_the_formula(denominator: str, negatives: str, with_bank: bool) -> None:
    z = unit(9, 4, 1).requires_grad_()
    task = torch.tensor([0, 0, 1, 1, 2, -1, 0, 3, 2])
    text = torch.tensor([0, 1, 2, 3, 4, 5, 0, 7, 1])
    weight = torch.linspace(0, 1, 9, dtype=torch.float64)
    bank = None
    if with_bank:
        bank = Candidates(
            unit(6, 4, 2),
            torch.tensor([0, 1, 2, 3, 3, 0]),
            torch.tensor([0, 9, 8, 7, 6, 11]),
            torch.tensor([True, True, True, True, True, False]),
        )

    def loss(z_BD: Tensor) -> Tensor:
        return contrastive_loss(
            z_BD,
            task,
            text,
            weight,
            temperature=0.2,
            denominator=denominator,
            negatives=negatives,
            bank=bank,
        ).loss

    assert loss(z).item() != 0
    assert torch.autograd.gradcheck(loss, (z,))


@EVERY_FORM
@EVERY_DENOMINATOR
@settings(max_examples=40, deadline=None)
@given(
    task=st.lists(st.integers(-1, 3), min_size=1, max_size=10),
    tau=st.sampled_from([1e-4, 1e-2, 0.07, 1.0, 1e4]),
    weight=st.sampled_from([0.0, 1e-38, 1e-12, 1.0]),
    alike=st.booleans(),
    seed=st.integers(0, 100),
)
def test_loss_and_gradient_are_always_finite(
    denominator: str, negatives: str, task: list[int], tau: float, weight: float, alike: bool, seed: int
) -> None:
    z = unit(len(task), 4, seed, torch.float32)
    z = (z[:1].repeat(len(task), 1) if alike else z).requires_grad_()
    result = contrastive_loss(
        z,
        torch.tensor(task),
        torch.arange(len(task)),
        torch.full((len(task),), weight),
        temperature=tau,
        denominator=denominator,
        negatives=negatives,
    )
    result.loss.backward()
    assert z.grad is not None
    assert torch.isfinite(result.loss)
    assert torch.isfinite(z.grad).all()
    if weight == 0:
        assert result.loss.item() == 0
        assert not z.grad.any()


@EVERY_DENOMINATOR
@pytest.mark.parametrize("negatives", ["hardest(9)", "hardest(1e6)", "debiased(0)"])
def test_forms_that_leave_nothing_out_are_all_negatives(denominator: str, negatives: str) -> None:
    z, task, text = unit(9, 6, 3), torch.arange(9) // 3, torch.arange(9)

    def loss(negatives: str) -> float:
        return contrastive_loss(
            z,
            task,
            text,
            torch.ones(9),
            temperature=0.07,
            denominator=denominator,
            negatives=negatives,
        ).loss.item()

    assert loss(negatives) == pytest.approx(loss("all"), rel=1e-12)


@EVERY_FORM
def test_without_negatives_nothing_counts(negatives: str) -> None:
    z = unit(4, 6, 3, torch.float32).requires_grad_()
    result = contrastive_loss(
        z,
        torch.zeros(4, dtype=torch.long),
        torch.arange(4),
        torch.ones(4),
        temperature=0.07,
        negatives=negatives,
    )
    result.loss.backward()
    assert result.loss.item() == 0
    assert not result.counted_B.any()
    assert z.grad is not None
    assert not z.grad.any()


# --- sums of exponentials


@settings(max_examples=40, deadline=None)
@given(tau=st.sampled_from([1e-3, 0.07, 1.0]), seed=st.integers(0, 999))
def test_the_sum_over_a_mask_is_torchs_logsumexp_over_what_it_has(tau: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sim = ((2 * torch.rand(5, 9, generator=generator, dtype=torch.float64) - 1) / tau).requires_grad_()
    mask = torch.rand(5, 9, generator=generator) < 0.5
    mask[:, 0] = True
    expected = sim.masked_fill(~mask, -math.inf).logsumexp(-1)
    torch.testing.assert_close(log_sum(sim, mask), expected)
    gradients = [torch.autograd.grad(value.sum(), sim)[0] for value in (log_sum(sim, mask), expected)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][~mask].any()
    assert torch.isfinite(log_sum(sim, torch.zeros_like(mask))).all()


# --- each form by itself


def select(negatives: str, sim: Tensor, positive: Tensor, negative: Tensor, tau: float = 1.0) -> tuple[Tensor, Tensor]:
    """The mask and the log of the negative sum that a form gives."""
    module, parameter = NEGATIVES.load(negatives)
    found: tuple[Tensor, Tensor] = module.select(Pairs(sim, positive, negative, tau), parameter)
    return found


# --- hardest


def test_hardest_takes_exactly_k_even_among_equals_and_never_what_is_no_negative() -> None:
    sim = torch.tensor([[9.0, 1.0, 1.0, 1.0, 0.5], [9.0, -3.0, -1.0, -2.0, 8.0], [9.0, 9.0, 9.0, 9.0, 9.0]])
    negative = torch.tensor(
        [[False, True, True, True, True], [False, True, True, True, False], [False, False, False, False, True]]
    )

    def hardest(k: int) -> Tensor:
        return select(f"hardest({k})", sim, torch.zeros_like(negative), negative)[0]

    for k in range(1, 7):
        chosen = hardest(k)
        assert chosen.sum(-1).tolist() == [min(k, 4), min(k, 3), 1]
        assert not (chosen & ~negative).any()
    assert not hardest(3)[0, 4]
    assert hardest(2)[1].tolist() == [False, False, True, True, False]


def test_only_the_hardest_negatives_are_pushed() -> None:
    z = unit(6, 8, 4).requires_grad_()
    task = torch.tensor([0, 0, 1, 1, 2, 2])
    only_first = torch.tensor([1.0, 0, 0, 0, 0, 0])
    loss = contrastive_loss(z, task, torch.arange(6), only_first, temperature=0.07, negatives="hardest(1)").loss
    loss.backward()
    assert z.grad is not None
    closest = 2 + int((z[0] @ z[2:].T).argmax())
    assert [i for i in range(2, 6) if z.grad[i].any()] == [closest]


# --- semi-hard


def test_semi_hard_bounds_are_strict_and_relative_to_the_mean_positive() -> None:
    tau = 0.5
    cosines = torch.tensor([[0.75, 0.5, 0.499, 0.4, 0.2501, 0.25, -1.0, 0.3, 0.75, 0.25]], dtype=torch.float64)
    negative = torch.tensor([[True] * 7 + [False] * 3])
    positive = torch.tensor([[False] * 8 + [True] * 2])  # at 0.5 on average
    chosen, _ = select("semi_hard(0.25)", cosines / tau, positive, negative, tau)
    assert chosen.tolist() == [[False, False, True, True, True] + [False] * 5]


def test_an_anchor_whose_margin_holds_no_negative_does_not_count() -> None:
    """Anchors 0 and 1 are closest to a negative; 2 and 3 have theirs far outside the margin or within."""
    z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    task, text = torch.tensor([0, 0, 1, 2]), torch.arange(4)

    def counted(margin: float) -> list[bool]:
        return contrastive_loss(
            z, task, text, torch.ones(4), temperature=0.07, negatives=f"semi_hard({margin})"
        ).counted_B.tolist()

    # Anchor 0: positive at 0.8, negatives at 1 (too hard) and 0. Anchor 1: positive at 0.8, negatives at 0.8 and 0.6.
    assert counted(0.1) == [False, False, False, False]
    assert counted(0.25) == [False, True, False, False]
    assert counted(0.9) == [True, True, False, False]


def test_equal_embeddings_leave_no_semi_hard_negative() -> None:
    z = torch.tensor([[1.0, 0.0]]).repeat(6, 1).requires_grad_()
    result = contrastive_loss(
        z,
        torch.arange(6) // 2,
        torch.arange(6),
        torch.ones(6),
        temperature=0.07,
        negatives="semi_hard(0.2)",
    )
    assert result.loss.item() == 0
    assert not result.counted_B.any()


# --- debiased


def test_the_debiased_sum_never_falls_below_the_smallest_that_true_negatives_could_have() -> None:
    """Positives much closer than negatives leave nothing after the correction: N e^(-1/tau), without gradient."""
    tau = 0.07
    sim = (torch.tensor([[0.99, -0.2, -0.5, -0.4]], dtype=torch.float32) / tau).requires_grad_()
    positive = torch.tensor([[True, False, False, False]])
    _, value = select("debiased(0.1)", sim, positive, ~positive, tau)
    assert value.item() == pytest.approx(math.log(3) - 1 / tau, rel=1e-6)
    value.sum().backward()
    assert sim.grad is not None
    assert not sim.grad.any()


@pytest.mark.parametrize("prior", [0.01, 0.1, 0.5, 0.9])
def test_the_debiased_sum_keeps_full_precision_in_fp32_where_sums_of_exponentials_overflow(prior: float) -> None:
    tau = 0.005  # e^(1/tau) is 1e87
    cosines = torch.tensor([[0.7, 0.71, 0.9, 0.3, 0.8]], dtype=torch.float64)
    positive = torch.tensor([[True, True, False, False, False]])
    _, got = select(f"debiased({prior})", (cosines / tau).float(), positive, ~positive, tau)
    exact = [math.exp(c / tau) for c in cosines[0].tolist()]
    left = (sum(exact[2:]) / 3 - prior * sum(exact[:2]) / 2) / (1 - prior)
    assert got.item() == pytest.approx(math.log(3) + math.log(left), rel=1e-6)


def test_equal_embeddings_have_a_debiased_sum_as_without_correction() -> None:
    """(x - prior x) / (1 - prior) is x."""
    sim = torch.full((2, 5), 1 / 0.07)
    positive = torch.tensor([[True, True, False, False, False]] * 2)
    _, value = select("debiased(0.3)", sim, positive, ~positive, 0.07)
    torch.testing.assert_close(value, torch.full((2,), math.log(3) + 1 / 0.07))


# --- parameters


@pytest.mark.parametrize(
    ("negatives", "hint"),
    [
        ("hard", "one of all, debiased(prior), hardest(k), semi_hard(margin); did you mean 'hardest'?"),
        ("hardest(0)", "hardest(k) takes a whole number of at least 1, not '0'"),
        ("hardest(2.5)", "whole number of at least 1"),
        ("hardest(nan)", "whole number of at least 1"),
        ("hardest(inf)", "whole number of at least 1"),
        ("semi_hard(0)", "semi_hard(margin) takes a number above 0"),
        ("semi_hard(nan)", "number above 0"),
        ("debiased(1)", "debiased(prior) takes a number of at least 0 and below 1"),
        ("debiased(-0.1)", "of at least 0 and below 1"),
        ("debiased()", "of at least 0 and below 1"),
        ("all(3)", "all takes no number"),
    ],
)
def test_a_number_out_of_range_says_what_is_in_range(negatives: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r"takes|should be one of") as raised:
        contrastive_loss(
            unit(4, 3, 0), torch.arange(4) // 2, torch.arange(4), torch.ones(4), temperature=0.07, negatives=negatives
        )
    assert hint in str(raised.value)


def test_a_form_without_its_number_takes_the_default() -> None:
    z, task, text = unit(40, 6, 3), torch.arange(40) // 2, torch.arange(40)
    losses = [
        contrastive_loss(z, task, text, torch.ones(40), temperature=0.07, negatives=form).loss.item()
        for form in ("hardest", "hardest(16)", "hardest(15)")
    ]
    assert losses[0] == losses[1] != losses[2]
