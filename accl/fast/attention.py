"""Disentangled attention (He et al., 2021, arXiv 2006.03654) over a stream of packed sequences, as Triton kernels.

Token i of a sequence attends to token j of the same sequence with the score

    s_ij = ( q_i . k_j + q_i . pk_{i-j} + k_j . pq_{i-j} ) / sqrt(3 Dh)

where pk and pq are projected rows of the position table, one for each distance -R..R-1. The products with all 2R of
them are one matrix product each (c2p and p2c, H x T x 2R); the kernels look them up along diagonals, so that they read
and write one value per score. In the backward pass every program owns the rows of its tokens, and every score has a
place of its own in their gradients: nothing is added up by atomics, and the same input gives the same bits.

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

from accl.fast.dropout import keep, threshold


@dataclass(frozen=True)
class Tiles:
    """How a kernel is cut: rows that a program owns, rows it meets at a time, its warps, and stages of its loop."""

    own: int
    other: int
    warps: int
    stages: int


FORWARD = Tiles(16, 64, 4, 2)
BACKWARD_QUERIES = Tiles(16, 64, 4, 2)
BACKWARD_KEYS = Tiles(16, 64, 4, 2)


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
def _row_scores(
    own, other, own_at, other_at, own_low, own_high, own_table_ptr, other_table_ptr, sign: tl.constexpr,
    REACH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Unscaled scores between the rows ``own`` (tile x Dh) and ``other``, which count, and their place in a table.

    sign 1: own are queries, so that their table is c2p; -1: own are keys, and it is p2c.
    """
    counts = (other_at[None, :] >= own_low[:, None]) & (other_at[None, :] < own_high[:, None])
    place = own_at[:, None] * (2 * REACH) + (own_at[:, None] - other_at[None, :]) * sign + REACH
    score = tl.dot(own, tl.trans(other), input_precision=PRECISION)
    score += tl.load(own_table_ptr + place, mask=counts, other=0.0).to(tl.float32)
    # Read with its own rows along the threads, so that neighbours read neighbours, and turned afterwards.
    turned = (other_at[:, None] >= own_low[None, :]) & (other_at[:, None] < own_high[None, :])
    back = other_at[:, None] * (2 * REACH) + (own_at[None, :] - other_at[:, None]) * sign + REACH
    position = tl.load(other_table_ptr + back, mask=turned, other=0.0)
    return score + tl.trans(position).to(tl.float32), counts, place


@triton.jit(do_not_specialize=["site"])
def _forward(
    qkv_ptr, c2p_ptr, p2c_ptr, out_ptr, lse_ptr, start_ptr, end_ptr, seed_ptr, site, T, scale,
    H: tl.constexpr, D: tl.constexpr, REACH: tl.constexpr, THRESHOLD: tl.constexpr,
    KEPT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    offset = head * T
    c2p_ptr += offset.to(tl.int64) * (2 * REACH)
    p2c_ptr += offset.to(tl.int64) * (2 * REACH)
    query = tl.load(qkv_ptr + i[:, None] * (3 * H * D) + head * D + d[None, :])
    low, high = tl.load(start_ptr + i), tl.load(end_ptr + i)
    peak = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    out = tl.zeros([BLOCK, D], tl.float32)
    last = tl.max(high, 0)
    for first in range(tl.min(low, 0), last, OTHERS):
        j = first + tl.arange(0, OTHERS)
        there = (j < last)[:, None]
        key = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (H + head) * D + d[None, :], mask=there, other=0.0)
        value = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (2 * H + head) * D + d[None, :], mask=there, other=0.0)
        score, counts, _ = _row_scores(query, key, i, j, low, high, c2p_ptr, p2c_ptr, 1, REACH, PRECISION)
        score = tl.where(counts, score * scale, -float("inf"))
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
    tl.store(
        out_ptr + i[:, None] * (H * D) + head * D + d[None, :], (out / total[:, None]).to(out_ptr.dtype.element_ty)
    )
    tl.store(lse_ptr + offset + i, peak + tl.log(total))


@triton.jit(do_not_specialize=["site"])
def _backward_queries(
    qkv_ptr, c2p_ptr, p2c_ptr, out_ptr, dout_ptr, lse_ptr, delta_ptr, dqkv_ptr, dc2p_ptr, start_ptr, end_ptr,
    seed_ptr, site, T, scale,
    H: tl.constexpr, D: tl.constexpr, REACH: tl.constexpr,
    THRESHOLD: tl.constexpr, KEPT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    offset = head * T
    c2p_ptr += offset.to(tl.int64) * (2 * REACH)
    p2c_ptr += offset.to(tl.int64) * (2 * REACH)
    query = tl.load(qkv_ptr + i[:, None] * (3 * H * D) + head * D + d[None, :])
    dout = tl.load(dout_ptr + i[:, None] * (H * D) + head * D + d[None, :])
    out = tl.load(out_ptr + i[:, None] * (H * D) + head * D + d[None, :])
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    tl.store(delta_ptr + offset + i, delta)
    lse = tl.load(lse_ptr + offset + i)
    low, high = tl.load(start_ptr + i), tl.load(end_ptr + i)
    dc2p_ptr += offset.to(tl.int64) * (2 * REACH)
    dquery = tl.zeros([BLOCK, D], tl.float32)
    last = tl.max(high, 0)
    for first in range(tl.min(low, 0), last, OTHERS):
        j = first + tl.arange(0, OTHERS)
        there = (j < last)[:, None]
        key = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (H + head) * D + d[None, :], mask=there, other=0.0)
        value = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (2 * H + head) * D + d[None, :], mask=there, other=0.0)
        score, counts, place = _row_scores(query, key, i, j, low, high, c2p_ptr, p2c_ptr, 1, REACH, PRECISION)
        weight = tl.where(counts, tl.exp(score * scale - lse[:, None]), 0.0)
        dweight = tl.dot(dout, tl.trans(value), input_precision=PRECISION)
        if THRESHOLD > 0:
            element = (offset + i[:, None]) * T + j[None, :]
            dweight = tl.where(keep(seed_ptr, site, element, THRESHOLD), dweight * (1 / KEPT), 0.0)
        dscore = weight * (dweight - delta[:, None]) * scale
        narrow = dscore.to(key.dtype)
        dquery += tl.dot(narrow, key, input_precision=PRECISION)
        tl.store(dc2p_ptr + place, narrow, mask=counts)
    tl.store(dqkv_ptr + i[:, None] * (3 * H * D) + head * D + d[None, :], dquery.to(dqkv_ptr.dtype.element_ty))


