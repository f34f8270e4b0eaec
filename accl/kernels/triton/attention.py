"""Disentangled attention (He et al., 2021, arXiv 2006.03654) over a stream of packed sequences, as Triton kernels.

Token i of a sequence attends to token j of the same sequence with the score

    s_ij = ( q_i . k_j + q_i . pk_{i-j} + k_j . pq_{i-j} ) / sqrt(3 Dh)

where pk and pq are projected rows of the position table, one for each distance -R..R-1. `accl.kernels.triton.tables` makes their
products (c2p and p2c, H x T x 2R); the forward kernel looks them up along diagonals and keeps the scores for the
backward pass. There every program owns the rows of its tokens, and every score has a place of its own in the tables'
gradients: nothing is added up by atomics, and the same input gives the same bits.

T tokens, H heads, Dh channels of a head, R the reach: no sequence is longer. Sequences lie end to end; ``start_T`` and
``end_T`` bound the one that a token belongs to, so work grows with the sum of squared lengths, and a token of padding
is a sequence of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.dropout import keep, threshold


@dataclass(frozen=True)
class Tiles:
    """How a kernel is cut: rows that a program owns, rows it meets at a time, its warps, and stages of its loop."""

    own: int
    other: int
    warps: int
    stages: int


FORWARD = Tiles(16, 64, 2, 2)
BACKWARD_QUERIES = Tiles(16, 64, 4, 2)
BACKWARD_KEYS = Tiles(32, 64, 4, 2)


@dataclass(frozen=True)
class Stream:
    """Where the sequences of a stream lie.

    Attributes:
        start_T, end_T: int32; first token of a token's sequence, and the one after its last.
        seed: one int64, which dropout depends on.
    """

    start_T: Tensor
    end_T: Tensor
    seed: Tensor


@triton.jit
def _terms(i, j, low, high, c2p_ptr, p2c_ptr, REACH: tl.constexpr):
    """What the tables add to the scores of queries i and keys j where these count: q_i . pk, and k_j . pq turned."""
    counts = (j[None, :] >= low[:, None]) & (j[None, :] < high[:, None])
    c2p = tl.load(c2p_ptr + i[:, None] * (2 * REACH) + (i[:, None] - j[None, :]) + REACH, mask=counts, other=0.0)
    # Read with its own rows along the threads, so that neighbours read neighbours.
    turned = (j[:, None] >= low[None, :]) & (j[:, None] < high[None, :])
    p2c = tl.load(p2c_ptr + j[:, None] * (2 * REACH) + (i[None, :] - j[:, None]) + REACH, mask=turned, other=0.0)
    return c2p, p2c


@triton.jit
def _scores_at(scores_ptr, i, low, j, COLUMNS: tl.constexpr):
    """Where the scores of queries i by keys j are kept, and whether there is room for them: a row begins at its
    sequence, 16 columns at a time, so that whole vectors are read and written."""
    column = j - low // 16 * 16
    return scores_ptr + i * COLUMNS + column, (column >= 0) & (column < COLUMNS)


@triton.jit(do_not_specialize=["site"])
def _forward(
    qkv_ptr, c2p_ptr, p2c_ptr, out_ptr, lse_ptr, scores_ptr, start_ptr, end_ptr, seed_ptr, site, T, scale,
    H: tl.constexpr, D: tl.constexpr, REACH: tl.constexpr, COLUMNS: tl.constexpr, THRESHOLD: tl.constexpr,
    KEPT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    offset = head * T
    c2p_ptr += offset.to(tl.int64) * (2 * REACH)
    p2c_ptr += offset.to(tl.int64) * (2 * REACH)
    scores_ptr += offset.to(tl.int64) * COLUMNS
    query = tl.load(qkv_ptr + i[:, None] * (3 * H * D) + head * D + d[None, :])
    low, high = tl.load(start_ptr + i), tl.load(end_ptr + i)
    peak = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    out = tl.zeros([BLOCK, D], tl.float32)
    begin, last = tl.min(low, 0) // 16 * 16, tl.max(high, 0)
    # One tile ahead: nothing else hides how long they take.
    c2p, p2c = _terms(i, begin + tl.arange(0, OTHERS), low, high, c2p_ptr, p2c_ptr, REACH)
    for first in range(begin, last, OTHERS):
        j = first + tl.arange(0, OTHERS)
        there = (j < last)[:, None]
        key = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (H + head) * D + d[None, :], mask=there, other=0.0)
        value = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (2 * H + head) * D + d[None, :], mask=there, other=0.0)
        next_c2p, next_p2c = _terms(i, j + OTHERS, low, high, c2p_ptr, p2c_ptr, REACH)
        score = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        score = (score + c2p.to(tl.float32) + tl.trans(p2c).to(tl.float32)) * scale
        kept_score = _narrow(score, scores_ptr)
        place, room = _scores_at(scores_ptr, i[:, None], low[:, None], j[None, :], COLUMNS)
        tl.store(place, kept_score, mask=room)
        counts = (j[None, :] >= low[:, None]) & (j[None, :] < high[:, None])
        score = tl.where(counts, kept_score.to(tl.float32), -float("inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        # A row whose sequence lies in other tiles has seen nothing yet.
        safe = tl.where(higher == -float("inf"), 0.0, higher)
        weight = tl.exp(score - safe[:, None])
        shrink = tl.exp(peak - safe)
        total = total * shrink + tl.sum(weight, 1)
        if THRESHOLD > 0:
            element = (offset + i[:, None]) * T + j[None, :]
            weight = tl.where(keep(seed_ptr, site, element, THRESHOLD), weight * (1 / KEPT), 0.0)
        out = out * shrink[:, None] + tl.dot(weight.to(value.dtype), value, input_precision=PRECISION)
        peak = higher
        c2p, p2c = next_c2p, next_p2c
    tl.store(
        out_ptr + i[:, None] * (H * D) + head * D + d[None, :], (out / total[:, None]).to(out_ptr.dtype.element_ty)
    )
    tl.store(lse_ptr + offset + i, peak + tl.log(total))


@triton.jit
def _narrow(score, scores_ptr):
    """In the type that scores are kept in: fp16 has 3 bits more than bf16, and ends where softmax has long decided."""
    return tl.minimum(tl.maximum(score, -60000.0), 60000.0).to(scores_ptr.dtype.element_ty)


@triton.jit(do_not_specialize=["site"])
def _backward_queries(
    qkv_ptr, scores_ptr, out_ptr, dout_ptr, lse_ptr, delta_ptr, dqkv_ptr, dc2p_ptr, start_ptr, end_ptr,
    seed_ptr, site, T, scale,
    H: tl.constexpr, D: tl.constexpr, REACH: tl.constexpr, COLUMNS: tl.constexpr,
    THRESHOLD: tl.constexpr, KEPT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    offset = head * T
    dc2p_ptr += offset.to(tl.int64) * (2 * REACH)
    scores_ptr += offset.to(tl.int64) * COLUMNS
    dout = tl.load(dout_ptr + i[:, None] * (H * D) + head * D + d[None, :])
    out = tl.load(out_ptr + i[:, None] * (H * D) + head * D + d[None, :])
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    tl.store(delta_ptr + offset + i, delta)
    lse = tl.load(lse_ptr + offset + i)
    low, high = tl.load(start_ptr + i), tl.load(end_ptr + i)
    dquery = tl.zeros([BLOCK, D], tl.float32)
    last = tl.max(high, 0)
    for first in range(tl.min(low, 0) // 16 * 16, last, OTHERS):
        j = first + tl.arange(0, OTHERS)
        there = (j < last)[:, None]
        key = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (H + head) * D + d[None, :], mask=there, other=0.0)
        value = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (2 * H + head) * D + d[None, :], mask=there, other=0.0)
        place, room = _scores_at(scores_ptr, i[:, None], low[:, None], j[None, :], COLUMNS)
        score = tl.load(place, mask=room, other=0.0).to(tl.float32)
        counts = (j[None, :] >= low[:, None]) & (j[None, :] < high[:, None])
        weight = tl.where(counts, tl.exp(score - lse[:, None]), 0.0)
        dweight = tl.dot(dout, tl.trans(value), input_precision=PRECISION)
        if THRESHOLD > 0:
            element = (offset + i[:, None]) * T + j[None, :]
            dweight = tl.where(keep(seed_ptr, site, element, THRESHOLD), dweight * (1 / KEPT), 0.0)
        dscore = (weight * (dweight - delta[:, None]) * scale).to(key.dtype)
        dquery += tl.dot(dscore, key, input_precision=PRECISION)
        tl.store(dc2p_ptr + i[:, None] * (2 * REACH) + (i[:, None] - j[None, :]) + REACH, dscore, mask=counts)
    tl.store(dqkv_ptr + i[:, None] * (3 * H * D) + head * D + d[None, :], dquery.to(dqkv_ptr.dtype.element_ty))


@triton.jit(do_not_specialize=["site"])
def _backward_keys(
    qkv_ptr, scores_ptr, dout_ptr, lse_ptr, delta_ptr, dqkv_ptr, dp2c_ptr, start_ptr, end_ptr,
    seed_ptr, site, T, scale,
    H: tl.constexpr, D: tl.constexpr, REACH: tl.constexpr, COLUMNS: tl.constexpr,
    THRESHOLD: tl.constexpr, KEPT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    offset = head * T
    dp2c_ptr += offset.to(tl.int64) * (2 * REACH)
    scores_ptr += offset.to(tl.int64) * COLUMNS
    value = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (2 * H + head) * D + d[None, :])
    low, high = tl.load(start_ptr + j), tl.load(end_ptr + j)
    dkey = tl.zeros([BLOCK, D], tl.float32)
    dvalue = tl.zeros([BLOCK, D], tl.float32)
    last = tl.max(high, 0)
    for first in range(tl.min(low, 0), last, OTHERS):
        i = first + tl.arange(0, OTHERS)
        here = i < last
        there = here[:, None]
        query = tl.load(qkv_ptr + i[:, None] * (3 * H * D) + head * D + d[None, :], mask=there, other=0.0)
        dout = tl.load(dout_ptr + i[:, None] * (H * D) + head * D + d[None, :], mask=there, other=0.0)
        lse = tl.load(lse_ptr + offset + i, mask=here, other=0.0)
        delta = tl.load(delta_ptr + offset + i, mask=here, other=0.0)
        # A key counts for the queries of its sequence, which begins where theirs does.
        begin = tl.load(start_ptr + i, mask=here, other=0)
        place, room = _scores_at(scores_ptr, i[:, None], begin[:, None], j[None, :], COLUMNS)
        score = tl.trans(tl.load(place, mask=room & there, other=0.0)).to(tl.float32)
        counts = (i[None, :] >= low[:, None]) & (i[None, :] < high[:, None])
        weight = tl.where(counts, tl.exp(score - lse[None, :]), 0.0)
        dweight = tl.dot(value, tl.trans(dout), input_precision=PRECISION)
        dropped = weight
        if THRESHOLD > 0:
            element = (offset + i[None, :]) * T + j[:, None]
            kept = keep(seed_ptr, site, element, THRESHOLD)
            dweight = tl.where(kept, dweight * (1 / KEPT), 0.0)
            dropped = tl.where(kept, weight * (1 / KEPT), 0.0)
        dvalue += tl.dot(dropped.to(dout.dtype), dout, input_precision=PRECISION)
        dscore = (weight * (dweight - delta[None, :]) * scale).to(query.dtype)
        dkey += tl.dot(dscore, query, input_precision=PRECISION)
        tl.store(dp2c_ptr + j[:, None] * (2 * REACH) + (i[None, :] - j[:, None]) + REACH, dscore, mask=counts)
    place = dqkv_ptr + j[:, None] * (3 * H * D) + d[None, :]
    tl.store(place + (H + head) * D, dkey.to(dqkv_ptr.dtype.element_ty))
    tl.store(place + (2 * H + head) * D, dvalue.to(dqkv_ptr.dtype.element_ty))


def _launch(
    kernel, stream: Stream, tensors, heads: int, width: int, reach: int, site: int, dropout: float, tiles: Tiles
) -> None:
    """Run one of the three over all tiles and heads; ``tensors`` are its pointers before the sequences'."""
    tokens, qkv = len(stream.start_T), tensors[0]
    kernel[(heads, tokens // tiles.own)](
        *tensors,
        stream.start_T,
        stream.end_T,
        stream.seed,
        site,
        tokens,
        (3 * width) ** -0.5,
        H=heads,
        D=width,
        REACH=reach,
        COLUMNS=_columns(reach),
        THRESHOLD=threshold(dropout),
        KEPT=1 - dropout,
        PRECISION="ieee" if qkv.dtype == torch.float32 else "tf32",
        BLOCK=tiles.own,
        OTHERS=tiles.other,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


def _columns(reach: int) -> int:
    """Of a row of kept scores: its sequence begins up to 15 columns from the row's."""
    return reach + 16


@dataclass(frozen=True)
class Attended:
    """What `attend` made, and its backward pass needs.

    Attributes:
        out: T x H Dh; the mixture of values that every token sees.
        lse: H x T; log of its softmax's denominator. scores: H x T x columns; see `_scores_at`.
    """

    out: Tensor
    lse: Tensor
    scores: Tensor


def attend(qkv: Tensor, tables: Tensor, stream: Stream, heads: int, site: int, dropout: float) -> Attended:
    """Attention with the scores of this module's formula.

    Args:
        qkv: rows of queries, keys and values, at least T x (3 H Dh), contiguous; later rows are not read.
        tables: q_i . pk and k_j . pq, 2 x H x T x 2R; the place of the distance d is d + R. Read in the band alone, see
            `accl.kernels.triton.tables`.
        site: number of this place, for dropout (`accl.kernels.triton.dropout.site`). dropout: of the attention's weights.
    """
    tokens, width, reach = len(stream.start_T), qkv.shape[1] // 3 // heads, tables.shape[3] // 2
    out = qkv.new_empty(tokens, heads * width)
    lse = torch.empty(heads, tokens, dtype=torch.float32, device=qkv.device)
    kept = torch.float32 if qkv.dtype == torch.float32 else torch.float16
    scores = torch.empty(heads, tokens, _columns(reach), dtype=kept, device=qkv.device)
    tensors = (qkv, *tables, out, lse, scores)
    _launch(_forward, stream, tensors, heads, width, reach, site, dropout, FORWARD)
    return Attended(out, lse, scores)


def attend_backward(
    dout: Tensor,
    qkv: Tensor,
    attended: Attended,
    dqkv: Tensor,
    dtables: Tensor,
    stream: Stream,
    heads: int,
    site: int,
    dropout: float,
) -> None:
    """Gradients of `attend`.

    Args:
        dqkv: its first T rows are written; they lack what goes through the tables.
        dtables: the tables', written in the band alone.
    """
    width, reach = qkv.shape[1] // 3 // heads, dtables.shape[3] // 2
    out, lse, scores = attended.out, attended.lse, attended.scores
    delta = torch.empty_like(lse)
    queries = (qkv, scores, out, dout, lse, delta, dqkv, dtables[0])
    _launch(_backward_queries, stream, queries, heads, width, reach, site, dropout, BACKWARD_QUERIES)
    keys = (qkv, scores, dout, lse, delta, dqkv, dtables[1])
    _launch(_backward_keys, stream, keys, heads, width, reach, site, dropout, BACKWARD_KEYS)
