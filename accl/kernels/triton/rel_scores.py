"""Relative scores, the products of tokens with the position table that attention needs, as Triton kernels.

    c2p[h, t, y] = q_t . pk_b(-offset)        p2c[h, t, y] = k_t . pq_b(offset)

where offset is p - t for the partner p that token t has in column y, see `accl.kernels.triton.tables`, and b(d) is the
row of the position table for the relative distance d of a query from a key. Its projections pq and pk lie behind the T
rows of tokens in qkv. Results are tables 2 x H x T x Y; kind 0 is c2p, kind 1 is p2c. As a query t has the distance
t - p from its partner p, as a key p - t.

Programs take tokens of one residue, 8 apart, which have the same offset in a column.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.attention import PackedSequences, head_rows
from accl.kernels.triton.positions import RelativePositions
from accl.kernels.triton.tables import (
    ALIGN,
    GROUP,
    RESIDUES,
    aligned_bounds,
    between,
    first_column,
    max_distance_of,
    table_columns,
)

# Tokens and columns of a tile.
TOKENS, COLUMNS = 64, 64
# The number of tokens of a residue is rounded up to a power of two, and to this, in the kernel compiled for it.
LEAST_TOKENS = 512


@triton.jit
def _tokens_of_program(BLOCK: tl.constexpr):
    """Return BLOCK tokens of one residue, and the residue."""
    tile = tl.program_id(0)
    residue = tile % GROUP
    return tile // GROUP * (GROUP * BLOCK) + residue + GROUP * tl.arange(0, BLOCK), residue


@triton.jit
def _aligned_columns(t, start_ptr, end_ptr, T, R: tl.constexpr):
    """Return first and end of the columns within the aligned bounds for each token t; none for tokens from T on."""
    first, end = aligned_bounds(t, start_ptr, end_ptr, T)
    column = first_column(t, R)
    return tl.where(t < T, first + column, 4 * R), tl.where(t < T, end + column, 0)


@triton.jit
def _distance_index(y, residue, kind, R: tl.constexpr):
    """Return the index d + R of the distance d that tokens of a residue have in the columns y.

    It is in bounds also for columns of no pair.
    """
    x = y - residue - ALIGN
    return tl.where(kind == 0, 4 * R - x, 2 * R + x) % (2 * R)


@triton.jit
def _position_rows(qkv_ptr, row_ptr, y, residue, kind, head, T, H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr):
    """Return pk (kind 0) or pq (kind 1) for the columns y of tokens of a residue; [len(y), Dh]."""
    row = tl.load(row_ptr + _distance_index(y, residue, kind, R))
    return tl.load(head_rows(qkv_ptr, T + row, 1 - kind, head, 3, H, DH))


@triton.jit
def _load_gradient(drel_ptr, t, y, first, end, Y: tl.constexpr):
    """Return the gradient to the elements (t, y), [len(t), len(y)]; 0 for columns out of [first, end)."""
    return tl.load(drel_ptr + (t * Y)[:, None] + y[None, :], mask=between(y, first, end), other=0.0)


@triton.jit
def _rel_scores(
    qkv_ptr, row_ptr, start_ptr, end_ptr, out_ptr, T,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, Y: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """out[kind, head, t, y] = own_t . position_y with the queries or keys of tokens, within the aligned bounds.

    qkv: (T + W) x 3 x H x Dh, out: 2 x H x T x Y, of one type; row: 2R, int32. A program owns BLOCK tokens of one
    residue, head and kind.
    """
    head, kind = tl.program_id(1), tl.program_id(2)
    t, residue = _tokens_of_program(BLOCK)
    first, end = _aligned_columns(t, start_ptr, end_ptr, T, R)
    own = tl.load(head_rows(qkv_ptr, t, kind, head, 3, H, DH), mask=(t < T)[:, None], other=0.0)
    out_ptr += ((kind * H + head).to(tl.int64) * T) * Y
    for block in range(tl.min(first, 0) // INNER * INNER, tl.max(end, 0), INNER):
        y = block + tl.arange(0, INNER)
        position = _position_rows(qkv_ptr, row_ptr, y, residue, kind, head, T, H, DH, R)
        product = tl.dot(own, tl.trans(position), input_precision=PRECISION)
        out_ptrs = out_ptr + (t * Y)[:, None] + y[None, :]
        tl.store(out_ptrs, product.to(out_ptr.dtype.element_ty), mask=between(y, first, end))


@triton.jit
def _grad_to_tokens(
    drel_ptr, qkv_ptr, row_ptr, start_ptr, end_ptr, dqkv_ptr, T,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, Y: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """dqkv[t, kind] += sum_y drel[kind, head, t, y] position_y, within the aligned bounds.

    Shapes and types as in `_rel_scores`; drel like its out, dqkv like qkv. A program owns BLOCK tokens of one residue,
    head and kind.
    """
    head, kind = tl.program_id(1), tl.program_id(2)
    t, residue = _tokens_of_program(BLOCK)
    first, end = _aligned_columns(t, start_ptr, end_ptr, T, R)
    dqkv_ptrs = head_rows(dqkv_ptr, t, kind, head, 3, H, DH)
    total = tl.load(dqkv_ptrs, mask=(t < T)[:, None], other=0.0).to(tl.float32)
    drel_ptr += ((kind * H + head).to(tl.int64) * T) * Y
    for block in range(tl.min(first, 0) // INNER * INNER, tl.max(end, 0), INNER):
        y = block + tl.arange(0, INNER)
        position = _position_rows(qkv_ptr, row_ptr, y, residue, kind, head, T, H, DH, R)
        total += tl.dot(_load_gradient(drel_ptr, t, y, first, end, Y), position, input_precision=PRECISION)
    tl.store(dqkv_ptrs, total.to(dqkv_ptr.dtype.element_ty), mask=(t < T)[:, None])


@triton.jit
def _grad_to_distances(
    drel_ptr, qkv_ptr, start_ptr, end_ptr, out_ptr, T, MAX_TOKENS: tl.constexpr,
    H: tl.constexpr, DH: tl.constexpr, R: tl.constexpr, Y: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    INNER: tl.constexpr,
):  # fmt: skip
    """out[residue, 1 - kind, d + R] = sum_t drel[kind, head, t, y] own_t over the tokens t of the residue.

    Shapes and types as in `_rel_scores`; drel like its out. out: 8 x 2 x 2R x H x Dh, of the same type: the gradient to
    the table's queries (from p2c), then to its keys (from c2p), by the distance d that y has for the residue, of which
    there are at most MAX_TOKENS tokens. A program owns INNER columns of one head, kind and residue, and reads BLOCK
    tokens at a time.
    """
    head, kind, residue = tl.program_id(0), tl.program_id(2) % 2, tl.program_id(2) // 2
    y_start = tl.program_id(1) * INNER
    y = y_start + tl.arange(0, INNER)
    drel_ptr += ((kind * H + head).to(tl.int64) * T) * Y
    total = tl.zeros([INNER, DH], tl.float32)
    # Sequences come longest first, so those that are long enough for these offsets are the first ones.
    offset = y_start - residue - ALIGN - R
    nearest = tl.maximum(tl.maximum(offset, 1 - INNER - offset), 0)
    longest = tl.load(end_ptr) - tl.load(start_ptr)
    token = residue + GROUP * tl.arange(0, MAX_TOKENS)
    length = tl.load(end_ptr + token, mask=token < T, other=0) - tl.load(start_ptr + token, mask=token < T, other=0)
    for block in range(0, tl.sum((length > nearest).to(tl.int32), 0), BLOCK):
        t = residue + GROUP * (block + tl.arange(0, BLOCK))
        first, end = _aligned_columns(t, start_ptr, end_ptr, T, R)
        own = tl.load(head_rows(qkv_ptr, t, kind, head, 3, H, DH), mask=(t < T)[:, None], other=0.0)
        gradient = _load_gradient(drel_ptr, t, y, first, end, Y)
        total += tl.dot(tl.trans(gradient), own, input_precision=PRECISION)
    row = (residue * 2 + 1 - kind) * (2 * R) + _distance_index(y, residue, kind, R)
    # Each of the 2R distances once, but for those that no sequence has.
    mask = (y >= residue + ALIGN) & (y < residue + ALIGN + 2 * R) & (nearest < longest)
    tl.store(head_rows(out_ptr, row, 0, head, 1, H, DH), total.to(out_ptr.dtype.element_ty), mask=mask[:, None])


@triton.jit
def _reduce_partials(
    partial_ptr, start_ptr, end_ptr, row_first_ptr, row_end_ptr, dqkv_ptr, T,
    WIDTH: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dqkv[T + row, part] = sum over residues and d in the row of partial[residue, part, d + R]; 0 for part 2.

    Row serves the indices d + R in [row_first, row_end); distances that no sequence has are not read. partial:
    8 x 2 x 2R x WIDTH, dqkv: (T + W) x 3 x WIDTH, of one type; row_first, row_end: W, int32. A program owns one row of
    the position table and one of its queries, keys and values.
    """
    row, part = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    # Sequences come longest first.
    longest = tl.load(end_ptr) - tl.load(start_ptr)
    first = tl.maximum(tl.load(row_first_ptr + row), R - longest + 1)
    end = tl.where(part < 2, tl.minimum(tl.load(row_end_ptr + row), R + longest), 0)
    partial_ptrs = partial_ptr + (tl.arange(0, GROUP)[:, None] * 2 + part) * (2 * R * WIDTH) + column[None, :]
    for x in range(first, end):
        partial = tl.load(partial_ptrs + x * WIDTH, mask=(column < WIDTH)[None, :], other=0.0)
        total += tl.sum(partial.to(tl.float32), 0)
    out_ptrs = dqkv_ptr + (T + row).to(tl.int64) * (3 * WIDTH) + part * WIDTH + column
    tl.store(out_ptrs, total.to(dqkv_ptr.dtype.element_ty), mask=column < WIDTH)


