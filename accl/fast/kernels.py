"""Triton kernels of what stands between the matrix products: dropout, residuals, norms, GELU, AdamW."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.fast.dropout import keep, threshold

# Tokens that a program takes of a norm's and of GELU's backward pass; of its sums over tokens it leaves one row.
NORM_ROWS, GELU_ROWS = 4, 32


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
    """Gradients of `add_norm` to ``dense`` and ``residual``, T x D, and partial sums, n x 3 x D.

    Summed over n those are the gradients of gain and bias, and the sum of the gradient to ``dense`` over tokens, which
    is that of the bias of the linear layer before.
    """
    tokens, width = dense.shape
    ddense, dresidual = torch.empty_like(dense), torch.empty_like(residual)
    partial = torch.empty(triton.cdiv(tokens, NORM_ROWS), 3, width, dtype=torch.float32, device=dense.device)
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


@triton.jit
def _adamw(
    p_ptr, g_ptr, m_ptr, v_ptr, narrow_ptr, rates_ptr, norm_ptr, n, decayed, narrow_first, narrow_end,
    max_norm, beta1, beta2, eps, decay, NARROW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    rate = tl.load(rates_ptr).to(tl.float32)
    step_size = tl.load(rates_ptr + 1).to(tl.float32)
    correction = tl.load(rates_ptr + 2).to(tl.float32)
    clip = tl.minimum(max_norm / (tl.load(norm_ptr) + 1e-6), 1.0)
    p = tl.load(p_ptr + at, mask=inside)
    g = tl.load(g_ptr + at, mask=inside) * clip
    m = tl.load(m_ptr + at, mask=inside)
    v = tl.load(v_ptr + at, mask=inside)
    p *= tl.where(at < decayed, 1 - rate * decay, 1.0)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    p -= step_size * m / (tl.sqrt(v) * correction + eps)
    tl.store(p_ptr + at, p, mask=inside)
    tl.store(m_ptr + at, m, mask=inside)
    tl.store(v_ptr + at, v, mask=inside)
    if NARROW:
        copied = inside & (at >= narrow_first) & (at < narrow_end)
        tl.store(narrow_ptr + at - narrow_first, p.to(narrow_ptr.dtype.element_ty), mask=copied)


def adamw(
    values: Tensor,
    gradients: Tensor,
    first: Tensor,
    second: Tensor,
    narrow: Tensor | None,
    rates: Tensor,
    norm: Tensor,
    *,
    decayed: int,
    narrow_first: int,
    max_norm: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """One AdamW step (Loshchilov & Hutter, 2019) over flat fp32 parameters, with gradients clipped to ``max_norm``.

    Args:
        values, gradients, first, second: n; parameters, their gradients, and both moments.
        narrow: a copy of ``values[narrow_first:]`` in a narrower type, kept true; None for none.
        rates: three float64 on the device: the learning rate, it over 1 - beta1^t, and 1 / sqrt(1 - beta2^t).
        norm: of all gradients, scalar, fp32. decayed: the first so many parameters decay.
    """
    n = values.numel()
    block = 2048
    _adamw[(triton.cdiv(n, block),)](
        values, gradients, first, second, values if narrow is None else narrow, rates, norm, n, decayed, narrow_first,
        narrow_first + (0 if narrow is None else narrow.numel()), max_norm, betas[0], betas[1], eps, weight_decay,
        NARROW=narrow is not None, BLOCK=block, num_warps=8,
    )  # fmt: skip


@triton.jit
def _expand(qkv_ptr, row_ptr, out_ptr, T, W, D: tl.constexpr, BLOCK: tl.constexpr):
    distance, part = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, BLOCK)
    row = T + tl.load(row_ptr + distance)
    value = tl.load(qkv_ptr + row.to(tl.int64) * (3 * D) + part * D + d, mask=d < D)
    tl.store(out_ptr + (part * W + distance) * D + d, value, mask=d < D)


def expand(qkv: Tensor, tokens: int, row: Tensor) -> Tensor:
    """Projected rows of the position table for every distance: queries and keys, 2 x 2R x H Dh.

    Args:
        qkv: rows of joined queries, keys and values; the table's lie behind ``tokens`` others. row: int32, 2R; the
            table's row of each distance.
    """
    width = qkv.shape[1] // 3
    out = qkv.new_empty(2, len(row), width)
    _expand[(len(row), 2)](qkv, row, out, tokens, len(row), D=width, BLOCK=triton.next_power_of_2(width), num_warps=1)
    return out


@triton.jit
def _collect(dout_ptr, first_ptr, end_ptr, dqkv_ptr, T, W, D: tl.constexpr, BLOCK: tl.constexpr):
    row, part = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    if part < 2:
        for distance in range(tl.load(first_ptr + row), tl.load(end_ptr + row)):
            total += tl.load(dout_ptr + (part * W + distance) * D + d, mask=d < D, other=0.0).to(tl.float32)
    place = dqkv_ptr + (T + row).to(tl.int64) * (3 * D) + part * D + d
    tl.store(place, total.to(dqkv_ptr.dtype.element_ty), mask=d < D)


def collect(dout: Tensor, first: Tensor, end: Tensor, dqkv: Tensor) -> None:
    """The gradient of `expand`, written behind the tokens' rows of ``dqkv``; the table's values get 0.

    Args:
        dout: 2 x 2R x H Dh. first, end: int32; distances of each row of the table, which lie side by side.
    """
    width, rows = dout.shape[2], len(first)
    _collect[(rows, 3)](
        dout,
        first,
        end,
        dqkv,
        len(dqkv) - rows,
        dout.shape[1],
        D=width,
        BLOCK=triton.next_power_of_2(width),
        num_warps=1,
    )


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
