"""Triton kernels for what stands between the matrix products: dropout, residuals, norms, GELU, sums over tokens."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.dropout import drop, keep_mask, mask_constants
from accl.kernels.triton.layernorm import layer_norm, layer_norm_backward

# Programs of the backward pass of a norm, two for each multiprocessor of an H100, and tokens that each reads at a time.
NORM_PROGRAMS, NORM_ROWS = 264, 4
# Tokens that a program owns in the backward pass of GELU, and in a sum over rows.
GELU_ROWS, SUM_ROWS = 32, 256


@triton.jit(do_not_specialize=["dropout_offset"])
def _add_norm(
    dense_ptr, residual_ptr, gain_ptr, bias_ptr, out_ptr, mean_ptr, rstd_ptr, seed_ptr, dropout_offset, eps,
    D: tl.constexpr, THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = LayerNorm(residual + dropout(dense)), T x D of any types; a program owns one row.

    gain and bias: D, fp32. Stores the mean and rstd of every row, T in fp32.
    """
    row = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    mask = d < D
    dense = tl.load(dense_ptr + row * D + d, mask=mask, other=0.0).to(tl.float32)
    dense = drop(dense, seed_ptr, dropout_offset, row * D + d, THRESHOLD, KEEP_PROB)
    total = dense + tl.load(residual_ptr + row * D + d, mask=mask, other=0.0).to(tl.float32)
    out, mean, rstd = layer_norm(total, gain_ptr, bias_ptr, d, mask, eps, D)
    tl.store(out_ptr + row * D + d, out.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)


