"""Disentangled attention (He et al., 2021, arXiv 2006.03654) on packed sequences, as Triton kernels.

Query token i attends to key token j of the same sequence with the weight p_ij, the softmax over j of

    s_ij = ( q_i . k_j + q_i . pk_{i-j} + k_j . pq_{i-j} ) / sqrt(3 Dh)

where pk and pq are projected rows of the position table, one for each relative distance. Their products c2p (content
to position) and p2c (position to content), H x T x 2R each, come from `accl.kernels.triton.rel_scores`, with a row for
each query and for each key, and a column for each offset of a partner in the sequence; the forward kernel gathers them
along diagonals and stores the scores for the backward pass. With A = dropout(p) and O = A V:

    dV = A^T dO,  ds_ij = p_ij (keep_ij dO_i . v_j - delta_i) / sqrt(3 Dh),  delta_i = O_i . dO_i
    dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dc2p_{i, j-i} = dp2c_{j, i-j} = ds_ij

with keep_ij 0 or 1 / (1 - dropout). In the backward pass the programs that own keys compute ds_ij, once: they store it
in dc2p and dp2c, where every score has an element of its own, and in the place of the score, from which a product with
the keys gives dq. There are no atomic additions, and equal inputs give equal bits.

``start_T`` and ``end_T`` bound the sequence of each token, so the work grows with the sum of squared lengths; a token
of padding is a sequence of its own. See the package for the letters of shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.dropout import drop, keep_mask, mask_constants


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


FORWARD = Tiles(16, 64, 2, 2)
BACKWARD_QUERIES = Tiles(64, 64, 4, 2)
BACKWARD_KEYS = Tiles(32, 64, 4, 2)
# A row of stored scores begins at a multiple of so many tokens, so that whole vectors are read and written.
SCORE_ALIGNMENT = 16
ALIGN = tl.constexpr(SCORE_ALIGNMENT)  # for use in kernels


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
def _within(index, start, end):
    """Return which indices lie in [start, end) of each row; [len(start), len(index)], boolean."""
    return (index[None, :] >= start[:, None]) & (index[None, :] < end[:, None])


@triton.jit
def _rel_pointers(ptr, token, partner, R: tl.constexpr):
    """Return pointers to the elements of a head's T x 2R table for pairs of a token and a partner of its sequence.

    They ascend with the partner, so that threads beside each other reach elements beside each other.
    """
    return ptr + token * (2 * R - 1) + partner + R


@triton.jit
def _load_rel_scores(i, j, start, end, c2p_ptr, p2c_ptr, R: tl.constexpr):
    """Return c2p_{i, j-i}, [len(i), len(j)], and p2c_{j, i-j}, [len(j), len(i)]; 0 where j is not in [start, end).

    start, end: [len(i)]; bounds of the sequences of i.
    """
    c2p_ptrs = _rel_pointers(c2p_ptr, i[:, None], j[None, :], R)
    c2p = tl.load(c2p_ptrs, mask=_within(j, start, end), other=0.0)
    # Transposed, so that neighbouring threads read neighbouring elements.
    mask = (j[:, None] >= start[None, :]) & (j[:, None] < end[None, :])
    p2c = tl.load(_rel_pointers(p2c_ptr, j[:, None], i[None, :], R), mask=mask, other=0.0)
    return c2p, p2c


@triton.jit
def _score_pointers(scores_ptr, i, start, j, COLUMNS: tl.constexpr):
    """Return pointers to the stored scores of queries i with keys j, and which of them lie in the row of i.

    The row of query i begins at the sequence's ``start``, rounded down to a multiple of ALIGN.
    """
    column = j - start // ALIGN * ALIGN
    return scores_ptr + i * COLUMNS + column, (column >= 0) & (column < COLUMNS)


@triton.jit
def _to_score_type(score, scores_ptr):
    """Return scores in the type that they are stored in, limited to +-60000.

    For bf16 inputs the type is fp16, with 3 more bits of precision; softmax is saturated long before the limit.
    """
    return tl.minimum(tl.maximum(score, -60000.0), 60000.0).to(scores_ptr.dtype.element_ty)


@triton.jit(do_not_specialize=["dropout_offset"])
def _forward(
    qkv_ptr, c2p_ptr, p2c_ptr, out_ptr, lse_ptr, scores_ptr, start_ptr, end_ptr, seed_ptr, dropout_offset, T, scale,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, COLUMNS: tl.constexpr, THRESHOLD: tl.constexpr,
    KEEP_PROB: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """out_i = sum_j dropout(p_ij) v_j with online softmax; a program owns BLOCK queries of one head.

    qkv: T x 3 x H x Dh, out: T x H x Dh, c2p, p2c: H x T x 2R, of one type. Stores lse_i = log sum_j exp(s_ij), H x T
    in fp32, and the scores, H x T x COLUMNS in fp32 or fp16.
    """
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    head_offset = head * T
    c2p_ptr += head_offset.to(tl.int64) * (2 * R)
    p2c_ptr += head_offset.to(tl.int64) * (2 * R)
    scores_ptr += head_offset.to(tl.int64) * COLUMNS
    query = tl.load(head_rows(qkv_ptr, i, 0, head, 3, H, DH))
    start, end = tl.load(start_ptr + i), tl.load(end_ptr + i)
    row_max = tl.full([BLOCK], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK], tl.float32)
    out = tl.zeros([BLOCK, DH], tl.float32)
    first, last = tl.min(start, 0) // ALIGN * ALIGN, tl.max(end, 0)
    # Loaded one iteration ahead: nothing else hides their latency.
    c2p, p2c = _load_rel_scores(i, first + tl.arange(0, INNER), start, end, c2p_ptr, p2c_ptr, R)
    for block in range(first, last, INNER):
        j = block + tl.arange(0, INNER)
        valid = (j < last)[:, None]
        key = tl.load(head_rows(qkv_ptr, j, 1, head, 3, H, DH), mask=valid, other=0.0)
        value = tl.load(head_rows(qkv_ptr, j, 2, head, 3, H, DH), mask=valid, other=0.0)
        next_c2p, next_p2c = _load_rel_scores(i, j + INNER, start, end, c2p_ptr, p2c_ptr, R)
        score = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        score = (score + c2p.to(tl.float32) + tl.trans(p2c).to(tl.float32)) * scale
        stored = _to_score_type(score, scores_ptr)
        score_ptrs, in_row = _score_pointers(scores_ptr, i[:, None], start[:, None], j[None, :], COLUMNS)
        tl.store(score_ptrs, stored, mask=in_row)
        # The backward pass sees the rounded scores, so the softmax is of these.
        score = tl.where(_within(j, start, end), stored.to(tl.float32), -float("inf"))
        new_max = tl.maximum(row_max, tl.max(score, 1))
        # A row whose sequence lies in other blocks has no score yet.
        safe_max = tl.where(new_max == -float("inf"), 0.0, new_max)
        weight = tl.exp(score - safe_max[:, None])
        rescale = tl.exp(row_max - safe_max)
        row_sum = row_sum * rescale + tl.sum(weight, 1)
        element = (head_offset + i[:, None]) * T + j[None, :]
        weight = drop(weight, seed_ptr, dropout_offset, element, THRESHOLD, KEEP_PROB)
        out = out * rescale[:, None] + tl.dot(weight.to(value.dtype), value, input_precision=PRECISION)
        row_max = new_max
        c2p, p2c = next_c2p, next_p2c
    tl.store(head_rows(out_ptr, i, 0, head, 1, H, DH), (out / row_sum[:, None]).to(out_ptr.dtype.element_ty))
    tl.store(lse_ptr + head_offset + i, row_max + tl.log(row_sum))


@triton.jit
def _backward_delta(out_ptr, dout_ptr, delta_ptr, T, H: tl.constexpr, DH: tl.constexpr, BLOCK: tl.constexpr):
    """delta_i = O_i . dO_i, T x H x Dh of one type to H x T in fp32; a program owns BLOCK queries of one head."""
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    out = tl.load(head_rows(out_ptr, i, 0, head, 1, H, DH)).to(tl.float32)
    dout = tl.load(head_rows(dout_ptr, i, 0, head, 1, H, DH)).to(tl.float32)
    tl.store(delta_ptr + head * T + i, tl.sum(out * dout, 1))


@triton.jit(do_not_specialize=["dropout_offset"])
def _backward_keys(
    qkv_ptr, scores_ptr, dout_ptr, lse_ptr, delta_ptr, dqkv_ptr, dc2p_ptr, dp2c_ptr, dscores_ptr, start_ptr, end_ptr,
    seed_ptr, dropout_offset, T, scale,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, COLUMNS: tl.constexpr, THRESHOLD: tl.constexpr,
    KEEP_PROB: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Gradients dk_j, dv_j, dp2c_{j, i-j}, dc2p_{i, j-i} and ds_ij of the module's formula; a program owns BLOCK keys
    of one head.

    Shapes and types as in `_forward`; dqkv, dc2p and dp2c like qkv, c2p and p2c; dscores like scores, in the type of
    qkv: it may be the same memory, as every score is read once, before its gradient is written. Tiles of scores and
    weights are transposed: keys by queries.
    """
    head = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    head_offset = head * T
    dc2p_ptr += head_offset.to(tl.int64) * (2 * R)
    dp2c_ptr += head_offset.to(tl.int64) * (2 * R)
    scores_ptr += head_offset.to(tl.int64) * COLUMNS
    dscores_ptr += head_offset.to(tl.int64) * COLUMNS
    value = tl.load(head_rows(qkv_ptr, j, 2, head, 3, H, DH))
    start, end = tl.load(start_ptr + j), tl.load(end_ptr + j)
    dkey = tl.zeros([BLOCK, DH], tl.float32)
    dvalue = tl.zeros([BLOCK, DH], tl.float32)
    last = tl.max(end, 0)
    for block in range(tl.min(start, 0), last, INNER):
        i = block + tl.arange(0, INNER)
        valid = i < last
        query = tl.load(head_rows(qkv_ptr, i, 0, head, 3, H, DH), mask=valid[:, None], other=0.0)
        dout = tl.load(head_rows(dout_ptr, i, 0, head, 1, H, DH), mask=valid[:, None], other=0.0)
        lse = tl.load(lse_ptr + head_offset + i, mask=valid, other=0.0)
        delta = tl.load(delta_ptr + head_offset + i, mask=valid, other=0.0)
        query_start = tl.load(start_ptr + i, mask=valid, other=0)
        score_ptrs, in_row = _score_pointers(scores_ptr, i[:, None], query_start[:, None], j[None, :], COLUMNS)
        score = tl.trans(tl.load(score_ptrs, mask=in_row & valid[:, None], other=0.0)).to(tl.float32)
        same = _within(i, start, end)
        weight = tl.where(same, tl.exp(score - lse[None, :]), 0.0)
        dweight = tl.dot(value, tl.trans(dout), input_precision=PRECISION)
        dropped = weight
        if THRESHOLD > 0:
            element = (head_offset + i[None, :]) * T + j[:, None]
            keep = keep_mask(seed_ptr, dropout_offset, element, THRESHOLD)
            dweight = tl.where(keep, dweight * (1 / KEEP_PROB), 0.0)
            dropped = tl.where(keep, weight * (1 / KEEP_PROB), 0.0)
        dvalue += tl.dot(dropped.to(dout.dtype), dout, input_precision=PRECISION)
        dscore = (weight * (dweight - delta[None, :]) * scale).to(query.dtype)
        dkey += tl.dot(dscore, query, input_precision=PRECISION)
        # Where a row has a column for the pair: what lies outside of its valid range, 0 here, is never read.
        offset = i[None, :] - j[:, None]
        tl.store(_rel_pointers(dp2c_ptr, j[:, None], i[None, :], R), dscore, mask=(offset < R) & (offset >= -R))
        # Once more by queries, so that neighbouring threads write neighbouring elements.
        by_query, offset = tl.trans(dscore), j[None, :] - i[:, None]
        in_row = (offset < R) & (offset >= -R) & valid[:, None]
        tl.store(_rel_pointers(dc2p_ptr, i[:, None], j[None, :], R), by_query, mask=in_row)
        dscore_ptrs, in_row = _score_pointers(dscores_ptr, i[:, None], query_start[:, None], j[None, :], COLUMNS)
        tl.store(dscore_ptrs, by_query, mask=in_row & valid[:, None])
    tl.store(head_rows(dqkv_ptr, j, 1, head, 3, H, DH), dkey.to(dqkv_ptr.dtype.element_ty))
    tl.store(head_rows(dqkv_ptr, j, 2, head, 3, H, DH), dvalue.to(dqkv_ptr.dtype.element_ty))


