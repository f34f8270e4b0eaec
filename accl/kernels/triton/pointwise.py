"""Triton kernels of what stands between the matrix products: dropout, residuals, norms, GELU, sums over tokens."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.dropout import keep, threshold

# Tokens that a program takes of a norm's and of GELU's backward pass; of its sums over tokens it leaves one row.
NORM_ROWS, GELU_ROWS = 4, 32
# Rows of a sum over rows that one program adds up.
SUM_ROWS = 256


@triton.jit(do_not_specialize=["site"])
def _norm(
    dense_ptr, residual_ptr, gain_ptr, bias_ptr, out_ptr, mean_ptr, rstd_ptr, seed_ptr, site, eps,
    D: tl.constexpr, THRESHOLD: tl.constexpr, KEPT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    inside = d < D
    dense = tl.load(dense_ptr + row * D + d, mask=inside, other=0.0).to(tl.float32)
    if THRESHOLD > 0:
        dense = tl.where(keep(seed_ptr, site, row * D + d, THRESHOLD), dense * (1 / KEPT), 0.0)
    total = dense + tl.load(residual_ptr + row * D + d, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(total, 0) / D
    centred = tl.where(inside, total - mean, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 0) / D + eps)
    gain, bias = tl.load(gain_ptr + d, mask=inside), tl.load(bias_ptr + d, mask=inside)
    tl.store(out_ptr + row * D + d, (centred * rstd * gain + bias).to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)


@triton.jit(do_not_specialize=["site"])
def _norm_backward(
    dout_ptr, dense_ptr, residual_ptr, gain_ptr, mean_ptr, rstd_ptr, ddense_ptr, dresidual_ptr, partial_ptr, seed_ptr,
    site, T,
    D: tl.constexpr, THRESHOLD: tl.constexpr, KEPT: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, BLOCK)
    inside = (row < T)[:, None] & (d < D)[None, :]
    at = row[:, None] * D + d[None, :]
    gain = tl.load(gain_ptr + d, mask=d < D, other=0.0)
    dout = tl.load(dout_ptr + at, mask=inside, other=0.0).to(tl.float32)
    dense = tl.load(dense_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if THRESHOLD > 0:
        kept = keep(seed_ptr, site, at, THRESHOLD)
        dense = tl.where(kept, dense * (1 / KEPT), 0.0)
    total = dense + tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
    mean, rstd = tl.load(mean_ptr + row, mask=row < T, other=0.0), tl.load(rstd_ptr + row, mask=row < T, other=0.0)
    unit = tl.where(inside, (total - mean[:, None]) * rstd[:, None], 0.0)
    dunit = dout * gain[None, :]
    along = tl.sum(dunit * unit, 1)[:, None] / D
    dtotal = (dunit - tl.sum(dunit, 1)[:, None] / D - unit * along) * rstd[:, None]
    ddense = dtotal
    if THRESHOLD > 0:
        ddense = tl.where(kept, dtotal * (1 / KEPT), 0.0)
    ddense = tl.where(inside, ddense, 0.0)
    tl.store(ddense_ptr + at, ddense.to(ddense_ptr.dtype.element_ty), mask=inside)
    tl.store(dresidual_ptr + at, dtotal.to(dresidual_ptr.dtype.element_ty), mask=inside)
    partial = partial_ptr + tl.program_id(0) * 3 * D + d
    tl.store(partial, tl.sum(dout * unit, 0), mask=d < D)
    tl.store(partial + D, tl.sum(dout, 0), mask=d < D)
    tl.store(partial + 2 * D, tl.sum(ddense, 0), mask=d < D)


def add_norm(
    dense: Tensor,
    residual: Tensor,
    gain: Tensor,
    bias: Tensor,
    eps: float,
    seed: Tensor,
    site: int,
    dropout: float,
    out: Tensor,
) -> tuple[Tensor, Tensor]:
    """out = LayerNorm(residual + dropout(dense)), T x D; returns the mean and the reciprocal deviation of every row."""
    tokens, width = dense.shape
    mean, rstd = (torch.empty(tokens, dtype=torch.float32, device=dense.device) for _ in range(2))
    _norm[(tokens,)](
        dense, residual, gain, bias, out, mean, rstd, seed, site, eps,
        D=width, THRESHOLD=threshold(dropout), KEPT=1 - dropout, BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return mean, rstd


def add_norm_backward(
    dout: Tensor,
    dense: Tensor,
    residual: Tensor,
    gain: Tensor,
    mean: Tensor,
    rstd: Tensor,
    seed: Tensor,
    site: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `add_norm` to ``dense`` and ``residual``, T x D, and partial sums, n x 3 D.

    Summed over n those are the gradients of gain and bias, and the sum of the gradient to ``dense`` over tokens, which
    is that of the bias of the linear layer before.
    """
    tokens, width = dense.shape
    ddense, dresidual = torch.empty_like(dense), torch.empty_like(residual)
    partial = torch.empty(triton.cdiv(tokens, NORM_ROWS), 3 * width, dtype=torch.float32, device=dense.device)
    _norm_backward[(len(partial),)](
        dout, dense, residual, gain, mean, rstd, ddense, dresidual, partial, seed, site, tokens,
        D=width, THRESHOLD=threshold(dropout), KEPT=1 - dropout, BLOCK=triton.next_power_of_2(width), ROWS=NORM_ROWS,
        num_warps=4,
    )  # fmt: skip
    return ddense, dresidual, partial