@triton.jit(do_not_specialize=["site"])
def _backward_keys(
    qkv_ptr, c2p_ptr, p2c_ptr, dout_ptr, lse_ptr, delta_ptr, dqkv_ptr, dp2c_ptr, start_ptr, end_ptr,
    seed_ptr, site, T, scale,
    H: tl.constexpr, D: tl.constexpr, REACH: tl.constexpr,
    THRESHOLD: tl.constexpr, KEPT: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    offset = head * T
    c2p_ptr += offset.to(tl.int64) * (2 * REACH)
    p2c_ptr += offset.to(tl.int64) * (2 * REACH)
    key = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (H + head) * D + d[None, :])
    value = tl.load(qkv_ptr + j[:, None] * (3 * H * D) + (2 * H + head) * D + d[None, :])
    low, high = tl.load(start_ptr + j), tl.load(end_ptr + j)
    dp2c_ptr += offset.to(tl.int64) * (2 * REACH)
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
        score, counts, place = _row_scores(key, query, j, i, low, high, p2c_ptr, c2p_ptr, -1, REACH, PRECISION)
        weight = tl.where(counts, tl.exp(score * scale - lse[None, :]), 0.0)
        dweight = tl.dot(value, tl.trans(dout), input_precision=PRECISION)
        dropped = weight
        if THRESHOLD > 0:
            element = (offset + i[None, :]) * T + j[:, None]
            kept = keep(seed_ptr, site, element, THRESHOLD)
            dweight = tl.where(kept, dweight * (1 / KEPT), 0.0)
            dropped = tl.where(kept, weight * (1 / KEPT), 0.0)
        dvalue += tl.dot(dropped.to(dout.dtype), dout, input_precision=PRECISION)
        dscore = weight * (dweight - delta[None, :]) * scale
        narrow = dscore.to(query.dtype)
        dkey += tl.dot(narrow, query, input_precision=PRECISION)
        tl.store(dp2c_ptr + place, narrow, mask=counts)
    place = dqkv_ptr + j[:, None] * (3 * H * D) + d[None, :]
    tl.store(place + (H + head) * D, dkey.to(dqkv_ptr.dtype.element_ty))
    tl.store(place + (2 * H + head) * D, dvalue.to(dqkv_ptr.dtype.element_ty))


def _launch(kernel, stream: Stream, tensors, heads: int, site: int, dropout: float, tiles: Tiles) -> None:
    """Run one of the three over all tiles and heads; ``tensors`` are its pointers before the sequences'."""
    qkv, c2p = tensors[:2]
    tokens = len(stream.start_T)
    width = qkv.shape[1] // 3 // heads
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
        REACH=c2p.shape[2] // 2,
        THRESHOLD=threshold(dropout),
        KEPT=1 - dropout,
        PRECISION="ieee" if qkv.dtype == torch.float32 else "tf32",
        BLOCK=tiles.own,
        OTHERS=tiles.other,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


def attend(
    qkv: Tensor, c2p: Tensor, p2c: Tensor, stream: Stream, heads: int, site: int, dropout: float
) -> tuple[Tensor, Tensor]:
    """The mixture of values that every token sees, T x H Dh, and the log of its softmax's denominator, H x T.

    Args:
        qkv: rows of queries, keys and values, at least T x (3 H Dh), contiguous; later rows are not read.
        c2p: q_i . pk, and p2c: k_j . pq, each H x T x 2R; the row of the distance d is d + R.
        site: number of this place, for dropout (`accl.fast.dropout.site`). dropout: of the attention's weights.
    """
    tokens = len(stream.start_T)
    out = qkv.new_empty(tokens, qkv.shape[1] // 3)
    lse = torch.empty(heads, tokens, dtype=torch.float32, device=qkv.device)
    _launch(_forward, stream, (qkv, c2p, p2c, out, lse), heads, site, dropout, FORWARD)
    return out, lse


def attend_backward(
    dout: Tensor,
    qkv: Tensor,
    c2p: Tensor,
    p2c: Tensor,
    out: Tensor,
    lse: Tensor,
    dqkv: Tensor,
    dc2p: Tensor,
    dp2c: Tensor,
    stream: Stream,
    heads: int,
    site: int,
    dropout: float,
) -> None:
    """Gradients of `attend`.

    Args:
        dqkv: its first T rows are written; they lack what goes through the tables.
        dc2p, dp2c: the tables', written where a score looks one up; the rest must be 0.
    """
    delta = torch.empty_like(lse)
    _launch(
        _backward_queries,
        stream,
        (qkv, c2p, p2c, out, dout, lse, delta, dqkv, dc2p),
        heads,
        site,
        dropout,
        BACKWARD_QUERIES,
    )
    _launch(_backward_keys, stream, (qkv, c2p, p2c, dout, lse, delta, dqkv, dp2c), heads, site, dropout, BACKWARD_KEYS)
