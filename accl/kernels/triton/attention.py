"""Disentangled attention (He et al., 2021, arXiv 2006.03654) on packed sequences, as Triton kernels.

Query token i attends to key token j of the same sequence with the weight p_ij, the softmax over j of

    s_ij = ( q_i . k_j + q_i . pk_{i-j} + k_j . pq_{i-j} ) / sqrt(3 Dh)

where pk and pq are projected rows of the position table, one for each relative distance. Their products c2p (content
to position) and p2c (position to content) come from `accl.kernels.triton.rel_scores` as H x T x Y tables with a row for
each query and for each key, see `accl.kernels.triton.tables`. The forward kernel stores the scores for the backward
pass. With A = dropout(p) and O = A V:

    dV = A^T dO,  ds_ij = p_ij (keep_ij dO_i . v_j - delta_i) / sqrt(3 Dh),  delta_i = O_i . dO_i
    dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dc2p_ij = dp2c_ji = ds_ij

with keep_ij 0 or 1 / (1 - dropout). In the backward pass the programs that own keys compute ds_ij, once: they store it
in dc2p and dp2c, where every score has an element of its own. A product of dc2p with the keys gives dq. There are no
atomic additions, and equal inputs give equal bits.

A stored score is s_ij / log 2, as powers of 2 are what the device computes. Its lowest bit says whether dropout keeps
the weight, so that the backward pass does not compute the mask again; the forward pass takes the score with this bit,
too. Pairs of different sequences have a score of which the weight is 0.

``start_T`` and ``end_T`` bound the sequence of each token, so the work grows with the sum of squared lengths; a token
of padding is a sequence of its own. See the package for the letters of shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.dropout import keep_mask, mask_constants
from accl.kernels.triton.tables import ALIGN, aligned_bounds, between, first_column, max_distance_of


@dataclass(frozen=True)
class Tiles:
    """Launch parameters of a kernel.

    Attributes:
        block: tokens that a program owns. inner_block: tokens of the other side that an iteration of its loop reads.
        warps: of a program. stages: of the loop's software pipeline.
    """

    block: int
    inner_block: int
    warps: int
    stages: int


FORWARD = Tiles(64, 32, 4, 1)
BACKWARD_QUERIES = Tiles(64, 64, 4, 3)
BACKWARD_KEYS = Tiles(32, 64, 4, 2)
# Scores have a limit, so that fp16 holds them, and pairs of different sequences one below it.
LIMIT, APART = tl.constexpr(60000.0), tl.constexpr(-65472.0)
LOG2_E = tl.constexpr(1.4426950408889634)


@dataclass(frozen=True)
class PackedSequences:
    """Sequences that lie end to end in a stream of T tokens.

    Attributes:
        start_T, end_T: int32; first token of each token's sequence, and the one behind its last.
        seed: 1, int64; seed of all dropout masks.
    """

    start_T: Tensor
    end_T: Tensor
    seed: Tensor


@triton.jit
def head_rows(ptr, row, part, head, PARTS: tl.constexpr, H: tl.constexpr, DH: tl.constexpr):
    """Return pointers, [len(row), Dh], to the channels of one head in rows that hold PARTS x H x Dh values.

    Args:
        part: 0, 1, 2 for queries, keys and values in qkv (PARTS 3); 0 where PARTS is 1.
    """
    return ptr + row[:, None] * (PARTS * H * DH) + (part * H + head) * DH + tl.arange(0, DH)[None, :]


@triton.jit
def _with_lowest_bit(score, keep):
    """Return scores, fp32 or fp16, whose lowest bit is 1 where ``keep`` is true and else 0."""
    bits = score.to(tl.int32 if score.dtype == tl.float32 else tl.int16, bitcast=True)
    return ((bits & -2) | keep.to(bits.dtype)).to(score.dtype, bitcast=True)


@triton.jit
def _lowest_bit(score):
    """Return whether the lowest bit of scores, fp32 or fp16, is 1."""
    bits = score.to(tl.int32 if score.dtype == tl.float32 else tl.int16, bitcast=True)
    return (bits & 1) != 0


@triton.jit(do_not_specialize=["dropout_offset"])
def _forward(
    qkv_ptr, c2p_ptr, p2c_ptr, out_ptr, lse_ptr, scores_ptr, start_ptr, end_ptr, seed_ptr, dropout_offset, T, scale,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, Y: tl.constexpr, COLUMNS: tl.constexpr,
    THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """out_i = sum_j dropout(p_ij) v_j with online softmax; a program owns BLOCK queries of one head.

    qkv: T x 3 x H x Dh, out: T x H x Dh, c2p, p2c: H x T x Y, of one type. Stores lse_i = log2 sum_j exp(s_ij), H x T
    in fp32, and the scores, H x T x COLUMNS in fp32 or fp16: that of key j in the row of query i at j - first, with the
    first of the aligned bounds.
    """
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    head_offset = head * T
    c2p_ptr += head_offset.to(tl.int64) * Y
    p2c_ptr += head_offset.to(tl.int64) * Y
    scores_ptr += head_offset.to(tl.int64) * COLUMNS
    query = tl.load(head_rows(qkv_ptr, i, 0, head, 3, H, DH))
    start, end = tl.load(start_ptr + i), tl.load(end_ptr + i)
    row_max = tl.full([BLOCK], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK], tl.float32)
    out = tl.zeros([BLOCK, DH], tl.float32)
    first, last = tl.min(start, 0) // ALIGN * ALIGN, tl.max(end, 0)
    # An element of another sequence may have a column outside of its row. Row t and column p - t give an offset that
    # grows with both, so it is inside of the table all the same.
    c2p_ptrs = c2p_ptr + (i * Y + first_column(i, R))[:, None]
    for block in range(first, last, INNER):
        j = block + tl.arange(0, INNER)
        valid = (j < last)[:, None]
        key = tl.load(head_rows(qkv_ptr, j, 1, head, 3, H, DH), mask=valid, other=0.0)
        value = tl.load(head_rows(qkv_ptr, j, 2, head, 3, H, DH), mask=valid, other=0.0)
        c2p = tl.load(c2p_ptrs + j[None, :])
        p2c = tl.load(p2c_ptr + (j * Y + first_column(j, R))[:, None] + i[None, :], mask=valid, other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        score = (score + c2p.to(tl.float32) + tl.trans(p2c).to(tl.float32)) * (scale * LOG2_E)
        score = tl.where(between(j, start, end), tl.minimum(tl.maximum(score, -LIMIT), LIMIT), APART)
        # For bf16 inputs in fp16, with 2 more bits of precision; softmax is saturated long before the limit.
        stored = score.to(scores_ptr.dtype.element_ty)
        if THRESHOLD > 0:
            keep = keep_mask(seed_ptr, dropout_offset, (head_offset + i[:, None]) * T + j[None, :], THRESHOLD)
            stored = _with_lowest_bit(stored, keep)
        column = j[None, :] - (start // ALIGN * ALIGN)[:, None]
        tl.store(scores_ptr + (i * COLUMNS)[:, None] + column, stored, mask=(column >= 0) & (column < COLUMNS))
        # The backward pass sees the rounded scores, so the softmax is of these.
        score = stored.to(tl.float32)
        # Before a row's own sequence comes its weights are not 0, but multiplied by 0 as soon as it does.
        new_max = tl.maximum(row_max, tl.max(score, 1))
        weight = tl.exp2(score - new_max[:, None])
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(weight, 1)
        if THRESHOLD > 0:
            weight = tl.where(keep, weight, 0.0)
        out = out * rescale[:, None] + tl.dot(weight.to(value.dtype), value, input_precision=PRECISION)
        row_max = new_max
    out = out / (row_sum * KEEP_PROB)[:, None]
    tl.store(head_rows(out_ptr, i, 0, head, 1, H, DH), out.to(out_ptr.dtype.element_ty))
    tl.store(lse_ptr + head_offset + i, row_max + tl.log2(row_sum))


@triton.jit
def _backward_delta(out_ptr, dout_ptr, delta_ptr, T, H: tl.constexpr, DH: tl.constexpr, BLOCK: tl.constexpr):
    """delta_i = O_i . dO_i, T x H x Dh of one type to H x T in fp32; a program owns BLOCK queries of one head."""
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    out = tl.load(head_rows(out_ptr, i, 0, head, 1, H, DH)).to(tl.float32)
    dout = tl.load(head_rows(dout_ptr, i, 0, head, 1, H, DH)).to(tl.float32)
    tl.store(delta_ptr + head * T + i, tl.sum(out * dout, 1))


@triton.jit
def _backward_keys(
    qkv_ptr, scores_ptr, dout_ptr, lse_ptr, delta_ptr, dqkv_ptr, dc2p_ptr, dp2c_ptr, start_ptr, end_ptr, T, scale,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, Y: tl.constexpr, COLUMNS: tl.constexpr,
    THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """Gradients dk_j, dv_j, dp2c_ji and dc2p_ij of the module's formula; a program owns BLOCK keys of one head.

    Shapes and types as in `_forward`; dqkv, dc2p and dp2c like qkv, c2p and p2c. Tiles of scores and weights are
    transposed: keys by queries.
    """
    head = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    head_offset = head * T
    dc2p_ptr += head_offset.to(tl.int64) * Y
    dp2c_ptr += head_offset.to(tl.int64) * Y
    scores_ptr += head_offset.to(tl.int64) * COLUMNS
    value = tl.load(head_rows(qkv_ptr, j, 2, head, 3, H, DH))
    dkey = tl.zeros([BLOCK, DH], tl.float32)
    dvalue = tl.zeros([BLOCK, DH], tl.float32)
    last = tl.max(tl.load(end_ptr + j), 0)
    for block in range(tl.min(tl.load(start_ptr + j), 0) // ALIGN * ALIGN, last, INNER):
        i = block + tl.arange(0, INNER)
        valid = i < last
        query = tl.load(head_rows(qkv_ptr, i, 0, head, 3, H, DH), mask=valid[:, None], other=0.0)
        dout = tl.load(head_rows(dout_ptr, i, 0, head, 1, H, DH), mask=valid[:, None], other=0.0)
        lse = tl.load(lse_ptr + head_offset + i, mask=valid, other=0.0)
        delta = tl.load(delta_ptr + head_offset + i, mask=valid, other=0.0)
        # The forward pass stored scores within the aligned bounds of each query, whole vectors.
        first, end = aligned_bounds(i, start_ptr, end_ptr, last)
        column = j[None, :] - first[:, None]
        known = (column >= 0) & (column < (end - first)[:, None])
        score = tl.trans(tl.load(scores_ptr + (i * COLUMNS)[:, None] + column, mask=known, other=APART))
        # Multiplied by scale / KEEP_PROB, as their gradients are.
        weight = tl.exp2(score.to(tl.float32) - (lse - tl.log2(scale / KEEP_PROB))[None, :])
        dweight = tl.dot(value, tl.trans(dout), input_precision=PRECISION)
        dropped = weight
        if THRESHOLD > 0:
            keep = _lowest_bit(score)
            dweight = tl.where(keep, dweight, 0.0)
            dropped = tl.where(keep, weight, 0.0)
        dvalue += tl.dot(dropped.to(dout.dtype), dout, input_precision=PRECISION)
        dscore = (weight * (dweight - (delta * KEEP_PROB)[None, :])).to(query.dtype)
        dkey += tl.dot(dscore, query, input_precision=PRECISION)
        # Where a row has a column for the pair. It is 0 for those of different sequences.
        column = i[None, :] + first_column(j, R)[:, None]
        tl.store(dp2c_ptr + (j * Y)[:, None] + column, dscore, mask=(column >= 0) & (column < Y))
        column = j[None, :] + first_column(i, R)[:, None]
        in_row = (column >= 0) & (column < Y) & valid[:, None]
        tl.store(dc2p_ptr + (i * Y)[:, None] + column, tl.trans(dscore), mask=in_row)
    tl.store(head_rows(dqkv_ptr, j, 1, head, 3, H, DH), dkey.to(dqkv_ptr.dtype.element_ty))
    tl.store(head_rows(dqkv_ptr, j, 2, head, 3, H, DH), (dvalue / scale).to(dqkv_ptr.dtype.element_ty))


@triton.jit
def _backward_queries(
    qkv_ptr, dc2p_ptr, dqkv_ptr, start_ptr, end_ptr, T,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, Y: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """dq_i = sum_j dc2p_ij k_j; a program owns BLOCK queries of one head.

    Shapes and types as in `_backward_keys`, which stored dc2p.
    """
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    dc2p_ptr += (head * T).to(tl.int64) * Y
    first, end = aligned_bounds(i, start_ptr, end_ptr, T)
    dc2p_ptrs = dc2p_ptr + (i * Y + first_column(i, R))[:, None]
    dquery = tl.zeros([BLOCK, DH], tl.float32)
    last = tl.max(end, 0)
    for block in range(tl.min(first, 0) // ALIGN * ALIGN, last, INNER):
        j = block + tl.arange(0, INNER)
        key = tl.load(head_rows(qkv_ptr, j, 1, head, 3, H, DH), mask=(j < last)[:, None], other=0.0)
        dscore = tl.load(dc2p_ptrs + j[None, :], mask=between(j, first, end), other=0.0)
        dquery += tl.dot(dscore, key, input_precision=PRECISION)
    tl.store(head_rows(dqkv_ptr, i, 0, head, 3, H, DH), dquery.to(dqkv_ptr.dtype.element_ty))


def _constants(qkv: Tensor, heads: int, columns: int, tiles: Tiles) -> dict[str, int | str]:
    """Return the arguments that the kernels share, for tables with so many columns."""
    return {
        "H": heads,
        "DH": qkv.shape[1] // 3 // heads,
        "R": max_distance_of(columns),
        "Y": columns,
        "PRECISION": "ieee" if qkv.dtype == torch.float32 else "tf32",
        "BLOCK": tiles.block,
        "INNER": tiles.inner_block,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def _score_columns(max_distance: int) -> int:
    """Return the length of a row of stored scores, whose sequence begins up to 15 columns into it."""
    return max_distance + 16


@dataclass(frozen=True)
class Attended:
    """Result of `attend`, with what its backward pass needs.

    Attributes:
        out: T x D, in the type of qkv; the weighted sum of values for every token.
        lse: H x T, fp32; log2 of the softmax's denominator. scores: H x T x (R + 16); see `_forward`.
    """

    out: Tensor
    lse: Tensor
    scores: Tensor


def attend(
    qkv: Tensor, rel_scores: Tensor, sequences: PackedSequences, heads: int, dropout_offset: int, dropout: float
) -> Attended:
    """Compute attention with the scores of this module's formula.

    Args:
        qkv: at least T x 3 D, contiguous; rows of queries, keys and values. Later rows are not read.
        rel_scores: 2 x H x T x Y; c2p and p2c. Used in the valid range alone, see `accl.kernels.triton.tables`.
        dropout_offset, dropout: of the attention weights, as in `accl.kernels.triton.pointwise.add_norm`.
    """
    tokens, width, columns = len(sequences.start_T), qkv.shape[1] // 3, rel_scores.shape[3]
    out = qkv.new_empty(tokens, width)
    lse = torch.empty(heads, tokens, dtype=torch.float32, device=qkv.device)
    score_type = torch.float32 if qkv.dtype == torch.float32 else torch.float16
    score_columns = _score_columns(max_distance_of(columns))
    scores = torch.empty(heads, tokens, score_columns, dtype=score_type, device=qkv.device)
    _forward[(heads, tokens // FORWARD.block)](
        qkv, *rel_scores, out, lse, scores, sequences.start_T, sequences.end_T, sequences.seed, dropout_offset, tokens,
        (3 * width // heads) ** -0.5, COLUMNS=score_columns, **mask_constants(dropout),
        **_constants(qkv, heads, columns, FORWARD),
    )  # fmt: skip
    return Attended(out, lse, scores)


def attend_backward(
    dout: Tensor,
    qkv: Tensor,
    attended: Attended,
    dqkv: Tensor,
    drel_scores: Tensor,
    sequences: PackedSequences,
    heads: int,
    dropout: float,
) -> None:
    """Compute the gradients of `attend`.

    Args:
        dout: T x D. attended: as `attend` returned it. dropout: as given to `attend`.
        dqkv: like ``qkv``; its first T rows are written, without the part that goes through the relative scores.
        drel_scores: 2 x H x T x Y; gradient to the relative scores, written within the aligned bounds.
    """
    out, lse, scores = attended.out, attended.lse, attended.scores
    tokens, width, columns = len(sequences.start_T), qkv.shape[1] // 3, drel_scores.shape[3]
    bounds = sequences.start_T, sequences.end_T
    delta = torch.empty_like(lse)
    _backward_delta[(heads, tokens // 64)](out, dout, delta, tokens, H=heads, DH=width // heads, BLOCK=64)
    _backward_keys[(heads, tokens // BACKWARD_KEYS.block)](
        qkv, scores, dout, lse, delta, dqkv, *drel_scores, *bounds, tokens, (3 * width // heads) ** -0.5,
        COLUMNS=scores.shape[2], **mask_constants(dropout), **_constants(qkv, heads, columns, BACKWARD_KEYS),
    )  # fmt: skip
    _backward_queries[(heads, tokens // BACKWARD_QUERIES.block)](
        qkv, drel_scores[0], dqkv, *bounds, tokens, **_constants(qkv, heads, columns, BACKWARD_QUERIES)
    )
