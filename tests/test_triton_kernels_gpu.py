"""Triton kernels against plain torch on a GPU, or in Triton's interpreter with TRITON_INTERPRET=1.

Tests import the kernels, as Triton is not installed everywhere.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() or INTERPRETED), reason="torch sees no NVIDIA GPU"),
]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
PARTS = ("out", "dqkv", "dc2p", "dp2c")


def off(found: Tensor, expected: Tensor) -> float:
    """Return |found - expected| / |expected| over all elements."""
    return float((found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30))


def seed(value: int) -> Tensor:
    return torch.tensor([value], device=DEVICE)


def uncorrelated(a: Tensor, b: Tensor) -> bool:
    """Whether the correlation is within 5 sigma of that of independent draws."""
    a, b = a.double().flatten(), b.double().flatten()
    r = ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())
    return abs(float(r)) < 5 / math.sqrt(a.numel())


def share_is_right(kept: Tensor, dropout: float) -> bool:
    """Whether the share of kept elements is within 5 sigma of 1 - dropout."""
    sigma = math.sqrt(dropout * (1 - dropout) / kept.numel())
    return abs(float(kept.double().mean()) - (1 - dropout)) < 5 * sigma


# --- attention

Inputs = tuple[Tensor, Tensor, Tensor]
Bounds = tuple[Tensor, Tensor]


def bounds(lengths: Sequence[int], tokens: int) -> Bounds:
    """Return start and end of each token's sequence, T in int32; tokens behind the last sequence are padding."""
    start = torch.arange(tokens, dtype=torch.int32)
    end = start + 1
    for first, last in itertools.pairwise(np.cumsum([0, *lengths]).tolist()):
        start[first:last], end[first:last] = first, last
    return start.to(DEVICE), end.to(DEVICE)


def plain_attention(inputs: Inputs, ends: Bounds, heads: int, kept: Tensor | None = None) -> Tensor:
    """Compute the formula of `accl.kernels.triton.attention`; dropout multiplies the weights by ``kept``, H x T x T."""
    qkv, c2p, p2c = inputs
    start, end = ends
    tokens, max_distance = len(start), c2p.shape[2] // 2
    q, k, v = qkv[:tokens].view(tokens, 3, heads, -1).permute(1, 2, 0, 3)
    at = torch.arange(tokens, device=qkv.device)
    # Both tables have a column for each offset of a partner: of keys from a query, and of queries from a key.
    place = (at[:, None] - at + max_distance).clamp(0, 2 * max_distance - 1).expand(heads, -1, -1)
    score = q @ k.mT + c2p.gather(2, place.mT) + p2c.gather(2, place.mT).mT
    together = (at >= start[:, None]) & (at < end[:, None])
    weight = (score / math.sqrt(3 * q.shape[2])).masked_fill(~together, -torch.inf).softmax(-1)
    if kept is not None:
        weight = weight * kept
    return (weight @ v).transpose(0, 1).reshape(tokens, -1)


def attention_inputs(
    heads: int, width: int, max_distance: int, tokens: int, dtype: torch.dtype = torch.float32
) -> tuple[Inputs, Tensor]:
    """Return random inputs, with rows of a position table behind those of tokens, and a gradient of the output."""
    torch.manual_seed(0)
    table = heads, tokens, 2 * max_distance
    shapes = ((tokens + 6, 3 * heads * width), table, table, (tokens, heads * width))
    qkv, c2p, p2c, dout = (torch.randn(shape, device=DEVICE).to(dtype) for shape in shapes)
    return (qkv, c2p, p2c), dout