def _constants(sequences: PackedSequences, qkv: Tensor, heads: int, columns: int) -> dict[str, int | str]:
    """Return the arguments that the first three kernels share, for tables with so many columns."""
    return {
        "T": len(sequences.start_T),
        "H": heads,
        "DH": qkv.shape[1] // 3 // heads,
        "R": max_distance_of(columns),
        "Y": columns,
        "PRECISION": "ieee" if qkv.dtype == torch.float32 else "tf32",
        "BLOCK": TOKENS,
        "INNER": COLUMNS,
        "num_warps": 4,
    }


def _tiles(tokens: int) -> int:
    """Return how many programs own the tokens of a head and kind."""
    return RESIDUES * int(triton.cdiv(tokens, RESIDUES * TOKENS))


def rel_scores(qkv: Tensor, sequences: PackedSequences, positions: RelativePositions, heads: int) -> Tensor:
    """Return c2p and p2c, 2 x H x T x Y in the type of ``qkv``, in the valid range.

    Args:
        qkv: (T + W) x 3 D; rows of queries, keys and values of the tokens, and of the position table behind them.
            R is a multiple of 64.
    """
    tokens, columns = len(sequences.start_T), table_columns(len(positions.row) // 2)
    out = qkv.new_empty(2, heads, tokens, columns)
    _rel_scores[(_tiles(tokens), heads, 2)](
        qkv, positions.row, sequences.start_T, sequences.end_T, out, **_constants(sequences, qkv, heads, columns)
    )
    return out


def grad_to_tokens(
    drel_scores: Tensor, qkv: Tensor, sequences: PackedSequences, positions: RelativePositions, dqkv: Tensor
) -> None:
    """Add the gradient of `rel_scores` to the tokens' queries and keys to ``dqkv``, (T + W) x 3 D.

    Args:
        drel_scores: 2 x H x T x Y; gradient to the result of `rel_scores`, read within the aligned bounds.
    """
    _, heads, tokens, columns = drel_scores.shape
    _grad_to_tokens[(_tiles(tokens), heads, 2)](
        drel_scores, qkv, positions.row, sequences.start_T, sequences.end_T, dqkv,
        **_constants(sequences, qkv, heads, columns),
    )  # fmt: skip


def most_of_residue(tokens: int) -> int:
    """Return a bound of the number of tokens of a residue, of T tokens; kernels are compiled for it."""
    return max(LEAST_TOKENS, int(triton.next_power_of_2(triton.cdiv(tokens, RESIDUES))))


def grad_to_positions(
    drel_scores: Tensor, qkv: Tensor, sequences: PackedSequences, positions: RelativePositions, dqkv: Tensor
) -> None:
    """Write the gradient of `rel_scores` to the position table to its rows of ``dqkv``; its values get 0.

    Args:
        drel_scores: as in `grad_to_tokens`. sequences: sorted by length, the longest first.
    """
    _, heads, tokens, columns = drel_scores.shape
    width, bounds = qkv.shape[1] // 3, (sequences.start_T, sequences.end_T)
    partial = qkv.new_empty(RESIDUES, 2, len(positions.row), width)
    _grad_to_distances[(heads, columns // COLUMNS, 2 * RESIDUES)](
        drel_scores, qkv, *bounds, partial, MAX_TOKENS=most_of_residue(tokens), num_stages=2,
        **_constants(sequences, qkv, heads, columns),
    )  # fmt: skip
    _reduce_partials[(len(positions.first), 3)](
        partial, *bounds, positions.first, positions.end, dqkv, tokens, WIDTH=width, R=max_distance_of(columns),
        BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
