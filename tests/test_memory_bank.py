"""The memory bank against a plain Python model of it."""

from __future__ import annotations

import itertools
from collections import deque

import pytest
import torch
import torch.nn.functional as F
from embeddings import contrastive_loss, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accl.choices import LOSSES
from accl.method.contrastive import MemoryBank, anchor_losses

BATCHES = st.lists(st.lists(st.integers(-1, 2), max_size=9), max_size=8)


def written(bank: MemoryBank, batches: list[list[int]]) -> tuple[list[deque[int]], list[list[int]]]:
    """Write batches of numbered questions; the model keeps, per task, the last S (oldest first) and the ring."""
    tasks, size = bank.text_KS.shape
    last: list[deque[int]] = [deque(maxlen=size) for _ in range(tasks)]
    rings = [[-1] * size for _ in range(tasks)]
    count = [0] * tasks
    number = itertools.count()
    for batch in batches:
        ids = [next(number) for _ in batch]
        for task, i in zip(batch, ids, strict=True):
            if task >= 0:
                last[task].append(i)
                rings[task][count[task] % size] = i
                count[task] += 1
        text = torch.tensor(ids, dtype=torch.long)
        bank.write(embedding(text), torch.tensor(batch, dtype=torch.long), text)
    assert bank.written_K.tolist() == count
    return last, rings


def embedding(text: Tensor) -> Tensor:
    """A vector that tells which question it belongs to."""
    return torch.stack([text.float(), text.float() ** 2], -1)


@settings(max_examples=80, deadline=None)
@given(batches=BATCHES, size=st.integers(1, 4))
def test_the_bank_holds_the_last_embeddings_of_each_task(batches: list[list[int]], size: int) -> None:
    bank = MemoryBank(tasks=3, size=size, dim=2)
    last, rings = written(bank, batches)
    assert bank.text_KS.tolist() == rings
    candidates = bank.candidates()
    filled = candidates.filled_M
    for task in range(3):
        mine = filled & (candidates.task_M == task)
        assert sorted(candidates.text_id_M[mine].tolist()) == list(last[task])
    torch.testing.assert_close(candidates.z_MD[filled], embedding(candidates.text_id_M[filled]), rtol=0, atol=0)
    shapes = {name: tuple(value.shape) for name, value in vars(candidates).items()}
    assert shapes == {"z_MD": (3 * size, 2), "task_M": (3 * size,), "text_id_M": (3 * size,), "filled_M": (3 * size,)}


@settings(max_examples=30, deadline=None)
@given(before=BATCHES, after=BATCHES)
def test_a_restored_bank_goes_on_where_it_was(before: list[list[int]], after: list[list[int]]) -> None:
    bank, other = MemoryBank(3, 3, 2), MemoryBank(3, 3, 2)
    written(bank, before)
    other.load_state_dict(bank.state_dict())
    for batch in after:
        text = torch.arange(1000, 1000 + len(batch))
        for each in (bank, other):
            each.write(embedding(text), torch.tensor(batch, dtype=torch.long), text)
    for name, value in bank.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_order_of_writing_is_the_order_of_the_batch() -> None:
    bank = MemoryBank(tasks=2, size=3, dim=2)
    text = torch.arange(6)
    bank.write(embedding(text), torch.tensor([1, 1, 0, 1, 1, 1]), text)
    assert bank.text_KS.tolist() == [[2, -1, -1], [4, 5, 3]]  # 0 and 1 of the second task were overwritten
    assert bank.written_K.tolist() == [1, 5]


