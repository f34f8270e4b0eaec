"""Softmax attention on packed sequences, as Triton kernels: nothing of the size of the scores is stored.

Query token i attends to key token j of the same sequence, and within the window if there is one, with the weight p_ij,
the softmax over j of

    s_ij = scale q_i . k_j + bias_{i-j}

With A = dropout(p) and O = A V, keep_ij 0 or 1 / (1 - dropout):

    dV = A^T dO,  ds_ij = p_ij (keep_ij dO_i . v_j - delta_i),  delta_i = O_i . dO_i
    dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dbias_d = sum_{i-j=d} ds_ij

Scores are computed again in the backward pass, where every program owns the rows of its tokens: there are no atomic
additions, and equal inputs give equal bits. See the package for the letters of shapes, and
`accl.kernels.triton.attention` for disentangled attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.attention import PackedSequences, Tiles
from accl.kernels.triton.dropout import drop, keep_mask, mask_constants

LOG2_E = tl.constexpr(1.4426950408889634)
HEAD_SIZES = (16, 32, 64, 128)
# For operands of 16 bits, and of 32 bits, whose products are not computed by tensor cores.
FORWARD = {2: Tiles(64, 64, 4, 2), 4: Tiles(32, 32, 4, 1)}
BACKWARD_QUERIES = {2: Tiles(64, 64, 4, 2), 4: Tiles(32, 32, 4, 1)}
BACKWARD_KEYS = {2: Tiles(64, 64, 4, 2), 4: Tiles(32, 32, 4, 1)}


@dataclass(frozen=True)
class DistanceBias:
    """Bias of the scores that depends on head and distance alone, and is learned for buckets of distances.

    Attributes:
        values: H x 2R, fp32; bias for the distance d = i - j at index d + R. No sequence is longer than R.
        bucket: 2R, int32; bucket that each distance belongs to. buckets: number of buckets.
    """

    values: Tensor
    bucket: Tensor
    buckets: int


@dataclass(frozen=True)
class Attended:
    """Result of `attend`, with what its backward pass needs.

    Attributes:
        out: T x H x Dh, contiguous, in the type of the queries; the weighted sum of values for every token.
        lse: H x T, fp32; log2 of the softmax's denominator.
    """

    out: Tensor
    lse: Tensor


@triton.jit
def _rows(ptr, t, head, row_stride, head_stride, DH: tl.constexpr):
    """Return pointers to the channels of one head of the tokens t; [len(t), Dh]."""
    return ptr + head * head_stride + t[:, None] * row_stride + tl.arange(0, DH)[None, :]


@triton.jit
def _range(start, end, first_token, BLOCK: tl.constexpr, WINDOW: tl.constexpr):
    """Return first and last + 1 of the tokens that any of a block's tokens can see; start, end: their sequences."""
    first, last = tl.min(start, 0), tl.max(end, 0)
    if WINDOW >= 0:
        first = tl.maximum(first, first_token - WINDOW)
        last = tl.minimum(last, first_token + BLOCK + WINDOW)
    return first, last


@triton.jit
def _visible(own, other, start, end, WINDOW: tl.constexpr):
    """Return which tokens ``other`` each of the tokens ``own`` sees; [len(own), len(other)], boolean."""
    visible = (other[None, :] >= start[:, None]) & (other[None, :] < end[:, None])
    if WINDOW >= 0:
        distance = own[:, None] - other[None, :]
        visible &= (distance <= WINDOW) & (distance >= -WINDOW)
    return visible


@triton.jit
def _log2_scores(product, distance, visible, bias_ptr, head, scale, R: tl.constexpr):
    """Return scores times log2(e), in the shape of ``product`` = q_i . k_j; -inf where not visible.

    bias: H x 2R, read where R is not 0.
    """
    score = product * (scale * LOG2_E)
    if R > 0:
        bias = tl.load(bias_ptr + head * (2 * R) + distance + R, mask=visible, other=0.0)
        score += bias * LOG2_E
    return tl.where(visible, score, -float("inf"))


