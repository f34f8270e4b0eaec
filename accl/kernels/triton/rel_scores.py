"""Relative scores, the products of tokens with the position table that attention needs, as Triton kernels.

    c2p[h, t, x] = q_t . pk_b(-offset)        p2c[h, t, x] = k_t . pq_b(offset)        with offset = x - R

where b(d) is the row of the position table for the relative distance d of a query from a key. Its projections pq and pk
lie behind the T rows of tokens in qkv. Results are tables 2 x H x T x 2R; kind 0 is c2p, kind 1 is p2c. A column is for
an offset: that of a partner p of token t is p - t. As a query t has the distance t - p from it, as a key p - t.

In a sequence with the tokens [start, end), t meets the offsets from start - t to end - 1 - t. Of the 2R elements of its
row only as many as the sequence has tokens are needed, side by side: the valid range. Outside of it values are
undefined.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.attention import PackedSequences, head_rows
from accl.kernels.triton.positions import RelativePositions

# Tokens and offsets of a tile.
TOKENS, OFFSETS = 64, 64
# Partitions of the tokens that `grad_to_positions` sums in parallel, at most, and the least tokens of one.
MAX_PARTITIONS, MIN_PARTITION_TOKENS = 8, 512


@triton.jit
def _valid_range(t, start_ptr, end_ptr, R: tl.constexpr):
    """Return first and last index of a row's valid range for each token t."""
    return tl.load(start_ptr + t) - t + R, tl.load(end_ptr + t) - 1 - t + R


@triton.jit
def _distance_index(x, kind, R: tl.constexpr):
    """Return the index d + R of the distance d that tokens have at the offsets with the indices x.

    No pair of tokens has the offset -R, for which the result is in bounds.
    """
    return tl.where(kind == 0, 2 * R - x, x) % (2 * R)


@triton.jit
def _position_rows(qkv_ptr, row_ptr, x, kind, head, T, H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr):
    """Return pk (kind 0) or pq (kind 1) for the indices x of offsets; [len(x), Dh]."""
    row = tl.load(row_ptr + _distance_index(x, kind, R))
    return tl.load(head_rows(qkv_ptr, T + row, 1 - kind, head, 3, H, DH))


@triton.jit
def _load_gradient(drel_ptr, t, x, first, last, R: tl.constexpr):
    """Return the gradient to the relative scores (t, x), [len(t), len(x)]; 0 outside of the valid range."""
    valid = (x[None, :] >= first[:, None]) & (x[None, :] <= last[:, None])
    return tl.where(valid, tl.load(drel_ptr + t[:, None] * (2 * R) + x[None, :]), 0.0)