@triton.jit(do_not_specialize=["site"])
def _drop(
    in_ptr, out_ptr, seed_ptr, site, n, THRESHOLD: tl.constexpr, KEPT: tl.constexpr, ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(in_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    if THRESHOLD > 0:
        value = tl.where(keep(seed_ptr, site, at, THRESHOLD), value * (1 / KEPT), 0.0)
    if ADD:
        value += tl.load(out_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at, value.to(out_ptr.dtype.element_ty), mask=at < n)


def drop(inputs: Tensor, out: Tensor, seed: Tensor, site: int, dropout: float) -> None:
    """out = dropout(inputs), of any types."""
    _dropped(inputs, out, seed, site, dropout, add=False)


def add_dropped(inputs: Tensor, out: Tensor, seed: Tensor, site: int, dropout: float) -> None:
    """out += dropout(inputs): the backward pass of `drop`."""
    _dropped(inputs, out, seed, site, dropout, add=True)


def _dropped(inputs: Tensor, out: Tensor, seed: Tensor, site: int, dropout: float, add: bool) -> None:
    n = inputs.numel()
    _drop[(triton.cdiv(n, 1024),)](
        inputs, out, seed, site, n, THRESHOLD=threshold(dropout), KEPT=1 - dropout, ADD=add, BLOCK=1024, num_warps=4
    )


@triton.jit
def _gelu_backward(dout_ptr, in_ptr, din_ptr, partial_ptr, T, ROWS: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    f = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (row < T)[:, None] & (f < F)[None, :]
    at = row[:, None] * F + f[None, :]
    x = tl.load(in_ptr + at, mask=inside, other=0.0).to(tl.float32)
    dout = tl.load(dout_ptr + at, mask=inside, other=0.0).to(tl.float32)
    # d/dx x Phi(x) = Phi(x) + x phi(x)
    slope = 0.5 * (1 + tl.erf(x * 0.7071067811865476)) + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    din = dout * slope
    tl.store(din_ptr + at, din.to(din_ptr.dtype.element_ty), mask=inside)
    tl.store(partial_ptr + tl.program_id(1) * F + f, tl.sum(din, 0), mask=f < F)


def gelu_backward(dout: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the exact GELU, T x F, and partial sums of it over tokens, n x F."""
    tokens, width = inputs.shape
    din = torch.empty_like(inputs)
    block = 128
    partial = torch.empty(triton.cdiv(tokens, GELU_ROWS), width, dtype=torch.float32, device=inputs.device)
    _gelu_backward[(triton.cdiv(width, block), len(partial))](
        dout, inputs, din, partial, tokens, ROWS=GELU_ROWS, F=width, BLOCK=block, num_warps=4
    )
    return din, partial


@triton.jit(do_not_specialize=["rows", "part_rows"])
def _column_sums(in_ptr, out_ptr, rows, columns, part_rows, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    part = tl.program_id(1)
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    last = min(rows, (part + 1) * part_rows)
    for first in range(part * part_rows, last, ROWS):
        r = first + tl.arange(0, ROWS)
        inside = (r < last)[:, None] & (c < columns)[None, :]
        total += tl.load(in_ptr + r[:, None] * columns + c[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + part * columns + c, tl.sum(total, 0), mask=c < columns)


def column_sums(rows_RC: Tensor, out: Tensor) -> None:
    """out = the sum of all rows, C in fp32."""
    rows, columns = rows_RC.shape
    parts = triton.cdiv(rows, SUM_ROWS)
    # Of many rows, parts beside each other first.
    found = out if parts == 1 else torch.empty(parts, columns, dtype=torch.float32, device=out.device)
    _column_sums[(triton.cdiv(columns, 64), parts)](
        rows_RC, found, rows, columns, triton.cdiv(rows, parts), BLOCK=64, ROWS=64, num_warps=4
    )
    if parts > 1:
        column_sums(found, out)


@triton.jit
def _unpack(
    source_ptr,
    begin_ptr,
    tokens_ptr,
    ids_ptr,
    start_ptr,
    end_ptr,
    S,
    ROW: tl.constexpr,
    ROUNDS,
    pad,
    BLOCK: tl.constexpr,
):
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    # Binary search for the segment that holds each token: the first whose end lies beyond it.
    low = tl.zeros([BLOCK], tl.int32)
    high = tl.full([BLOCK], 0, tl.int32) + S
    for _ in range(ROUNDS):
        middle = (low + high) // 2
        beyond = tl.load(begin_ptr + middle + 1, mask=middle < S, other=0) <= t
        open = low < high
        low = tl.where(open & beyond, middle + 1, low)
        high = tl.where(open & ~beyond, middle, high)
    there = low < S
    offset = t - tl.load(begin_ptr + low, mask=there, other=0)
    token = tl.load(tokens_ptr + tl.load(source_ptr + low, mask=there, other=0) + offset, mask=there, other=pad)
    row = low // ROW
    tl.store(ids_ptr + t, token.to(tl.int32))
    tl.store(start_ptr + t, tl.where(there, tl.load(begin_ptr + row * ROW, mask=there, other=0), t).to(tl.int32))
    tl.store(
        end_ptr + t, tl.where(there, tl.load(begin_ptr + (row + 1) * ROW, mask=there, other=0), t + 1).to(tl.int32)
    )


def unpack(
    source: Tensor, begin: Tensor, tokens: Tensor, row: int, pad: int, out: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Write a stream of T tokens: ids, and start and end of the sequence that each belongs to, all int32.

    Args:
        source: S; where each segment begins in ``tokens``. begin: S + 1; where in the stream.
        row: segments of one sequence. pad: id of what is beyond the last segment.
    """
    ids, start, end = out
    segments = len(source)
    _unpack[(len(ids) // 128,)](
        source, begin, tokens, ids, start, end, segments, row, segments.bit_length() + 1, pad, BLOCK=128
    )