@triton.jit(do_not_specialize=["dropout_offset"])
def _add_norm_backward(
    dout_ptr, dense_ptr, residual_ptr, gain_ptr, mean_ptr, rstd_ptr, ddense_ptr, dresidual_ptr, dnorm_ptr, seed_ptr,
    dropout_offset, T,
    D: tl.constexpr, THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients of `_add_norm` to dense and residual, T x D of their types; programs take ROWS rows in turns.

    Sums over tokens are added to dnorm, 3 D in fp32: of dout x_hat (to the gain), of dout (to the bias), and of ddense.
    Each program adds its own once: additions to one address wait for each other.
    """
    d = tl.arange(0, BLOCK)
    gain_sum = tl.zeros([ROWS, BLOCK], tl.float32)
    bias_sum = tl.zeros([ROWS, BLOCK], tl.float32)
    ddense_sum = tl.zeros([ROWS, BLOCK], tl.float32)
    for first in tl.range(tl.program_id(0) * ROWS, T, tl.num_programs(0) * ROWS, num_stages=2):
        row = first + tl.arange(0, ROWS)
        mask = (row < T)[:, None] & (d < D)[None, :]
        index = row[:, None] * D + d[None, :]
        dout = tl.load(dout_ptr + index, mask=mask, other=0.0).to(tl.float32)
        dense = tl.load(dense_ptr + index, mask=mask, other=0.0).to(tl.float32)
        if THRESHOLD > 0:
            keep = keep_mask(seed_ptr, dropout_offset, index, THRESHOLD)
            dense = tl.where(keep, dense * (1 / KEEP_PROB), 0.0)
        total = dense + tl.load(residual_ptr + index, mask=mask, other=0.0).to(tl.float32)
        dtotal, x_hat = layer_norm_backward(dout, total, row, d, gain_ptr, mean_ptr, rstd_ptr, mask, row < T, D)
        ddense = dtotal
        if THRESHOLD > 0:
            ddense = tl.where(keep, dtotal * (1 / KEEP_PROB), 0.0)
        ddense = tl.where(mask, ddense, 0.0)
        tl.store(ddense_ptr + index, ddense.to(ddense_ptr.dtype.element_ty), mask=mask)
        tl.store(dresidual_ptr + index, dtotal.to(dresidual_ptr.dtype.element_ty), mask=mask)
        gain_sum += dout * x_hat
        bias_sum += dout
        ddense_sum += ddense
    tl.atomic_add(dnorm_ptr + d, tl.sum(gain_sum, 0), mask=d < D, sem="relaxed")
    tl.atomic_add(dnorm_ptr + D + d, tl.sum(bias_sum, 0), mask=d < D, sem="relaxed")
    tl.atomic_add(dnorm_ptr + 2 * D + d, tl.sum(ddense_sum, 0), mask=d < D, sem="relaxed")


def add_norm(
    dense: Tensor,
    residual: Tensor,
    gain: Tensor,
    bias: Tensor,
    eps: float,
    seed: Tensor,
    dropout_offset: int,
    dropout: float,
    out: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute out = LayerNorm(residual + dropout(dense)), T x D.

    Args:
        dense, residual, out: T x D, of any types. gain, bias: D, fp32.
        dropout_offset: of this dropout, see `accl.kernels.triton.dropout`. dropout: its probability.

    Returns:
        mean and reciprocal standard deviation of every row, T in fp32.
    """
    tokens, width = dense.shape
    mean, rstd = (torch.empty(tokens, dtype=torch.float32, device=dense.device) for _ in range(2))
    _add_norm[(tokens,)](
        dense, residual, gain, bias, out, mean, rstd, seed, dropout_offset, eps,
        D=width, **mask_constants(dropout), BLOCK=triton.next_power_of_2(width), num_warps=4,
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
    dropout_offset: int,
    dropout: float,
    dnorm: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `add_norm` to ``dense`` and ``residual``, T x D of their types.

    Args:
        dout: T x D. mean, rstd: as `add_norm` returned them. The others: as given to `add_norm`.
        dnorm: 3 D, fp32; the gradients of gain and bias are added to it, and the sum of the gradient to ``dense`` over
            tokens, which is that of the bias of the linear layer before.
    """
    tokens, width = dense.shape
    ddense, dresidual = torch.empty_like(dense), torch.empty_like(residual)
    _add_norm_backward[(min(NORM_PROGRAMS, triton.cdiv(tokens, NORM_ROWS)),)](
        dout, dense, residual, gain, mean, rstd, ddense, dresidual, dnorm, seed, dropout_offset, tokens,
        D=width, **mask_constants(dropout), BLOCK=triton.next_power_of_2(width), ROWS=NORM_ROWS, num_warps=4,
    )  # fmt: skip
    return ddense, dresidual


@triton.jit(do_not_specialize=["dropout_offset"])
def _dropout(
    in_ptr, out_ptr, seed_ptr, dropout_offset, n, THRESHOLD: tl.constexpr, KEEP_PROB: tl.constexpr, ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """out = dropout(in), or out += dropout(in) if ADD, of n elements of any types; a program owns BLOCK elements."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(in_ptr + index, mask=index < n, other=0.0).to(tl.float32)
    value = drop(value, seed_ptr, dropout_offset, index, THRESHOLD, KEEP_PROB)
    if ADD:
        value += tl.load(out_ptr + index, mask=index < n, other=0.0)
    tl.store(out_ptr + index, value.to(out_ptr.dtype.element_ty), mask=index < n)


def apply_dropout(
    inputs: Tensor, out: Tensor, seed: Tensor, dropout_offset: int, dropout: float, add: bool = False
) -> None:
    """Compute out = dropout(inputs), or out += dropout(inputs) if ``add``, which is its backward pass.

    Args:
        inputs, out: of one shape and any types. dropout_offset, dropout: as in `add_norm`.
    """
    n = inputs.numel()
    _dropout[(triton.cdiv(n, 1024),)](
        inputs, out, seed, dropout_offset, n, **mask_constants(dropout), ADD=add, BLOCK=1024, num_warps=4
    )


@triton.jit
def _gelu_backward(dout_ptr, in_ptr, din_ptr, dbias_ptr, T, ROWS: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):
    """din = dout (Phi(x) + x phi(x)) with x = in, T x F of any types; a program owns ROWS x BLOCK elements.

    Phi and phi are the normal distribution and its density. Adds the sum of din over tokens to dbias, F in fp32.
    """
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    f = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = (row < T)[:, None] & (f < F)[None, :]
    index = row[:, None] * F + f[None, :]
    x = tl.load(in_ptr + index, mask=mask, other=0.0).to(tl.float32)
    dout = tl.load(dout_ptr + index, mask=mask, other=0.0).to(tl.float32)
    slope = 0.5 * (1 + tl.erf(x * 0.7071067811865476)) + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    din = dout * slope
    tl.store(din_ptr + index, din.to(din_ptr.dtype.element_ty), mask=mask)
    tl.atomic_add(dbias_ptr + f, tl.sum(din, 0), mask=f < F, sem="relaxed")


def gelu_backward(dout: Tensor, inputs: Tensor, dbias: Tensor) -> Tensor:
    """Return the gradient of the exact GELU, T x F, and add its sum over tokens to ``dbias``, F in fp32."""
    tokens, width = inputs.shape
    din = torch.empty_like(inputs)
    block = 128
    _gelu_backward[(triton.cdiv(width, block), triton.cdiv(tokens, GELU_ROWS))](
        dout, inputs, din, dbias, tokens, ROWS=GELU_ROWS, F=width, BLOCK=block, num_warps=4
    )
    return din


@triton.jit(do_not_specialize=["rows"])
def _column_sums(in_ptr, out_ptr, rows, columns, PART_ROWS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """out += the sum of all rows of in; rows x columns of any type to columns in fp32.

    A program owns BLOCK columns of PART_ROWS rows, and reads ROWS rows at a time.
    """
    part = tl.program_id(1)
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    last = min(rows, (part + 1) * PART_ROWS)
    for first in range(part * PART_ROWS, last, ROWS):
        r = first + tl.arange(0, ROWS)
        mask = (r < last)[:, None] & (c < columns)[None, :]
        total += tl.load(in_ptr + r[:, None] * columns + c[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.atomic_add(out_ptr + c, tl.sum(total, 0), mask=c < columns, sem="relaxed")


def add_column_sums(rows: Tensor, out: Tensor) -> None:
    """Compute out += the sum of all rows.

    Args:
        rows: P x C, of any type. out: C, fp32.
    """
    count, columns = rows.shape
    _column_sums[(triton.cdiv(columns, 64), triton.cdiv(count, SUM_ROWS))](
        rows, out, count, columns, PART_ROWS=SUM_ROWS, BLOCK=64, ROWS=64, num_warps=4
    )


@triton.jit(do_not_specialize=["S", "ROUNDS"])
def _pack_tokens(
    source_ptr, cu_seqlens_ptr, tokens_ptr, ids_ptr, start_ptr, end_ptr, S, SEGMENTS: tl.constexpr, ROUNDS, pad,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """ids[t] = tokens[source[s] + t - cu_seqlens[s]], where s is the segment of token t; a program owns BLOCK tokens.

    start and end are those of the sequence of SEGMENTS segments that s belongs to. A token behind the last segment
    gets the id ``pad`` and is a sequence of its own. See `pack_tokens` for shapes; ROUNDS >= log2(S) + 1.
    """
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    # Binary search for the segment that holds each token: the first whose end lies beyond it.
    low = tl.zeros([BLOCK], tl.int32)
    high = tl.full([BLOCK], 0, tl.int32) + S
    for _ in range(ROUNDS):
        middle = (low + high) // 2
        beyond = tl.load(cu_seqlens_ptr + middle + 1, mask=middle < S, other=0) <= t
        open = low < high
        low = tl.where(open & beyond, middle + 1, low)
        high = tl.where(open & ~beyond, middle, high)
    found = low < S
    offset = t - tl.load(cu_seqlens_ptr + low, mask=found, other=0)
    token = tl.load(tokens_ptr + tl.load(source_ptr + low, mask=found, other=0) + offset, mask=found, other=pad)
    first = cu_seqlens_ptr + low // SEGMENTS * SEGMENTS
    tl.store(ids_ptr + t, token.to(tl.int32))
    tl.store(start_ptr + t, tl.where(found, tl.load(first, mask=found, other=0), t).to(tl.int32))
    tl.store(end_ptr + t, tl.where(found, tl.load(first + SEGMENTS, mask=found, other=0), t + 1).to(tl.int32))


def pack_tokens(
    source: Tensor, cu_seqlens: Tensor, tokens: Tensor, segments: int, pad: int, out: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Write a stream of T tokens from its segments.

    Args:
        source: S, int64; index in ``tokens`` at which each segment begins. tokens: int32; all tokens of the corpus.
        cu_seqlens: S + 1, int64; index in the stream at which each segment begins, and the end of the last.
        segments: number of consecutive segments that are one sequence. pad: token id behind the last segment.
        out: T, int32 each; token ids, and start and end of the sequence that each token belongs to.
    """
    ids, start, end = out
    count = len(source)
    _pack_tokens[(len(ids) // 128,)](
        source, cu_seqlens, tokens, ids, start, end, count, segments, count.bit_length() + 1, pad, BLOCK=128
    )