@triton.jit(do_not_specialize=["dropout_offset"])
def _forward(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, bias_ptr, start_ptr, end_ptr, seed_ptr, dropout_offset, T, scale,
    q_row, q_head, k_row, k_head, v_row, v_head,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, WINDOW: tl.constexpr, THRESHOLD: tl.constexpr,
    KEEP_PROB: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """out_i = sum_j dropout(p_ij) v_j with online softmax; a program owns BLOCK queries of one head.

    q, k, v: T x H x Dh of one type, with strides of rows and heads; out: contiguous, of the same type. lse: H x T.
    """
    head = tl.program_id(0)
    i_start = tl.program_id(1) * BLOCK
    i = i_start + tl.arange(0, BLOCK)
    query = tl.load(_rows(q_ptr, i, head, q_row, q_head, DH))
    start, end = tl.load(start_ptr + i), tl.load(end_ptr + i)
    row_max = tl.full([BLOCK], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK], tl.float32)
    out = tl.zeros([BLOCK, DH], tl.float32)
    first, last = _range(start, end, i_start, BLOCK, WINDOW)
    for block in range(first, last, INNER):
        j = block + tl.arange(0, INNER)
        valid = (j < last)[:, None]
        key = tl.load(_rows(k_ptr, j, head, k_row, k_head, DH), mask=valid, other=0.0)
        value = tl.load(_rows(v_ptr, j, head, v_row, v_head, DH), mask=valid, other=0.0)
        product = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        visible = _visible(i, j, start, end, WINDOW)
        score = _log2_scores(product, i[:, None] - j[None, :], visible, bias_ptr, head, scale, R)
        new_max = tl.maximum(row_max, tl.max(score, 1))
        # A row that sees none of these keys, and saw none of those before, has no score yet.
        safe_max = tl.where(new_max == -float("inf"), 0.0, new_max)
        weight = tl.exp2(score - safe_max[:, None])
        rescale = tl.exp2(row_max - safe_max)
        row_sum = row_sum * rescale + tl.sum(weight, 1)
        element = (head * T + i[:, None]) * T + j[None, :]
        weight = drop(weight, seed_ptr, dropout_offset, element, THRESHOLD, KEEP_PROB)
        out = out * rescale[:, None] + tl.dot(weight.to(value.dtype), value, input_precision=PRECISION)
        row_max = new_max
    tl.store(_rows(out_ptr, i, head, H * DH, DH, DH), (out / row_sum[:, None]).to(out_ptr.dtype.element_ty))
    tl.store(lse_ptr + head * T + i, row_max + tl.log2(row_sum))


@triton.jit
def _bucket_sums(dscore, first_distance, bucket_ptr, R: tl.constexpr, BUCKETS: tl.constexpr):
    """Return the sums of a tile over all elements whose distances belong to each bucket; [BUCKETS] in fp32.

    dscore: [BLOCK, INNER], fp32; element (m, n) has the distance ``first_distance`` + m - n. bucket: 2R.
    """
    BLOCK: tl.constexpr = dscore.shape[0]
    INNER: tl.constexpr = dscore.shape[1]
    # Along its diagonals first, each of which is of one distance.
    m, x = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK + INNER)[None, :]
    n = m - x + INNER - 1
    inside = (n >= 0) & (n < INNER)
    skewed = tl.gather(dscore, tl.where(inside, n, 0), 1)
    diagonal = tl.sum(tl.where(inside, skewed, 0.0), 0)
    index = first_distance - (INNER - 1) + tl.arange(0, BLOCK + INNER) + R
    bucket = tl.load(bucket_ptr + index, mask=(index >= 0) & (index < 2 * R), other=-1)
    chosen = bucket[None, :] == tl.arange(0, BUCKETS)[:, None]
    return tl.sum(tl.where(chosen, diagonal[None, :], 0.0), 1)