@triton.jit
def _backward_queries(
    qkv_ptr, dscores_ptr, dqkv_ptr, start_ptr, end_ptr, T,
    H: tl.constexpr, DH: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """dq_i = sum_j ds_ij k_j; a program owns BLOCK queries of one head.

    Shapes and types as in `_backward_keys`, which stored ds.
    """
    head = tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    dscores_ptr += (head * T).to(tl.int64) * COLUMNS
    start, end = tl.load(start_ptr + i), tl.load(end_ptr + i)
    dquery = tl.zeros([BLOCK, DH], tl.float32)
    last = tl.max(end, 0)
    for block in range(tl.min(start, 0) // ALIGN * ALIGN, last, INNER):
        j = block + tl.arange(0, INNER)
        key = tl.load(head_rows(qkv_ptr, j, 1, head, 3, H, DH), mask=(j < last)[:, None], other=0.0)
        dscore_ptrs, in_row = _score_pointers(dscores_ptr, i[:, None], start[:, None], j[None, :], COLUMNS)
        dscore = tl.load(dscore_ptrs, mask=in_row, other=0.0)
        dquery += tl.dot(tl.where(_within(j, start, end), dscore, 0.0), key, input_precision=PRECISION)
    tl.store(head_rows(dqkv_ptr, i, 0, head, 3, H, DH), dquery.to(dqkv_ptr.dtype.element_ty))


def _launch(
    kernel,
    sequences: PackedSequences,
    tensors,
    heads: int,
    head_size: int,
    max_distance: int,
    dropout_offset: int,
    dropout: float,
    tiles: Tiles,
) -> None:
    """Launch a kernel over all heads and blocks of tokens; ``tensors``, qkv first, precede the sequences' pointers."""
    tokens, qkv = len(sequences.start_T), tensors[0]
    kernel[(heads, tokens // tiles.block)](
        *tensors,
        sequences.start_T,
        sequences.end_T,
        sequences.seed,
        dropout_offset,
        tokens,
        (3 * head_size) ** -0.5,
        H=heads,
        DH=head_size,
        R=max_distance,
        COLUMNS=_score_columns(max_distance),
        **mask_constants(dropout),
        PRECISION="ieee" if qkv.dtype == torch.float32 else "tf32",
        BLOCK=tiles.block,
        INNER=tiles.inner_block,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


def _score_columns(max_distance: int) -> int:
    """Return the length of a row of stored scores, whose sequence begins up to SCORE_ALIGNMENT - 1 columns into it."""
    return max_distance + SCORE_ALIGNMENT


@dataclass(frozen=True)
class Attended:
    """Result of `attend`, with what its backward pass needs.

    Attributes:
        out: T x D, in the type of qkv; the weighted sum of values for every token.
        lse: H x T, fp32; log of the softmax's denominator. scores: H x T x (R + 16); see `_score_pointers`.
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
        rel_scores: 2 x H x T x 2R; c2p and p2c. Read in the valid range alone, see `accl.kernels.triton.rel_scores`.
        dropout_offset, dropout: of the attention weights, as in `accl.kernels.triton.pointwise.add_norm`.
    """
    tokens, head_size, max_distance = len(sequences.start_T), qkv.shape[1] // 3 // heads, rel_scores.shape[3] // 2
    out = qkv.new_empty(tokens, heads * head_size)
    lse = torch.empty(heads, tokens, dtype=torch.float32, device=qkv.device)
    score_type = torch.float32 if qkv.dtype == torch.float32 else torch.float16
    scores = torch.empty(heads, tokens, _score_columns(max_distance), dtype=score_type, device=qkv.device)
    tensors = (qkv, *rel_scores, out, lse, scores)
    _launch(_forward, sequences, tensors, heads, head_size, max_distance, dropout_offset, dropout, FORWARD)
    return Attended(out, lse, scores)


def attend_backward(
    dout: Tensor,
    qkv: Tensor,
    attended: Attended,
    dqkv: Tensor,
    drel_scores: Tensor,
    sequences: PackedSequences,
    heads: int,
    dropout_offset: int,
    dropout: float,
) -> None:
    """Compute the gradients of `attend`.

    Args:
        dout: T x D. attended: as `attend` returned it; its scores are overwritten.
        dqkv: like ``qkv``; its first T rows are written, without the part that goes through the relative scores.
        drel_scores: 2 x H x T x 2R; gradient to the relative scores, written in the valid range alone.
    """
    out, lse, scores = attended.out, attended.lse, attended.scores
    tokens, head_size, columns = len(sequences.start_T), qkv.shape[1] // 3 // heads, scores.shape[2]
    delta = torch.empty_like(lse)
    _backward_delta[(heads, tokens // 64)](out, dout, delta, tokens, H=heads, DH=head_size, BLOCK=64)
    # Gradients of the scores take the place of the scores.
    dscores = scores.view(qkv.dtype)
    keys = (qkv, scores, dout, lse, delta, dqkv, *drel_scores, dscores)
    max_distance = drel_scores.shape[3] // 2
    _launch(_backward_keys, sequences, keys, heads, head_size, max_distance, dropout_offset, dropout, BACKWARD_KEYS)
    tiles = BACKWARD_QUERIES
    _backward_queries[(heads, tokens // tiles.block)](
        qkv, dscores, dqkv, sequences.start_T, sequences.end_T, tokens,
        H=heads, DH=head_size, COLUMNS=columns, PRECISION="ieee" if qkv.dtype == torch.float32 else "tf32",
        BLOCK=tiles.block, INNER=tiles.inner_block, num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
