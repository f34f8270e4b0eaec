"""The network around a small encoder: shapes, the two heads, tasks, pooling, and the method's size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from accl.method.model import ContrastiveCurriculumModel, Head, ModelOutput, mean_pool

HEADS: tuple[Head, ...] = get_args(Head)
HIDDEN, TASKS, CHOICES, CONTRASTIVE, VOCABULARY = 8, 5, 4, 6, 40


class WordEncoder(nn.Module):
    """Each token's hidden state is its embedding, so that pooling can be computed by hand."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, hidden)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        assert input_ids.shape == attention_mask.shape
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def build(head: Head, *, task_embedding: bool = True) -> ContrastiveCurriculumModel:
    torch.manual_seed(0)
    model = ContrastiveCurriculumModel(
        WordEncoder(),
        hidden=HIDDEN,
        tasks=TASKS,
        choices=CHOICES,
        contrastive_dim=CONTRASTIVE,
        head=head,
        task_embedding=task_embedding,
    )
    return model.eval()


def inputs(model: ContrastiveCurriculumModel, questions: int, length: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(questions)
    rows = questions * model.sequences_per_question
    ids = torch.randint(1, VOCABULARY, (rows, length), generator=generator)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return ids, (torch.arange(length) < lengths).long()


def run(model: ContrastiveCurriculumModel, ids: Tensor, mask: Tensor, task: Tensor) -> ModelOutput:
    """All sequences in one chunk, in order."""
    output: ModelOutput = model([(ids, mask)], torch.arange(len(ids)), task)
    return output


def assert_same_output(actual: ModelOutput, expected: ModelOutput) -> None:
    for name in ("logits_BC", "features_BD", "z_BE"):
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name))


@pytest.mark.parametrize("task_embedding", [True, False])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("questions", [1, 3])
def test_every_question_gets_a_score_per_option_and_a_unit_embedding(
    head: Head, questions: int, task_embedding: bool
) -> None:
    model = build(head, task_embedding=task_embedding)
    ids, mask = inputs(model, questions)
    assert len(ids) == questions * (1 if head == "single_sequence" else CHOICES)
    output = run(model, ids, mask, torch.tensor([0, 2, -1])[:questions])
    assert output.logits_BC.shape == (questions, CHOICES)
    assert output.features_BD.shape == (questions, HIDDEN)
    assert output.z_BE.shape == (questions, CONTRASTIVE)
    torch.testing.assert_close(output.z_BE.norm(dim=-1), torch.ones(questions))


@settings(max_examples=24, deadline=None)
@given(order=st.permutations(range(CHOICES)))
def test_scoring_each_option_by_itself_makes_their_order_irrelevant(order: list[int]) -> None:
    model = build("per_option")
    ids, mask = inputs(model, 3)
    task = torch.tensor([1, 4, -1])

    def shuffled(rows: Tensor) -> Tensor:
        return rows.view(3, CHOICES, -1)[:, order].flatten(0, 1)

    straight, mixed = run(model, ids, mask, task), run(model, shuffled(ids), shuffled(mask), task)
    torch.testing.assert_close(mixed.logits_BC, straight.logits_BC[:, order])
    torch.testing.assert_close(mixed.features_BD, straight.features_BD)
    torch.testing.assert_close(mixed.z_BE, straight.z_BE)


@pytest.mark.parametrize("head", HEADS)
def test_questions_of_a_batch_do_not_see_each_other(head: Head) -> None:
    model = build(head)
    ids, mask = inputs(model, 3)
    task = torch.tensor([3, 0, 2])
    together = run(model, ids, mask, task)
    each = model.sequences_per_question
    for i in range(3):
        alone = run(model, ids[i * each : (i + 1) * each], mask[i * each : (i + 1) * each], task[i : i + 1])
        torch.testing.assert_close(alone.logits_BC[0], together.logits_BC[i])
        torch.testing.assert_close(alone.z_BE[0], together.z_BE[i])


@pytest.mark.parametrize("head", HEADS)
@settings(max_examples=20, deadline=None)
@given(data=st.data(), size=st.integers(1, 12))
def test_chunks_in_any_order_give_what_one_chunk_gives(head: Head, data: st.DataObject, size: int) -> None:
    model = build(head)
    ids, mask = inputs(model, 3)
    task = torch.tensor([0, 4, -1])
    order = torch.tensor(data.draw(st.permutations(range(len(ids)))))
    chunks = []
    for rows in order.split(size):
        width = int(mask[rows].sum(1).max())  # each chunk is as wide as its longest row
        chunks.append((ids[rows, :width], mask[rows, :width]))
    whole, cut = run(model, ids, mask, task), model(chunks, order.argsort(), task)
    assert_same_output(cut, whole)


# --- tasks