@triton.jit(do_not_specialize=["dropout_offset"])
def _backward_queries(
    q_ptr, k_ptr, v_ptr, out_ptr, dout_ptr, lse_ptr, delta_ptr, dq_ptr, bias_ptr, bucket_ptr, dbias_ptr, start_ptr,
    end_ptr, seed_ptr, dropout_offset, T, scale,
    q_row, q_head, k_row, k_head, v_row, v_head, dout_row, dout_head, dq_row, dq_head,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, BUCKETS: tl.constexpr, WINDOW: tl.constexpr,
    THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """Gradients dq_i, and partial sums of dbias, of the module's formula; a program owns BLOCK queries of one head.

    Shapes and types as in `_forward`; dout and dq like q. Stores delta_i, H x T in fp32, and, where R is not 0, a row
    of dbias, P x H x BUCKETS in fp32.
    """
    head = tl.program_id(0)
    i_start = tl.program_id(1) * BLOCK
    i = i_start + tl.arange(0, BLOCK)
    query = tl.load(_rows(q_ptr, i, head, q_row, q_head, DH))
    dout = tl.load(_rows(dout_ptr, i, head, dout_row, dout_head, DH))
    out = tl.load(_rows(out_ptr, i, head, H * DH, DH, DH))
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    tl.store(delta_ptr + head * T + i, delta)
    lse = tl.load(lse_ptr + head * T + i)
    start, end = tl.load(start_ptr + i), tl.load(end_ptr + i)
    dquery = tl.zeros([BLOCK, DH], tl.float32)
    dbias = tl.zeros([BUCKETS], tl.float32)
    first, last = _range(start, end, i_start, BLOCK, WINDOW)
    for block in range(first, last, INNER):
        j = block + tl.arange(0, INNER)
        valid = (j < last)[:, None]
        key = tl.load(_rows(k_ptr, j, head, k_row, k_head, DH), mask=valid, other=0.0)
        value = tl.load(_rows(v_ptr, j, head, v_row, v_head, DH), mask=valid, other=0.0)
        product = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        visible = _visible(i, j, start, end, WINDOW)
        score = _log2_scores(product, i[:, None] - j[None, :], visible, bias_ptr, head, scale, R)
        weight = tl.exp2(score - lse[:, None])
        dweight = tl.dot(dout, tl.trans(value), input_precision=PRECISION)
        element = (head * T + i[:, None]) * T + j[None, :]
        dweight = drop(dweight, seed_ptr, dropout_offset, element, THRESHOLD, KEEP_PROB)
        dscore = weight * (dweight - delta[:, None])
        dquery += tl.dot(dscore.to(key.dtype), key, input_precision=PRECISION)
        if R > 0:
            dbias += _bucket_sums(dscore, i_start - block, bucket_ptr, R, BUCKETS)
    tl.store(_rows(dq_ptr, i, head, dq_row, dq_head, DH), (dquery * scale).to(dq_ptr.dtype.element_ty))
    if R > 0:
        tl.store(dbias_ptr + (tl.program_id(1) * H + head) * BUCKETS + tl.arange(0, BUCKETS), dbias)


@triton.jit(do_not_specialize=["dropout_offset"])
def _backward_keys(
    q_ptr, k_ptr, v_ptr, dout_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, bias_ptr, start_ptr, end_ptr, seed_ptr,
    dropout_offset, T, scale,
    q_row, q_head, k_row, k_head, v_row, v_head, dout_row, dout_head, dk_row, dk_head, dv_row, dv_head,
    DH: tl.constexpr, R: tl.constexpr, WINDOW: tl.constexpr, THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """Gradients dk_j and dv_j of the module's formula; a program owns BLOCK keys of one head.

    Shapes and types as in `_forward`; dk and dv like k and v. Reads what `_backward_queries` stored in delta. Tiles of
    scores and weights are transposed: keys by queries.
    """
    head = tl.program_id(0)
    j_start = tl.program_id(1) * BLOCK
    j = j_start + tl.arange(0, BLOCK)
    key = tl.load(_rows(k_ptr, j, head, k_row, k_head, DH))
    value = tl.load(_rows(v_ptr, j, head, v_row, v_head, DH))
    start, end = tl.load(start_ptr + j), tl.load(end_ptr + j)
    dkey = tl.zeros([BLOCK, DH], tl.float32)
    dvalue = tl.zeros([BLOCK, DH], tl.float32)
    first, last = _range(start, end, j_start, BLOCK, WINDOW)
    for block in range(first, last, INNER):
        i = block + tl.arange(0, INNER)
        valid = i < last
        query = tl.load(_rows(q_ptr, i, head, q_row, q_head, DH), mask=valid[:, None], other=0.0)
        dout = tl.load(_rows(dout_ptr, i, head, dout_row, dout_head, DH), mask=valid[:, None], other=0.0)
        lse = tl.load(lse_ptr + head * T + i, mask=valid, other=0.0)
        delta = tl.load(delta_ptr + head * T + i, mask=valid, other=0.0)
        product = tl.dot(key, tl.trans(query), input_precision=PRECISION)
        # Whether j sees i is whether i sees j.
        visible = _visible(j, i, start, end, WINDOW)
        score = _log2_scores(product, i[None, :] - j[:, None], visible, bias_ptr, head, scale, R)
        weight = tl.exp2(score - lse[None, :])
        dweight = tl.dot(value, tl.trans(dout), input_precision=PRECISION)
        dropped = weight
        if THRESHOLD > 0:
            element = (head * T + i[None, :]) * T + j[:, None]
            keep = keep_mask(seed_ptr, dropout_offset, element, THRESHOLD)
            dweight = tl.where(keep, dweight * (1 / KEEP_PROB), 0.0)
            dropped = tl.where(keep, weight * (1 / KEEP_PROB), 0.0)
        dvalue += tl.dot(dropped.to(dout.dtype), dout, input_precision=PRECISION)
        dscore = weight * (dweight - delta[None, :])
        dkey += tl.dot(dscore.to(query.dtype), query, input_precision=PRECISION)
    tl.store(_rows(dk_ptr, j, head, dk_row, dk_head, DH), (dkey * scale).to(dk_ptr.dtype.element_ty))
    tl.store(_rows(dv_ptr, j, head, dv_row, dv_head, DH), dvalue.to(dv_ptr.dtype.element_ty))


def _launch(
    kernel,
    tiles: Tiles,
    tensors: tuple[Tensor | None, ...],
    strided: tuple[Tensor, ...],
    sequences: PackedSequences,
    *,
    scale: float,
    dropout_offset: int,
    dropout: float,
    window: int | None,
    bias: DistanceBias | None,
    constants: dict[str, int],
) -> None:
    """Launch a kernel over all heads and blocks of tokens.

    Args:
        tensors: all before the sequences' pointers. strided: those of them whose strides the kernel takes, q first.
    """
    query = strided[0]
    tokens, heads, head_size = query.shape
    assert tokens % 128 == 0
    assert head_size in HEAD_SIZES
    assert all(tensor.stride(2) == 1 for tensor in strided), "channels are not contiguous"
    kernel[(heads, tokens // tiles.block)](
        *tensors,
        sequences.start_T,
        sequences.end_T,
        sequences.seed,
        dropout_offset,
        tokens,
        scale,
        *(stride for tensor in strided for stride in tensor.stride()[:2]),
        DH=head_size,
        R=0 if bias is None else bias.values.shape[1] // 2,
        WINDOW=-1 if window is None else window,
        **mask_constants(dropout),
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        BLOCK=tiles.block,
        INNER=tiles.inner_block,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        **constants,
    )


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sequences: PackedSequences,
    *,
    scale: float,
    dropout_offset: int,
    dropout: float,
    window: int | None = None,
    bias: DistanceBias | None = None,
) -> Attended:
    """Compute attention with the scores of this module's formula.

    Args:
        q, k, v: T x H x Dh of one type, fp32 or of 16 bits, with contiguous channels and any other strides; T is a
            multiple of 128, Dh one of HEAD_SIZES.
        scale: factor of the products, usually Dh^-0.5.
        dropout_offset, dropout: of the attention weights, as in `accl.kernels.triton.pointwise.add_norm`.
        window: the distance |i - j| up to which tokens see each other; None for all of a sequence.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)
    tensors = (q, k, v, out, lse, None if bias is None else bias.values)
    _launch(
        _forward, FORWARD[q.element_size()], tensors, (q, k, v), sequences, scale=scale,
        dropout_offset=dropout_offset, dropout=dropout, window=window, bias=bias, constants={"H": q.shape[1]},
    )  # fmt: skip
    return Attended(out, lse)


def bias_partials(tokens: int, dtype: torch.dtype) -> int:
    """Return P, the number of partial sums that `attend_backward` makes of the bias's gradient for T tokens."""
    return tokens // BACKWARD_QUERIES[dtype.itemsize].block


def attend_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attended: Attended,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    sequences: PackedSequences,
    *,
    scale: float,
    dropout_offset: int,
    dropout: float,
    window: int | None = None,
    bias: DistanceBias | None = None,
    dbias: Tensor | None = None,
) -> None:
    """Write the gradients of `attend`.

    Args:
        dout: T x H x Dh with contiguous channels. attended: as `attend` returned it. The others: as given to it.
        dq, dk, dv: like ``q``, ``k`` and ``v``, with contiguous channels and any other strides.
        dbias: P x H x buckets in fp32, contiguous, see `bias_partials`; partial sums, whose sum over P is the gradient
            of each bucket's bias. None without a bias.
    """
    options: dict[str, Any] = {
        "scale": scale,
        "dropout_offset": dropout_offset,
        "dropout": dropout,
        "window": window,
        "bias": bias,
    }
    delta = torch.empty_like(attended.lse)
    values, bucket, buckets = (None, None, 1) if bias is None else (bias.values, bias.bucket, bias.buckets)
    assert buckets & (buckets - 1) == 0, "the number of buckets is a power of two"
    size = q.element_size()
    queries = (q, k, v, attended.out, dout, attended.lse, delta, dq, values, bucket, dbias)
    constants = {"H": q.shape[1], "BUCKETS": buckets}
    _launch(
        _backward_queries,
        BACKWARD_QUERIES[size],
        queries,
        (q, k, v, dout, dq),
        sequences,
        constants=constants,
        **options,
    )
    keys = (q, k, v, dout, attended.lse, delta, dk, dv, values)
    _launch(_backward_keys, BACKWARD_KEYS[size], keys, (q, k, v, dout, dk, dv), sequences, constants={}, **options)
