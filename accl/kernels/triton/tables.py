"""Layout of tables with an element for each token and each partner in its sequence, in rows by token.

The element of token t and partner p is in the column

    y = p - floor(t) + R + 16        with floor(t) = t rounded down to a multiple of 8

of the Y = 2R + 64 columns of row t. Columns ascend with the partner, and those of 8 partners from a multiple of 8 on
begin at a multiple of 8: so attention reads and writes whole vectors, where a table of offsets p - t would have rows
shifted by one against each other. Tokens with one residue t - floor(t) have in one column the same offset

    p - t = y - residue - R - 16

and products with positions take tokens of one residue at a time.

Of a row only as many columns as the sequence has tokens are needed, side by side: the valid range. Kernels that read
gradients take more, the range of the aligned bounds: those of the sequence, rounded outwards to multiples of 16. What
it has beyond the valid range is 0 in gradients. Elsewhere values are undefined.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Tokens that have a column's offset in common are so many apart.
RESIDUES = 8
GROUP = tl.constexpr(RESIDUES)  # for use in kernels, as the next one
ALIGN = tl.constexpr(16)


def table_columns(max_distance: int) -> int:
    """Return Y, the length of a row."""
    return 2 * max_distance + 64


def max_distance_of(columns: int) -> int:
    """Return R of a table with Y columns."""
    return (columns - 64) // 2


@triton.jit
def first_column(t, R: tl.constexpr):
    """Return the column that partner 0 would have in the rows of the tokens t."""
    return -(t // GROUP * GROUP) + (R + ALIGN)


@triton.jit
def aligned_bounds(t, start_ptr, end_ptr, T):
    """Return first and end of the aligned bounds of the sequences of the tokens t; none lies in those from T on."""
    start, end = tl.load(start_ptr + t, mask=t < T, other=T), tl.load(end_ptr + t, mask=t < T, other=0)
    return start // ALIGN * ALIGN, (end + ALIGN - 1) // ALIGN * ALIGN


@triton.jit
def between(index, first, end):
    """Return which indices lie in [first, end) of each row; [len(first), len(index)], boolean."""
    return (index[None, :] >= first[:, None]) & (index[None, :] < end[:, None])