def test_a_loss_keeps_the_candidates_it_was_made_with_when_the_bank_is_written_to() -> None:
    gradients = []
    for written in (False, True):
        bank = MemoryBank(tasks=2, size=2, dim=2)
        text, task = torch.arange(4), torch.tensor([0, 0, 1, 1])
        bank.write(embedding(text), task, text)
        z = embedding(text + 10).requires_grad_()
        loss = contrastive_loss(z, task, text + 10, torch.ones(4), temperature=0.5, bank=bank.candidates()).loss
        if written:
            bank.write(embedding(text + 20), task, text + 20)
        loss.backward()
        gradients.append(z.grad)
    assert gradients[0] is not None
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_what_is_written_carries_no_gradient_and_is_stored_in_full_precision() -> None:
    bank = MemoryBank(tasks=2, size=2, dim=2)
    z = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    bank.write(z, torch.tensor([0, 1]), torch.tensor([7, 8]))
    assert bank.z_KSE.dtype == torch.float32
    assert not bank.candidates().z_MD.requires_grad
    torch.testing.assert_close(bank.z_KSE[:, 0], z.detach().float(), rtol=0, atol=0)


def test_a_batch_without_tasks_leaves_the_bank_as_it_was() -> None:
    bank = MemoryBank(tasks=2, size=2, dim=2)
    text = torch.arange(3)
    bank.write(embedding(text), torch.full((3,), -1), text)
    assert bank.written_K.tolist() == [0, 0]
    assert not bank.candidates().filled_M.any()
    assert not bank.z_KSE.any()


def test_no_slot_is_written_twice_by_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With equal indices a GPU may let any of the writes win."""
    written_to: list[list[int]] = []
    index_copy = Tensor.index_copy_

    def watched(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
        written_to.append(index.tolist())
        return index_copy(self, dim, index, source)

    monkeypatch.setattr(Tensor, "index_copy_", watched)
    bank = MemoryBank(tasks=2, size=2, dim=2)
    text = torch.arange(7)
    bank.write(embedding(text), torch.tensor([0, 0, 0, 1, 0, 0, -1]), text)
    assert written_to
    for slots in written_to:
        kept = [slot for slot in slots if slot < 4]  # the rest go to the spare row
        assert len(kept) == len(set(kept)) == 3


# --- as candidates of the loss


@pytest.mark.parametrize("denominator", LOSSES.names())
def test_an_anchors_old_copy_in_the_bank_is_no_positive(denominator: str) -> None:
    z, task, text = unit(3, 6, 3, torch.float32), torch.tensor([0, 1, 2]), torch.arange(3)
    bank = MemoryBank(tasks=3, size=2, dim=6)
    bank.write(z, task, text)
    result = contrastive_loss(
        z, task, text, torch.ones(3), temperature=0.07, denominator=denominator, bank=bank.candidates()
    )
    assert not result.counted_B.any()


@pytest.mark.parametrize("denominator", LOSSES.names())
def test_an_unfilled_slot_is_no_candidate(denominator: str) -> None:
    z, task, text = unit(4, 6, 4, torch.float32), torch.tensor([0, 0, 1, 1]), torch.arange(4)
    empty = MemoryBank(tasks=2, size=3, dim=6).candidates()
    without = contrastive_loss(z, task, text, torch.ones(4), temperature=0.07, denominator=denominator)
    with_it = contrastive_loss(z, task, text, torch.ones(4), temperature=0.07, denominator=denominator, bank=empty)
    assert with_it.loss.item() == pytest.approx(without.loss.item(), rel=1e-6)  # fp32


@pytest.mark.parametrize("negatives", ["all", "hardest(2)", "semi_hard(0.5)", "debiased(0.1)"])
def test_writing_after_the_losses_are_made_leaves_their_gradients_alone(negatives: str) -> None:
    task_B, text_id_B = torch.tensor([0, 0, 1, 1, 2, 2]), torch.arange(6)
    start = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))

    def gradient(write: bool) -> Tensor:
        bank = MemoryBank(3, 4, 5)
        bank.write(F.normalize(start[0], dim=-1), task_B, text_id_B + 100)
        z_BD = F.normalize(start[1], dim=-1).requires_grad_()
        losses_B, _ = anchor_losses(
            z_BD, task_B, text_id_B, temperature=0.1, negatives=negatives, bank=bank.candidates()
        )
        if write:
            bank.write(-start[0], task_B, text_id_B + 200)
        (gradient_BD,) = torch.autograd.grad(losses_B.sum(), z_BD)
        return gradient_BD

    assert gradient(False).any()
    assert torch.equal(gradient(True), gradient(False))