@triton.jit
def _rel_scores(
    qkv_ptr, row_ptr, start_ptr, end_ptr, out_ptr, T,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """out[kind, head, t, x] = own_t . position_x with the queries or keys of tokens, in the valid range.

    qkv: (T + W) x 3 x H x Dh, out: 2 x H x T x 2R, of one type; row: 2R, int32. A program owns BLOCK tokens of one head
    and kind.
    """
    head, kind = tl.program_id(0), tl.program_id(2)
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first, last = _valid_range(t, start_ptr, end_ptr, R)
    own = tl.load(head_rows(qkv_ptr, t, kind, head, 3, H, DH))
    out_ptr += ((kind * H + head).to(tl.int64) * T) * (2 * R)
    for block in range(tl.min(first, 0) // INNER * INNER, tl.max(last, 0) + 1, INNER):
        x = block + tl.arange(0, INNER)
        position = _position_rows(qkv_ptr, row_ptr, x, kind, head, T, H, DH, R)
        product = tl.dot(own, tl.trans(position), input_precision=PRECISION)
        tl.store(out_ptr + t[:, None] * (2 * R) + x[None, :], product.to(out_ptr.dtype.element_ty))


@triton.jit
def _grad_to_tokens(
    drel_ptr, qkv_ptr, row_ptr, start_ptr, end_ptr, dqkv_ptr, T,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """dqkv[t, kind] += sum_x drel[kind, head, t, x] position_x, over the valid range.

    Shapes and types as in `_rel_scores`; drel like its out, dqkv like qkv. A program owns BLOCK tokens of one head and
    kind.
    """
    head, kind = tl.program_id(0), tl.program_id(2)
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    first, last = _valid_range(t, start_ptr, end_ptr, R)
    dqkv_ptrs = head_rows(dqkv_ptr, t, kind, head, 3, H, DH)
    total = tl.load(dqkv_ptrs).to(tl.float32)
    drel_ptr += ((kind * H + head).to(tl.int64) * T) * (2 * R)
    for block in range(tl.min(first, 0) // INNER * INNER, tl.max(last, 0) + 1, INNER):
        x = block + tl.arange(0, INNER)
        position = _position_rows(qkv_ptr, row_ptr, x, kind, head, T, H, DH, R)
        gradient = _load_gradient(drel_ptr, t, x, first, last, R)
        total += tl.dot(gradient, position, input_precision=PRECISION)
    tl.store(dqkv_ptrs, total.to(dqkv_ptr.dtype.element_ty))


@triton.jit
def _grad_to_distances(
    drel_ptr, qkv_ptr, start_ptr, end_ptr, out_ptr, T, PARTITION: tl.constexpr,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """out[p, 1 - kind, d + R] = sum_t drel[kind, head, t, x] own_t, over the tokens of partition p that x is valid for.

    Shapes and types as in `_rel_scores`; drel like its out. out: P x 2 x 2R x H x Dh, of the same type: the gradient to
    the table's queries (from p2c), then to its keys (from c2p), by the distance d of the offset. A program owns INNER
    offsets of one head, kind and partition, and reads BLOCK tokens at a time.
    """
    head, kind, partition = tl.program_id(0), tl.program_id(2) % 2, tl.program_id(2) // 2
    x_start = tl.program_id(1) * INNER
    x = x_start + tl.arange(0, INNER)
    drel_ptr += ((kind * H + head).to(tl.int64) * T) * (2 * R)
    total = tl.zeros([INNER, DH], tl.float32)
    # Sequences come longest first, so those that are long enough for these offsets are the first ones.
    nearest = tl.maximum(tl.maximum(x_start - R, R - x_start - INNER + 1), 0)
    begin = partition * PARTITION
    token = begin + tl.arange(0, PARTITION)
    length = tl.load(end_ptr + token, mask=token < T, other=0) - tl.load(start_ptr + token, mask=token < T, other=0)
    end = begin + tl.sum((length > nearest).to(tl.int32), 0)
    for block in range(begin, end, BLOCK):
        t = block + tl.arange(0, BLOCK)
        first, last = _valid_range(t, start_ptr, end_ptr, R)
        own = tl.load(head_rows(qkv_ptr, t, kind, head, 3, H, DH))
        gradient = _load_gradient(drel_ptr, t, x, first, last, R)
        total += tl.dot(tl.trans(gradient), own, input_precision=PRECISION)
    row = (partition * 2 + 1 - kind) * (2 * R) + _distance_index(x, kind, R)
    tl.store(head_rows(out_ptr, row, 0, head, 1, H, DH), total.to(out_ptr.dtype.element_ty))


@triton.jit(do_not_specialize=["partitions"])
def _reduce_partials(
    partial_ptr, first_ptr, end_ptr, dqkv_ptr, T, partitions,
    WIDTH: tl.constexpr, DISTANCES: tl.constexpr, BLOCK: tl.constexpr, MAX_COUNT: tl.constexpr,
):  # fmt: skip
    """dqkv[T + row, part] = sum over partitions and x in [first[row], end[row]) of partial[:, part, x]; 0 for part 2.

    partial: P x 2 x DISTANCES x WIDTH, dqkv: (T + W) x 3 x WIDTH, of one type; first, end: W, int32. A program owns one
    row of the position table and one of its queries, keys and values.
    """
    row, part = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, BLOCK)
    total = tl.zeros([MAX_COUNT, BLOCK], tl.float32)
    x = tl.load(first_ptr + row) + tl.arange(0, MAX_COUNT)
    mask = (x < tl.load(end_ptr + row))[:, None] & (d < WIDTH)[None, :] & (part < 2)
    for partition in range(partitions):
        index = ((partition * 2 + part) * DISTANCES + x[:, None]) * WIDTH + d[None, :]
        total += tl.load(partial_ptr + index, mask=mask, other=0.0).to(tl.float32)
    total = tl.sum(total, 0)
    out_ptrs = dqkv_ptr + (T + row).to(tl.int64) * (3 * WIDTH) + part * WIDTH + d
    tl.store(out_ptrs, total.to(dqkv_ptr.dtype.element_ty), mask=d < WIDTH)


def _constants(
    sequences: PackedSequences, qkv: Tensor, heads: int, positions: RelativePositions
) -> dict[str, int | str]:
    """Return the arguments that the first three kernels share."""
    return {
        "T": len(sequences.start_T),
        "H": heads,
        "DH": qkv.shape[1] // 3 // heads,
        "R": len(positions.row) // 2,
        "PRECISION": "ieee" if qkv.dtype == torch.float32 else "tf32",
        "BLOCK": TOKENS,
        "INNER": OFFSETS,
        "num_warps": 4,
    }


def rel_scores(qkv: Tensor, sequences: PackedSequences, positions: RelativePositions, heads: int) -> Tensor:
    """Return c2p and p2c, 2 x H x T x 2R in the type of ``qkv``, in the valid range.

    Args:
        qkv: (T + W) x 3 D; rows of queries, keys and values of the tokens, and of the position table behind them.
            T and 2R are multiples of 64.
    """
    tokens = len(sequences.start_T)
    out = qkv.new_empty(2, heads, tokens, len(positions.row))
    _rel_scores[(heads, tokens // TOKENS, 2)](
        qkv, positions.row, sequences.start_T, sequences.end_T, out, **_constants(sequences, qkv, heads, positions)
    )
    return out


def grad_to_tokens(
    drel_scores: Tensor, qkv: Tensor, sequences: PackedSequences, positions: RelativePositions, dqkv: Tensor
) -> None:
    """Add the gradient of `rel_scores` to the tokens' queries and keys to ``dqkv``, (T + W) x 3 D.

    Args:
        drel_scores: 2 x H x T x 2R; gradient to the result of `rel_scores`, read in the valid range.
    """
    heads = drel_scores.shape[1]
    _grad_to_tokens[(heads, len(sequences.start_T) // TOKENS, 2)](
        drel_scores, qkv, positions.row, sequences.start_T, sequences.end_T, dqkv,
        **_constants(sequences, qkv, heads, positions),
    )  # fmt: skip


def partition_tokens(tokens: int) -> int:
    """Return the number of tokens of a partition of T tokens; kernels are compiled for it."""
    return max(MIN_PARTITION_TOKENS, int(triton.next_power_of_2(triton.cdiv(tokens, MAX_PARTITIONS))))


def grad_to_positions(
    drel_scores: Tensor, qkv: Tensor, sequences: PackedSequences, positions: RelativePositions, dqkv: Tensor
) -> None:
    """Write the gradient of `rel_scores` to the position table to its rows of ``dqkv``; its values get 0.

    Args:
        drel_scores: as in `grad_to_tokens`. sequences: sorted by length, the longest first.
    """
    heads, tokens, distances = drel_scores.shape[1:]
    width, rows = qkv.shape[1] // 3, len(positions.first)
    size = partition_tokens(tokens)
    partial = qkv.new_empty(triton.cdiv(tokens, size), 2, distances, width)
    _grad_to_distances[(heads, distances // OFFSETS, 2 * len(partial))](
        drel_scores, qkv, sequences.start_T, sequences.end_T, partial, PARTITION=size,
        **_constants(sequences, qkv, heads, positions),
    )  # fmt: skip
    _reduce_partials[(rows, 3)](
        partial, positions.first, positions.end, dqkv, tokens, len(partial),
        WIDTH=width, DISTANCES=distances, BLOCK=triton.next_power_of_2(width), MAX_COUNT=positions.max_count,
        num_warps=4,
    )  # fmt: skip