@pytest.mark.parametrize("head", HEADS)
def test_the_task_moves_the_scores_but_not_the_contrastive_embedding(head: Head) -> None:
    model = build(head)
    ids, mask = inputs(model, 2)
    one, other = run(model, ids, mask, torch.tensor([0, 1])), run(model, ids, mask, torch.tensor([2, 1]))
    assert not torch.allclose(one.logits_BC[0], other.logits_BC[0])
    torch.testing.assert_close(one.logits_BC[1], other.logits_BC[1])
    torch.testing.assert_close(one.z_BE, other.z_BE, rtol=0, atol=0)


@pytest.mark.parametrize("head", HEADS)
def test_without_task_embedding_the_task_changes_nothing(head: Head) -> None:
    model = build(head, task_embedding=False)
    assert model.task_embedding is None
    ids, mask = inputs(model, 2)
    one, other = run(model, ids, mask, torch.tensor([0, -1])), run(model, ids, mask, torch.tensor([4, 3]))
    torch.testing.assert_close(one.logits_BC, other.logits_BC, rtol=0, atol=0)


@pytest.mark.parametrize("head", HEADS)
def test_a_question_without_task_is_joined_with_zeros_and_they_stay_zero(head: Head) -> None:
    model = build(head).train()
    assert model.task_embedding is not None
    before = model.task_embedding.weight.detach().clone()
    assert before.shape == (TASKS + 1, HIDDEN)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        ids, mask = inputs(model, 3)
        output = run(model, ids, mask, torch.tensor([-1, 2, -1]))
        (output.logits_BC.square().sum() + output.z_BE[:, 0].sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = model.task_embedding.weight.detach()
    assert not after[TASKS].any()
    assert (after[2] - before[2]).abs().max() > 0.1

    model.eval()
    ids, mask = inputs(model, 1)
    pooled = mean_pool(model.encoder.table(ids), mask)
    by_hand = model.classifier(torch.cat([pooled, torch.zeros_like(pooled)], -1)).view(1, CHOICES)
    torch.testing.assert_close(run(model, ids, mask, torch.tensor([-1])).logits_BC, by_hand)


# --- pooling


def test_pooling_is_the_mean_over_real_tokens() -> None:
    hidden = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [99.0, 99.0]], [[5.0, 6.0], [7.0, 8.0], [9.0, 1.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    torch.testing.assert_close(mean_pool(hidden, mask), torch.tensor([[2.0, 20.0], [7.0, 5.0]]))


def test_a_row_without_tokens_pools_to_zero() -> None:
    assert mean_pool(torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.long)).tolist() == [[0, 0]]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("padding", [1, 13])
def test_padding_changes_nothing(head: Head, padding: int) -> None:
    model = build(head)
    ids, mask = inputs(model, 3)
    task = torch.tensor([0, 1, -1])
    noise = torch.randint(0, VOCABULARY, (len(ids), padding), generator=torch.Generator().manual_seed(9))
    plain = run(model, ids, mask, task)
    padded = run(model, torch.cat([ids, noise], 1), torch.cat([mask, torch.zeros_like(noise)], 1), task)
    assert_same_output(padded, plain)


# --- gradients, precision, size


@pytest.mark.parametrize("head", HEADS)
def test_both_losses_reach_the_encoder_and_only_their_own_head(head: Head) -> None:
    model = build(head)
    ids, mask = inputs(model, 2)

    def reached(use: str) -> set[str]:
        model.zero_grad(set_to_none=True)
        getattr(run(model, ids, mask, torch.tensor([0, 1])), use)[:, 0].sum().backward()
        return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}

    assert reached("logits_BC") == {"encoder", "task_embedding", "classifier"}
    assert reached("z_BE") == {"encoder", "contrastive_head"}


@pytest.mark.parametrize("head", HEADS)
def test_under_autocast_the_contrastive_embedding_is_normalised_in_full_precision(head: Head) -> None:
    model = build(head)
    ids, mask = inputs(model, 2)
    with torch.autocast("cpu", torch.bfloat16):
        output = run(model, ids, mask, torch.tensor([0, -1]))
    assert output.logits_BC.dtype == torch.bfloat16
    assert output.z_BE.dtype == torch.float32
    torch.testing.assert_close(output.z_BE.norm(dim=-1), torch.ones(2), rtol=0, atol=1e-6)


def test_the_parts_have_the_methods_sizes() -> None:
    model = ContrastiveCurriculumModel(
        WordEncoder(768), hidden=768, tasks=57, choices=4, contrastive_dim=256, head="single_sequence"
    )
    sizes = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children() if name != "encoder"
    }
    assert sizes == {
        "task_embedding": 57 * 768 + 768,  # the method's table, and the zeros of a question without task
        "contrastive_head": 768 * 256 + 256,
        "classifier": (1536 * 768 + 768) + (768 * 4 + 4),
    }
    shapes = [(layer.in_features, layer.out_features) for layer in model.classifier if isinstance(layer, nn.Linear)]
    assert shapes == [(1536, 768), (768, 4)]
    # "184 M and about 185 M": what the method adds is 1.4 M.
    assert sum(sizes.values()) == 1_424_900
    assert all(p.requires_grad for p in model.parameters())
