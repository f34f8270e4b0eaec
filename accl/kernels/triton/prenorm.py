"""Residual and norm of layers that norm their inputs, under autograd: a residual is read by the next sum as well."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from accl.kernels.triton.layernorm import layer_norm_backward
from accl.kernels.triton.pointwise import add_column_sums

# Tokens that a program owns in the backward pass, a few at a time, and sums to one row of partial sums.
ROWS, ROUNDS = 4, 8


@triton.jit
def _sum_norm(
    x_ptr, added_ptr, gain_ptr, bias_ptr, sum_ptr, out_ptr, mean_ptr, rstd_ptr, eps, D: tl.constexpr,
    HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """sum = x + added, out = LayerNorm(sum), T x D of any types; a program owns one row.

    gain and, if HAS_BIAS, bias: D, of any type. Stores the mean and rstd of every row, T in fp32.
    """
    row = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    mask = d < D
    total = tl.load(x_ptr + row * D + d, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(added_ptr + row * D + d, mask=mask, other=0.0).to(tl.float32)
    # What the backward pass reads is what is stored.
    stored = total.to(sum_ptr.dtype.element_ty)
    tl.store(sum_ptr + row * D + d, stored, mask=mask)
    total = stored.to(tl.float32)
    mean = tl.sum(total, 0) / D
    centred = tl.where(mask, total - mean, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 0) / D + eps)
    out = centred * rstd * tl.load(gain_ptr + d, mask=mask, other=0.0).to(tl.float32)
    if HAS_BIAS:
        out += tl.load(bias_ptr + d, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * D + d, out.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)


@triton.jit
def _sum_norm_backward(
    dsum_ptr, dout_ptr, sum_ptr, gain_ptr, mean_ptr, rstd_ptr, dx_ptr, partial_ptr, T, D: tl.constexpr,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """Gradient of `_sum_norm` to x and added, which is one, T x D; a program owns ROWS x ROUNDS rows.

    dsum, dout: gradients to sum and out. Each program also stores a row of partial sums over its tokens, 2 D in fp32:
    of dout x_hat (to the gain) and of dout (to the bias).
    """
    d = tl.arange(0, BLOCK)
    dgain = tl.zeros([BLOCK], tl.float32)
    dbias = tl.zeros([BLOCK], tl.float32)
    for step in range(ROUNDS):
        row = (tl.program_id(0) * ROUNDS + step) * ROWS + tl.arange(0, ROWS)
        mask = (row < T)[:, None] & (d < D)[None, :]
        index = row[:, None] * D + d[None, :]
        dout = tl.load(dout_ptr + index, mask=mask, other=0.0).to(tl.float32)
        total = tl.load(sum_ptr + index, mask=mask, other=0.0).to(tl.float32)
        dtotal, x_hat = layer_norm_backward(dout, total, row, d, gain_ptr, mean_ptr, rstd_ptr, mask, row < T, D)
        dtotal += tl.load(dsum_ptr + index, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_ptr + index, dtotal.to(dx_ptr.dtype.element_ty), mask=mask)
        dgain += tl.sum(dout * x_hat, 0)
        dbias += tl.sum(dout, 0)
    partial = partial_ptr + tl.program_id(0) * 2 * D + d
    tl.store(partial, dgain, mask=d < D)
    tl.store(partial + D, dbias, mask=d < D)


class SumNorm(torch.autograd.Function):
    """The sum of x and added, and its LayerNorm, ... x D each; the bias of the norm may be None."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor, gain: Tensor, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Compute sum and norm."""
        x, added = x.contiguous(), added.contiguous()
        width = x.shape[-1]
        tokens = x.numel() // width
        total, out = torch.empty_like(x), torch.empty_like(x)
        mean, rstd = (torch.empty(tokens, dtype=torch.float32, device=x.device) for _ in range(2))
        _sum_norm[(tokens,)](
            x, added, gain, bias, total, out, mean, rstd, eps, D=width, HAS_BIAS=bias is not None,
            BLOCK=triton.next_power_of_2(width), num_warps=4,
        )  # fmt: skip
        ctx.save_for_backward(total, gain, mean, rstd)
        ctx.has_bias = bias is not None
        return total, out

    @staticmethod
    def backward(ctx: Any, dtotal: Tensor, dout: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients; that to both summands is one tensor."""
        total, gain, mean, rstd = ctx.saved_tensors
        width, tokens = total.shape[-1], len(mean)
        dx = torch.empty_like(total)
        partial = torch.empty(triton.cdiv(tokens, ROWS * ROUNDS), 2 * width, dtype=torch.float32, device=total.device)
        _sum_norm_backward[(len(partial),)](
            dtotal.contiguous(), dout.contiguous(), total, gain, mean, rstd, dx, partial, tokens, D=width,
            BLOCK=triton.next_power_of_2(width), ROWS=ROWS, ROUNDS=ROUNDS, num_warps=4,
        )  # fmt: skip
        sums = torch.zeros(2 * width, device=total.device)
        add_column_sums(partial, sums)
        dgain, dbias = sums.to(gain.dtype).split(width)
        return dx, dx, dgain, dbias if ctx.has_bias else None, None
