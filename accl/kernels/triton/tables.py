"""Products of tokens and position table, at the distances that attention looks up: Triton kernels.

Token t of a sequence that holds the tokens from low to before high meets, as a query, the distances t - j, and as a key
the distances i - t, of its partners in [low, high). So of the 2R distances of a table H x T x 2R a row needs as many as
its sequence has tokens, side by side: the band. Outside of it nothing is to be relied on.

The position table has a row for each bucket of distances; its projections lie behind the T tokens' rows of qkv. Two
kinds: 0 is c2p, queries of tokens by keys of the table; 1 is p2c, keys of tokens by queries of the table.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.attention import Stream
from accl.kernels.triton.positions import Reach

# Tokens and distances of a tile.
TOKENS, DISTANCES = 64, 64
# Parts of a stream that are summed up beside each other, and the least tokens of one.
PARTS, PART_TOKENS = 8, 512


@triton.jit
def _band(t, start_ptr, end_ptr, kind, REACH: tl.constexpr):
    """First and last place in the table that each token needs."""
    low, high = tl.load(start_ptr + t), tl.load(end_ptr + t)
    first = tl.where(kind == 0, t - high + 1, low - t)
    last = tl.where(kind == 0, t - low, high - 1 - t)
    return first + REACH, last + REACH


@triton.jit
def _look_up(
    qkv_ptr, row_ptr, start_ptr, end_ptr, out_ptr, T,
    H: tl.constexpr, D: tl.constexpr, REACH: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    OTHERS: tl.constexpr,
):  # fmt: skip
    head, kind = tl.program_id(0), tl.program_id(2)
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = head * D + tl.arange(0, D)
    first, last = _band(t, start_ptr, end_ptr, kind, REACH)
    own = tl.load(qkv_ptr + t[:, None] * (3 * H * D) + kind * (H * D) + d[None, :])
    out_ptr += ((kind * H + head).to(tl.int64) * T) * (2 * REACH)
    for at in range(tl.min(first, 0) // OTHERS * OTHERS, tl.max(last, 0) + 1, OTHERS):
        x = at + tl.arange(0, OTHERS)
        row = T + tl.load(row_ptr + x)
        table = tl.load(qkv_ptr + row[:, None] * (3 * H * D) + (1 - kind) * (H * D) + d[None, :])
        product = tl.dot(own, tl.trans(table), input_precision=PRECISION)
        tl.store(out_ptr + t[:, None] * (2 * REACH) + x[None, :], product.to(out_ptr.dtype.element_ty))


@triton.jit
def _to_tokens(
    dtable_ptr, qkv_ptr, row_ptr, start_ptr, end_ptr, dqkv_ptr, T,
    H: tl.constexpr, D: tl.constexpr, REACH: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    OTHERS: tl.constexpr,
):  # fmt: skip
    head, kind = tl.program_id(0), tl.program_id(2)
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = head * D + tl.arange(0, D)
    first, last = _band(t, start_ptr, end_ptr, kind, REACH)
    place = dqkv_ptr + t[:, None] * (3 * H * D) + kind * (H * D) + d[None, :]
    total = tl.load(place).to(tl.float32)
    dtable_ptr += ((kind * H + head).to(tl.int64) * T) * (2 * REACH)
    for at in range(tl.min(first, 0) // OTHERS * OTHERS, tl.max(last, 0) + 1, OTHERS):
        x = at + tl.arange(0, OTHERS)
        row = T + tl.load(row_ptr + x)
        table = tl.load(qkv_ptr + row[:, None] * (3 * H * D) + (1 - kind) * (H * D) + d[None, :])
        met = (x[None, :] >= first[:, None]) & (x[None, :] <= last[:, None])
        gradient = tl.load(dtable_ptr + t[:, None] * (2 * REACH) + x[None, :])
        gradient = tl.where(met, gradient, 0.0)
        total += tl.dot(gradient, table, input_precision=PRECISION)
    tl.store(place, total.to(dqkv_ptr.dtype.element_ty))


@triton.jit
def _to_distances(
    dtable_ptr, qkv_ptr, start_ptr, end_ptr, out_ptr, T, PART: tl.constexpr,
    H: tl.constexpr, D: tl.constexpr, REACH: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    OTHERS: tl.constexpr,
):  # fmt: skip
    head, kind, part = tl.program_id(0), tl.program_id(2) % 2, tl.program_id(2) // 2
    at = tl.program_id(1) * OTHERS
    x = at + tl.arange(0, OTHERS)
    d = head * D + tl.arange(0, D)
    dtable_ptr += ((kind * H + head).to(tl.int64) * T) * (2 * REACH)
    total = tl.zeros([OTHERS, D], tl.float32)
    # Sequences come longest first: those that reach as far as these distances are the first ones.
    nearest = tl.maximum(tl.maximum(at - REACH, REACH - at - OTHERS + 1), 0)
    begin = part * PART
    around = begin + tl.arange(0, PART)
    length = tl.load(end_ptr + around, mask=around < T, other=0) - tl.load(start_ptr + around, mask=around < T, other=0)
    end = begin + tl.sum((length > nearest).to(tl.int32), 0)
    for block in range(begin, end, BLOCK):
        t = block + tl.arange(0, BLOCK)
        first, last = _band(t, start_ptr, end_ptr, kind, REACH)
        own = tl.load(qkv_ptr + t[:, None] * (3 * H * D) + kind * (H * D) + d[None, :])
        met = (x[None, :] >= first[:, None]) & (x[None, :] <= last[:, None])
        gradient = tl.where(met, tl.load(dtable_ptr + t[:, None] * (2 * REACH) + x[None, :]), 0.0)
        total += tl.dot(tl.trans(gradient), own, input_precision=PRECISION)
    # The keys' gradient comes by the queries' table, and the other way round.
    place = ((part * 2 + 1 - kind) * (2 * REACH) + x[:, None]) * (H * D) + d[None, :]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty))


@triton.jit(do_not_specialize=["parts"])
def _collect(
    parts_ptr, first_ptr, end_ptr, dqkv_ptr, T, parts,
    WIDTH: tl.constexpr, DISTANCES: tl.constexpr, BLOCK: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    row, kind = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, BLOCK)
    total = tl.zeros([MOST, BLOCK], tl.float32)
    x = tl.load(first_ptr + row) + tl.arange(0, MOST)
    inside = (x < tl.load(end_ptr + row))[:, None] & (d < WIDTH)[None, :] & (kind < 2)
    for part in range(parts):
        place = ((part * 2 + kind) * DISTANCES + x[:, None]) * WIDTH + d[None, :]
        total += tl.load(parts_ptr + place, mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(total, 0)
    place = dqkv_ptr + (T + row).to(tl.int64) * (3 * WIDTH) + kind * WIDTH + d
    tl.store(place, total.to(dqkv_ptr.dtype.element_ty), mask=d < WIDTH)


def _tiles(stream: Stream, qkv: Tensor, heads: int, reach: Reach) -> dict[str, int | str]:
    return {
        "T": len(stream.start_T),
        "H": heads,
        "D": qkv.shape[1] // 3 // heads,
        "REACH": len(reach.row) // 2,
        "PRECISION": "ieee" if qkv.dtype == torch.float32 else "tf32",
        "BLOCK": TOKENS,
        "OTHERS": DISTANCES,
        "num_warps": 4,
    }


def look_up(qkv: Tensor, stream: Stream, reach: Reach, heads: int) -> Tensor:
    """c2p and p2c, 2 x H x T x 2R, in the band.

    Args:
        qkv: rows of joined queries, keys and values, (T + W) x (3 H Dh); T is a multiple of 64, as is 2R.
    """
    tokens = len(stream.start_T)
    out = qkv.new_empty(2, heads, tokens, len(reach.row))
    _look_up[(heads, tokens // TOKENS, 2)](
        qkv, reach.row, stream.start_T, stream.end_T, out, **_tiles(stream, qkv, heads, reach)
    )
    return out


def look_up_to_tokens(dtable: Tensor, qkv: Tensor, stream: Stream, reach: Reach, dqkv: Tensor) -> None:
    """The part of the gradient of `look_up` that goes to the tokens, added to their queries and keys in ``dqkv``.

    Args:
        dtable: gradient of its result, read in the band.
    """
    heads = dtable.shape[1]
    _to_tokens[(heads, len(stream.start_T) // TOKENS, 2)](
        dtable, qkv, reach.row, stream.start_T, stream.end_T, dqkv, **_tiles(stream, qkv, heads, reach)
    )


def part_of(tokens: int) -> int:
    """Tokens of a part of a stream, see `PARTS`."""
    return max(PART_TOKENS, int(triton.next_power_of_2(triton.cdiv(tokens, PARTS))))


def look_up_to_table(dtable: Tensor, qkv: Tensor, stream: Stream, reach: Reach, dqkv: Tensor) -> None:
    """The part that goes to the position table, written to its rows of ``dqkv``; the table's values get 0.

    Args:
        stream: the longest sequence comes first, and so on.
    """
    heads, tokens, distances = dtable.shape[1:]
    width, rows = qkv.shape[1] // 3, len(reach.first)
    part = part_of(tokens)
    parts = qkv.new_empty(triton.cdiv(tokens, part), 2, distances, width)
    _to_distances[(heads, distances // DISTANCES, 2 * len(parts))](
        dtable, qkv, stream.start_T, stream.end_T, parts, PART=part,
        **_tiles(stream, qkv, heads, reach),
    )  # fmt: skip
    _collect[(rows, 3)](
        parts, reach.first, reach.end, dqkv, tokens, len(parts),
        WIDTH=width, DISTANCES=distances, BLOCK=triton.next_power_of_2(width), MOST=reach.most, num_warps=4,
    )  # fmt: skip