def aligned(table: Tensor) -> Tensor:
    """Return the elements of a ... x T x 2R table by offset in the layout of the kernels, NaN elsewhere."""
    from accl.kernels.triton.tables import table_columns

    columns = table_columns(table.shape[-1] // 2)
    out = torch.full((*table.shape[:-1], columns), torch.nan, dtype=table.dtype, device=DEVICE)
    return out.scatter_(-1, _columns_of_offsets(table.shape[-2], table.shape[-1]).expand(table.shape), table)


def by_offset(table: Tensor) -> Tensor:
    """Undo `aligned`."""
    from accl.kernels.triton.tables import max_distance_of

    columns = _columns_of_offsets(table.shape[-2], 2 * max_distance_of(table.shape[-1]))
    return table.gather(-1, columns.expand(*table.shape[:-1], -1))


def _columns_of_offsets(tokens: int, offsets: int) -> Tensor:
    at = torch.arange(tokens, device=DEVICE)[:, None]
    return torch.arange(offsets, device=DEVICE) + at % 8 + 16


def beside_valid(ends: Bounds, columns: int) -> Tensor:
    """Return which of the T x Y elements lie within the aligned bounds, but out of the valid range."""
    from accl.kernels.triton.tables import max_distance_of

    start, end = ends[0][:, None], ends[1][:, None]
    at = torch.arange(len(start), device=DEVICE)[:, None]
    partner = torch.arange(columns, device=DEVICE) - 16 - max_distance_of(columns) + at // 8 * 8
    within = (partner >= start // 16 * 16) & (partner < (end + 15) // 16 * 16)
    return within & ((partner < start) | (partner >= end))


def found_by_kernels(
    inputs: Inputs, ends: Bounds, heads: int, dout: Tensor, dropout: float = 0.0, offset: int = 5
) -> dict[str, Tensor]:
    """Return the kernels' output, and gradients of the tokens' rows of qkv, of c2p and of p2c."""
    from accl.kernels.triton.attention import PackedSequences, attend, attend_backward

    sequences, qkv = PackedSequences(*ends, seed(7)), inputs[0]
    tables = aligned(torch.stack(inputs[1:]))
    attended = attend(qkv, tables, sequences, heads, offset, dropout)
    dqkv, drel = torch.full_like(qkv, torch.nan), torch.full_like(tables, torch.nan)
    attend_backward(dout, qkv, attended, dqkv, drel, sequences, heads, dropout)
    assert (drel[..., beside_valid(ends, drel.shape[-1])] == 0).all()
    # What is never written is never read, and 0 by the formula.
    return dict(zip(PARTS, (attended.out, dqkv[: len(dout)], *by_offset(drel).nan_to_num()), strict=True))


def expected_of(
    inputs: Inputs, ends: Bounds, heads: int, dout: Tensor, kept: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the same by the formula, in float64."""
    qkv, c2p, p2c = (part.double().requires_grad_() for part in inputs)
    out = plain_attention((qkv, c2p, p2c), ends, heads, kept)
    dqkv, dc2p, dp2c = torch.autograd.grad(out, (qkv, c2p, p2c), dout.double())
    return dict(zip(PARTS, (out.detach(), dqkv[: len(out)], dc2p, dp2c), strict=True))


@pytest.mark.parametrize(
    ("heads", "width", "max_distance", "lengths", "tokens"),
    [
        (2, 16, 256, [37, 1, 129, 64], 256),
        (3, 64, 256, [256, 255, 16, 5, 90, 1], 640),
        (2, 32, 512, [512, 300, 257, 17], 1152),
        (1, 128, 512, [3, 490], 512),
    ],
)
def test_attention_and_all_its_gradients_are_those_of_the_formula(
    heads: int, width: int, max_distance: int, lengths: list[int], tokens: int
) -> None:
    ends, (inputs, dout) = bounds(lengths, tokens), attention_inputs(heads, width, max_distance, tokens)
    found, expected = found_by_kernels(inputs, ends, heads, dout), expected_of(inputs, ends, heads, dout)
    for name, value in expected.items():
        assert off(found[name], value) < 5e-6, name


def test_attention_in_bf16_is_off_by_its_rounding_alone() -> None:
    heads, width, tokens = 2, 64, 512
    ends = bounds([256, 130, 50, 1, 9], tokens)
    inputs, dout = attention_inputs(heads, width, 256, tokens, torch.bfloat16)
    found, expected = found_by_kernels(inputs, ends, heads, dout), expected_of(inputs, ends, heads, dout)
    for name, value in expected.items():
        assert off(found[name], value) < (1e-2 if name == "out" else 2e-2), name


def test_attention_drops_the_same_weights_forward_and_backward() -> None:
    heads, width, tokens, dropout = 2, 64, 256, 0.3
    ends, (inputs, dout) = bounds([64, 40, 61, 1, 33, 50], tokens), attention_inputs(heads, width, 256, tokens)
    # Each token's value is the unit vector of its position, so that the output is the weights themselves.
    unit = F.one_hot((torch.arange(tokens, device=DEVICE) - ends[0]).long(), width).float()
    showing = inputs[0].clone()
    showing[:tokens].view(tokens, 3, heads, width)[:, 2] = unit[:, None]

    def weights(dropout: float, offset: int = 5) -> Tensor:
        """Return the attention weights, T x H x 64."""
        out = found_by_kernels((showing, *inputs[1:]), ends, heads, dout, dropout, offset)["out"]
        return out.view(tokens, heads, width)

    whole, seen, elsewhere = weights(0.0), weights(dropout), weights(dropout, offset=6)
    real = whole > 0
    kept = seen > 0
    assert share_is_right(kept[real], dropout)
    assert uncorrelated(kept[real], (elsewhere > 0)[real])
    torch.testing.assert_close(seen, whole * kept / (1 - dropout), rtol=1e-4, atol=1e-7)

    factor = torch.zeros(heads, tokens, tokens, dtype=torch.float64, device=DEVICE)
    column = (ends[0][:, None] + torch.arange(width, device=DEVICE)).clamp(max=tokens - 1).long()
    factor.scatter_add_(2, column.expand(heads, -1, -1), kept.transpose(0, 1).double() / (1 - dropout))
    found = found_by_kernels(inputs, ends, heads, dout, dropout)
    for name, value in expected_of(inputs, ends, heads, dout, factor).items():
        assert off(found[name], value) < 5e-6, name


# --- dropout


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_masks_have_their_share_and_differ_by_seed_and_offset(dropout: float) -> None:
    from accl.kernels.triton.dropout import dropout_offset
    from accl.kernels.triton.pointwise import apply_dropout

    n = 1 << 18
    ones = torch.ones(n, device=DEVICE)

    def kept(of_seed: int, offset: int) -> Tensor:
        out = torch.empty_like(ones)
        apply_dropout(ones, out, seed(of_seed), offset, dropout)
        torch.testing.assert_close(out[out > 0], torch.full_like(out[out > 0], 1 / (1 - dropout)))
        # Scaling keeps the mean.
        assert abs(float(out.mean()) - 1) < 5 * math.sqrt(dropout / (1 - dropout) / n)
        return out > 0

    masks = [kept(s, dropout_offset(p)) for s, p in ((42, 0), (43, 0), (42, 1), (42_000_168, 3))]
    for mask in masks:
        assert share_is_right(mask, dropout)
        for shift in (1, 2, 128):
            assert uncorrelated(mask[:-shift], mask[shift:])
    for a, b in itertools.combinations(masks, 2):
        assert uncorrelated(a, b)
    assert torch.equal(masks[0], kept(42, dropout_offset(0)))


def test_dropping_adds_the_same_gradient_and_changes_types() -> None:
    from accl.kernels.triton.pointwise import apply_dropout

    values = torch.randn(3, 1000, device=DEVICE)
    out = torch.empty(3, 1000, device=DEVICE, dtype=torch.bfloat16)
    apply_dropout(values, out, seed(3), 9, 0.25)
    kept = out != 0
    torch.testing.assert_close(out, (values * kept / 0.75).bfloat16())
    total = torch.randn_like(values)
    before = total.clone()
    apply_dropout(values.bfloat16(), total, seed(3), 9, 0.25, add=True)
    torch.testing.assert_close(total, before + values.bfloat16().float() * kept / 0.75)
    untouched = torch.empty_like(values)
    apply_dropout(values, untouched, seed(3), 9, 0.0)
    assert torch.equal(untouched, values)


# --- between the matrix products


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(("tokens", "width"), [(128, 128), (131, 768), (7, 64), (1131, 64)])
def test_add_norm_and_its_gradients_are_those_of_torch_under_one_mask(tokens: int, width: int, dropout: float) -> None:
    from accl.kernels.triton.pointwise import add_norm, add_norm_backward

    torch.manual_seed(0)
    dense, residual, dout = (torch.randn(tokens, width, device=DEVICE) for _ in range(3))
    gain, bias = (torch.randn(width, device=DEVICE) for _ in range(2))
    out = torch.empty_like(dense)
    norms = add_norm(dense, residual, gain, bias, 1e-7, seed(1), 11, dropout, out)
    sums = torch.ones(3, width, device=DEVICE)  # which the gradients are added to
    ddense, dresidual = add_norm_backward(dout, dense, residual, gain, *norms, seed(1), 11, dropout, sums)
    sums -= 1

    kept = ddense != 0  # the mask of the backward pass, which must be that of the forward pass
    assert share_is_right(kept, dropout) if dropout else kept.all()
    leaves = [part.double().requires_grad_() for part in (dense, residual, gain, bias)]
    total = leaves[0] * kept / (1 - dropout) + leaves[1]
    expected = F.layer_norm(total, (width,), leaves[2], leaves[3], 1e-7)
    gradients = torch.autograd.grad(expected, leaves, dout.double())
    found = {"out": out, "dense": ddense, "residual": dresidual, "gain": sums[0], "bias": sums[1]}
    for (name, value), wanted in zip(found.items(), (expected.detach(), *gradients), strict=True):
        assert off(value, wanted) < 2e-6, name
    assert off(sums[2], gradients[0].sum(0)) < 1e-5


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.bfloat16, 5e-3)])
def test_gelus_gradient_is_torchs(dtype: torch.dtype, limit: float) -> None:
    from accl.kernels.triton.pointwise import gelu_backward

    torch.manual_seed(0)
    inputs, dout = (torch.randn(67, 192, device=DEVICE).to(dtype) for _ in range(2))
    leaf = inputs.double().requires_grad_()
    (expected,) = torch.autograd.grad(F.gelu(leaf), leaf, dout.double())
    dbias = torch.ones(192, device=DEVICE)
    din = gelu_backward(dout, inputs, dbias)
    assert off(din, expected) < limit
    assert off(dbias - 1, expected.sum(0)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_over_rows_are_torchs(dtype: torch.dtype) -> None:
    from accl.kernels.triton.adamw import square_sums
    from accl.kernels.triton.pointwise import add_column_sums

    torch.manual_seed(0)
    for rows in (1, 255, 300, 70_000):
        wide, out = torch.randn(rows, 96, device=DEVICE).to(dtype), torch.ones(96, device=DEVICE)
        add_column_sums(wide, out)
        assert off(out - 1, wide.double().sum(0)) < 2e-6
    values = torch.randn(20_000, device=DEVICE)
    assert off(square_sums(values).sum(), values.double().square().sum()) < 1e-6


@pytest.mark.parametrize(
    ("dtype", "limit", "max_distance", "lengths", "tokens"),
    [
        (torch.float32, 1e-6, 256, [129, 64, 37, 1], 256),
        (torch.float32, 1e-6, 512, [512, 300, 257, 17], 1152),
        (torch.bfloat16, 1e-2, 256, [256, 255, 90, 16, 5, 1], 640),
    ],
)
def test_relative_scores_and_their_gradients_are_those_of_the_formula_in_the_valid_range(
    dtype: torch.dtype, limit: float, max_distance: int, lengths: list[int], tokens: int
) -> None:
    from transformers import DebertaV2Config

    from accl.kernels.triton.attention import PackedSequences
    from accl.kernels.triton.positions import relative_positions
    from accl.kernels.triton.rel_scores import grad_to_positions, grad_to_tokens, rel_scores

    torch.manual_seed(0)
    heads, width = 2, 32
    config = DebertaV2Config(position_buckets=32, max_relative_positions=512)
    positions = relative_positions(config, max_distance, DEVICE)
    rows = len(positions.first)
    qkv = torch.randn(tokens + rows, 3 * heads * width, device=DEVICE).to(dtype)
    ends = bounds(lengths, tokens)
    sequences = PackedSequences(*ends, seed(0))
    found = by_offset(rel_scores(qkv, sequences, positions, heads))

    leaf = qkv.double().requires_grad_()
    parts = leaf.view(tokens + rows, 3, heads, width).permute(1, 2, 0, 3)
    offset = torch.arange(-max_distance, max_distance, device=DEVICE)
    # A partner at an offset has its opposite as distance from a query; the first offset is no pair's.
    place = torch.stack([(max_distance - offset) % (2 * max_distance), max_distance + offset])
    query_rows, key_rows = (parts[:, :, tokens:][:, :, positions.row[index].long()] for index in place)
    products = torch.stack([parts[0][:, :tokens] @ query_rows[1].mT, parts[1][:, :tokens] @ key_rows[0].mT])
    partner = torch.arange(tokens, device=DEVICE)[:, None] + offset
    valid = ((partner >= ends[0][:, None]) & (partner < ends[1][:, None]))[None, None].expand_as(products)
    assert int(valid.sum()) == 2 * heads * (sum(n * n for n in lengths) + tokens - sum(lengths))
    assert off(found[valid], products.detach()[valid]) < limit

    # Outside of the aligned bounds values are undefined, and must not be read.
    gradient = torch.randn(products.shape, device=DEVICE).to(dtype)
    (expected,) = torch.autograd.grad(products, leaf, gradient.double() * valid)
    drel = aligned(torch.where(valid, gradient, torch.nan))
    drel[..., beside_valid(ends, drel.shape[-1])] = 0
    before = torch.randn(qkv.shape, device=DEVICE).to(dtype)
    dqkv = before.clone()
    grad_to_positions(drel, qkv, sequences, positions, dqkv)
    assert torch.equal(dqkv[:tokens], before[:tokens])
    assert off(dqkv[tokens:], expected[tokens:]) < limit
    assert (dqkv[tokens:, 2 * heads * width :] == 0).all()
    grad_to_tokens(drel, qkv, sequences, positions, dqkv)
    assert off(dqkv[:tokens], before[:tokens] + expected[:tokens]) < limit


@pytest.mark.parametrize("added", [None, "positions", "positions and type"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_embeddings_and_their_gradients_are_those_of_torch_under_one_mask(dropout: float, added: str | None) -> None:
    from accl.kernels.triton.attention import PackedSequences
    from accl.kernels.triton.embedding import AddedRows, WordEmbedding, embed, embed_backward

    torch.manual_seed(0)
    rows, tokens, width, first = 50, 131, 192, 2
    place = torch.full((200,), -1, device=DEVICE)
    place[torch.randperm(200, device=DEVICE)[:rows]] = torch.arange(rows, device=DEVICE)
    ids = torch.nonzero(place >= 0)[:, 0][torch.randint(rows, (tokens,), device=DEVICE)].int()
    weight, (gain, bias) = torch.randn(rows, width, device=DEVICE), torch.randn(2, width, device=DEVICE)
    table, shared = torch.randn(70, width, device=DEVICE), torch.randn(width, device=DEVICE)
    words = WordEmbedding(place, weight, torch.zeros_like(weight))
    type_rows = (shared, torch.zeros_like(shared)) if added == "positions and type" else (None, None)
    add = AddedRows(table, torch.zeros_like(table), first, *type_rows)
    sequences = PackedSequences(*bounds([65, 40, 20], tokens), seed(1))
    out, dout = torch.empty(tokens, width, device=DEVICE), torch.randn(tokens, width, device=DEVICE)
    saved = embed(ids, words, add if added else None, gain, bias, 1e-7, sequences, 11, dropout, out)
    dnorm = torch.zeros_like(gain), torch.zeros_like(bias)
    embed_backward(dout, saved, words, add if added else None, gain, sequences, 11, dropout, dnorm)

    kept = out != 0
    assert share_is_right(kept, dropout) if dropout else kept.all()
    leaves = [part.double().requires_grad_() for part in (weight, gain, bias, table, shared)]
    total = leaves[0][place[ids.long()]]
    if added:
        total = total + leaves[3][torch.arange(tokens, device=DEVICE) - sequences.start_T + first]
    if add.shared is not None:
        total = total + leaves[4]
    expected = F.layer_norm(total, (width,), leaves[1], leaves[2], 1e-7) * kept / (1 - dropout)
    gradients = torch.autograd.grad(expected, leaves, dout.double(), allow_unused=True, materialize_grads=True)
    found = (out, words.gradients, *dnorm, add.dpositions, add.dshared)
    for value, wanted in zip(found, (expected.detach(), *gradients), strict=True):
        assert not wanted.any() if value is None else off(value, wanted) < 2e-6 or not wanted.any()


def test_means_of_sequences_and_their_gradients_are_torchs() -> None:
    from accl.kernels.triton.embedding import mean_pool, mean_pool_backward

    torch.manual_seed(0)
    lengths, segments, width, tokens = [100, 33, 7, 1], 2, 192, 256
    ends = np.cumsum([0, *lengths])
    cu_seqlens = torch.tensor(np.sort([*ends, *(ends[:-1] + 1)]), device=DEVICE)  # each in two segments
    inverse_perm = torch.tensor([2, 0, 3, 1], device=DEVICE)
    hidden = torch.randn(tokens, width, device=DEVICE, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([hidden[ends[s] : ends[s + 1]].mean(0) for s in inverse_perm.tolist()])
    single = hidden.detach().float()
    assert off(mean_pool(single, cu_seqlens, segments, inverse_perm), expected.detach()) < 1e-6
    dout = torch.randn(4, width, device=DEVICE)
    (wanted,) = torch.autograd.grad(expected, hidden, dout.double())
    found = torch.zeros_like(single)
    mean_pool_backward(dout, cu_seqlens, segments, inverse_perm, 128, found)
    assert off(found, wanted) < 1e-6


@pytest.mark.parametrize(("segments", "row"), [(6, 6), (24, 6), (60, 12)])
def test_a_stream_is_packed_from_its_segments(segments: int, row: int) -> None:
    from accl.kernels.triton.pointwise import pack_tokens

    rng = np.random.default_rng(segments)
    tokens = rng.integers(3, 1000, 500).astype(np.int32)
    length = rng.integers(0, 9, segments)
    length[::row] = 1  # no sequence is empty
    source = np.array([rng.integers(0, 500 - n) for n in length])
    cu_seqlens = np.cumsum([0, *length])
    total = int(cu_seqlens[-1])
    size = -(-total // 128) * 128 + 128
    ids, start, end = (torch.full((size,), -5, dtype=torch.int32, device=DEVICE) for _ in range(3))
    source_X, cu_seqlens_X, tokens_X = (torch.from_numpy(part).to(DEVICE) for part in (source, cu_seqlens, tokens))
    pack_tokens(source_X, cu_seqlens_X, tokens_X, row, 999, (ids, start, end))

    pieces = [tokens[at : at + n] for at, n in zip(source, length, strict=True)]
    edges = cu_seqlens[::row]
    owner = np.searchsorted(edges, np.arange(total), side="right") - 1
    padding = np.arange(total, size)
    assert ids.tolist() == [*np.concatenate(pieces), *[999] * len(padding)]
    assert start.tolist() == [*edges[owner], *padding]
    assert end.tolist() == [*edges[owner + 1], *(padding + 1)]


# --- AdamW


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_adamw_over_flat_parameters_is_torchs(max_norm: float) -> None:
    from accl.kernels.triton.flat import FlatAdamW, FlatParameters

    torch.manual_seed(0)
    shapes = {"first": (3, 5), "inner": (40, 64), "vector": (77,), "last": (9, 130)}
    ours = {name: nn.Parameter(torch.randn(shape, device=DEVICE)) for name, shape in shapes.items()}
    theirs = {name: nn.Parameter(value.detach().clone()) for name, value in ours.items()}
    flat = FlatParameters([[parameter] for parameter in ours.values()])
    rates = torch.zeros(3, dtype=torch.float64, device=DEVICE)
    optimizer = FlatAdamW(flat, decayed=2, updated=4, weight_decay=0.1, max_norm=max_norm, rates=rates)
    groups = [
        {"params": [theirs["first"], theirs["inner"]], "weight_decay": 0.1},
        {"params": [theirs["vector"], theirs["last"]], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1.0)
    clipped = 0
    for step in range(1, 21):
        rate = 0.01 * step / 20
        for name, parameter in ours.items():
            theirs[name].grad = torch.randn_like(parameter) * 10.0 ** (step % 4 - 3)
            assert parameter.grad is not None
            parameter.grad.copy_(theirs[name].grad)  # type: ignore[arg-type]
        rates.copy_(torch.tensor(optimizer.params.rates_of(step, rate), dtype=torch.float64))
        norm = optimizer.step().clone()
        expected = nn.utils.clip_grad_norm_(theirs.values(), max_norm)
        clipped += bool(expected > max_norm)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
        torch.testing.assert_close(norm, expected)
    assert clipped == (15 if max_norm == 0.5 else 0)
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter.data, theirs[name].data, rtol=1e-5, atol=1e-6)
        for key, moments in (("exp_avg", optimizer.exp_avg), ("exp_avg_sq", optimizer.exp_avg_sq)):
            wanted = reference.state[theirs[name]][key]
            torch.testing.assert_close(flat.view(moments, parameter), wanted, rtol=1e-5, atol=1e-7)


def test_words_that_are_updated_when_they_are_read_are_those_that_are_updated_at_every_step() -> None:
    from accl.kernels.triton.adamw import AdamWParams, adamw
    from accl.kernels.triton.deferred import PERIOD, DeferredRows
    from accl.kernels.triton.embedding import WordEmbedding

    torch.manual_seed(0)
    rows, width, max_norm = 50, 24, 3.0
    used = torch.randperm(70, device=DEVICE)[:rows]
    place = torch.full((70,), -1, device=DEVICE)
    place[used] = torch.arange(rows, device=DEVICE)
    rates, norm = torch.zeros(3, dtype=torch.float64, device=DEVICE), torch.zeros((), device=DEVICE)
    params = AdamWParams(rates, norm, max_norm, 0.9, 0.999, 1e-8)
    start = torch.randn(rows, width, device=DEVICE)
    words = WordEmbedding(place, start.clone(), torch.zeros_like(start))
    ours = [words.values, torch.zeros_like(start), torch.zeros_like(start)]
    theirs = [start, torch.zeros_like(start), torch.zeros_like(start)]
    deferred = DeferredRows(words, ours[1], ours[2], params)
    clipped = 0
    for step in range(1, 2 * PERIOD + 6):
        # A few words are read in most steps; others have pauses of more than PERIOD steps.
        ids = used[torch.randint(rows if step % 40 == 39 else 5, (9,), device=DEVICE)].int()
        rates.copy_(torch.tensor(params.rates_of(step, 0.01 * step / PERIOD), dtype=torch.float64))
        deferred.catch_up(ids)
        read = place[ids.long()]
        assert torch.equal(words.values[read], theirs[0][read]) or not INTERPRETED  # compilers may fuse otherwise
        torch.testing.assert_close(words.values[read], theirs[0][read], rtol=1e-6, atol=1e-7)
        gradient = torch.zeros_like(start).index_add_(0, read, torch.randn(9, width, device=DEVICE) / step)
        words.gradients[read] = gradient[read]
        torch.testing.assert_close(deferred.square_sums().sum().sqrt(), gradient.norm())
        norm.copy_(gradient.norm())
        clipped += bool(norm > max_norm)
        deferred.record()
        adamw(*(part.view(-1) for part in (theirs[0], gradient, *theirs[1:])), 0.0, params)
        if step == PERIOD + 3:
            deferred.flush()  # as before an evaluation
    assert 0 < clipped < 20
    assert not torch.equal(words.values, theirs[0])
    deferred.flush()
    assert not words.gradients.any()
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
