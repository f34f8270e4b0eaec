"""The contrastive loss in one kernel, against the method's own and in float64."""

from __future__ import annotations

import math

import pytest
import torch
from embeddings import unit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accl.data.hub import cache_folder
from accl.kernels.cpu.contrast import Bank, Contrast
from accl.kernels.cpu.native import load
from accl.method.contrastive import MemoryBank, anchor_losses

TASKS = 5


def bank_of(written: int, size: int, width: int, seed: int) -> MemoryBank:
    """After a few batches, with old copies of texts that batches have."""
    bank = MemoryBank(TASKS, size, width)
    generator = torch.Generator().manual_seed(seed)
    for batch in range(written):
        task_B = torch.randint(-1, TASKS, (4,), generator=generator)
        bank.write(unit(4, width, seed + batch).float(), task_B, torch.randint(30, (4,), generator=generator))
    return bank


def ours(
    contrast: Contrast, z_BE: Tensor, task_B: Tensor, text_id_B: Tensor, tau: float, of: str, bank: MemoryBank
) -> tuple[Tensor, Tensor]:
    seen = Bank(bank.z_KSE, bank.text_KS, bank.written_K) if bank.enabled else None
    return contrast.anchor_losses(z_BE, task_B, text_id_B, temperature=tau, positives=of == "all", bank=seen)


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@settings(max_examples=40, deadline=None)
@given(
    task=st.lists(st.integers(-1, TASKS - 1), min_size=1, max_size=20),
    texts=st.integers(1, 30),
    width=st.sampled_from([3, 16, 64]),
    size=st.sampled_from([1, 3, 20]),
    written=st.integers(0, 12),
    enabled=st.booleans(),
    temperature=st.sampled_from([0.01, 0.07, 0.5]),
    seed=st.integers(0, 999),
)
def test_losses_and_gradients_are_those_of_the_method(
    denominator: str,
    task: list[int],
    texts: int,
    width: int,
    size: int,
    written: int,
    enabled: bool,
    temperature: float,
    seed: int,
) -> None:
    contrast, bank = Contrast(load(cache_folder())), bank_of(written, size, width, seed)
    bank.enable(enabled)
    z_BE, task_B = unit(len(task), width, seed + 77).float().requires_grad_(), torch.tensor(task)
    text_id_B = torch.randint(texts, (len(task),), generator=torch.Generator().manual_seed(seed))
    weight_B = torch.linspace(0.5, 2.0, len(task))

    exact_BE = z_BE.detach().double().requires_grad_()
    expected_B, counts_B = anchor_losses(
        exact_BE, task_B, text_id_B, temperature=temperature, denominator=denominator, bank=bank.candidates()
    )
    (expected,) = torch.autograd.grad((expected_B * counts_B * weight_B).sum(), exact_BE)
    loss_B, counted_B = ours(contrast, z_BE, task_B, text_id_B, temperature, denominator, bank)
    # What the bank holds may change before the way back.
    bank.z_KSE.fill_(math.nan)
    (found,) = torch.autograd.grad((loss_B * counted_B * weight_B).sum(), z_BE)

    assert torch.equal(counted_B.bool(), counts_B)
    assert loss_B.isfinite().all()
    torch.testing.assert_close((loss_B * counts_B).double(), expected_B * counts_B, rtol=1e-5, atol=2e-6 / temperature)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-5 / temperature)


def test_what_is_not_a_number_stays_one() -> None:
    z_BE = unit(4, 8, 0).float()
    z_BE[1, 2] = math.nan
    contrast, task_B = Contrast(load(cache_folder())), torch.tensor([0, 0, 1, 1])
    loss_B, _ = ours(contrast, z_BE, task_B, torch.arange(4), 0.1, "all", bank_of(0, 2, 8, 0))
    assert loss_B.isnan().all()
