"""Rotary positions and gated feed-forward layers as Triton kernels: what ModernBERT has between its matrix products."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rotate(
    in_ptr, out_ptr, cos_ptr, sin_ptr, in_row, out_row, VECTORS, DH: tl.constexpr, HALF: tl.constexpr,
    BACKWARD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out = (a cos - b sin, b cos + a sin) of vectors (a, b) = in, or the rotation back; a program owns one token.

    in and out: VECTORS x Dh contiguous for each token, of any types, and may be the same. cos, sin: T x Dh in fp32, of
    which the first half is read. HALF is Dh / 2.
    """
    t = tl.program_id(0)
    vector, c = tl.arange(0, BLOCK)[:, None], tl.arange(0, HALF)[None, :]
    mask = (vector < VECTORS) & (c < HALF)
    index = vector * DH + c
    first = tl.load(in_ptr + t * in_row + index, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(in_ptr + t * in_row + index + HALF, mask=mask, other=0.0).to(tl.float32)
    cos, sin = tl.load(cos_ptr + t * DH + c), tl.load(sin_ptr + t * DH + c)
    if BACKWARD:
        sin = -sin
    tl.store(out_ptr + t * out_row + index, (first * cos - second * sin).to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(out_ptr + t * out_row + index + HALF, (second * cos + first * sin).to(out_ptr.dtype.element_ty), mask=mask)


def rotate(x: Tensor, out: Tensor, cos_TC: Tensor, sin_TC: Tensor, *, backward: bool = False) -> None:
    """Rotate pairs of channels, those of the first and second half of each vector, by the angles of their token.

    Args:
        x, out: T x ... x Dh; the vectors of a token are contiguous, rows may have any stride. May be the same.
        cos_TC, sin_TC: T x Dh, fp32, contiguous, with equal halves; Dh a power of two.
        backward: rotate by the opposite angles, which is the gradient.
    """
    tokens, channels = cos_TC.shape
    vectors = x[0].numel() // channels
    assert x[0].is_contiguous()
    assert out[0].is_contiguous()
    _rotate[(tokens,)](
        x, out, cos_TC, sin_TC, x.stride(0), out.stride(0), vectors, DH=channels, HALF=channels // 2,
        BACKWARD=backward, BLOCK=triton.next_power_of_2(vectors), num_warps=4,
    )  # fmt: skip


@triton.jit
def _gate(in_ptr, out_ptr, F: tl.constexpr, BLOCK: tl.constexpr):
    """out = GELU(a) b, T x F, with (a, b) = in, T x 2 F, of any types; a program owns BLOCK elements of a token."""
    t = tl.program_id(0)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = f < F
    a = tl.load(in_ptr + t * 2 * F + f, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(in_ptr + t * 2 * F + F + f, mask=mask, other=0.0).to(tl.float32)
    gelu = 0.5 * a * (1 + tl.erf(a * 0.7071067811865476))
    tl.store(out_ptr + t * F + f, (gelu * b).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _gate_backward(dout_ptr, in_ptr, din_ptr, F: tl.constexpr, BLOCK: tl.constexpr):
    """din = dout (b (Phi(a) + a phi(a)), GELU(a)); shapes as in `_gate`."""
    t = tl.program_id(0)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = f < F
    a = tl.load(in_ptr + t * 2 * F + f, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(in_ptr + t * 2 * F + F + f, mask=mask, other=0.0).to(tl.float32)
    dout = tl.load(dout_ptr + t * F + f, mask=mask, other=0.0).to(tl.float32)
    phi = 0.5 * (1 + tl.erf(a * 0.7071067811865476))
    slope = phi + a * tl.exp(-0.5 * a * a) * 0.3989422804014327
    tl.store(din_ptr + t * 2 * F + f, (dout * b * slope).to(din_ptr.dtype.element_ty), mask=mask)
    tl.store(din_ptr + t * 2 * F + F + f, (dout * a * phi).to(din_ptr.dtype.element_ty), mask=mask)


class Gate(torch.autograd.Function):
    """GELU(a) b of the halves a and b of the last dimension, ... x 2 F to ... x F."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Compute the gate."""
        x = x.contiguous()
        ctx.save_for_backward(x)
        width = x.shape[-1] // 2
        out = x.new_empty(*x.shape[:-1], width)
        _gate[(x.numel() // (2 * width), triton.cdiv(width, 1024))](x, out, F=width, BLOCK=1024, num_warps=4)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Tensor:
        """Compute the gradient of both halves."""
        (x,) = ctx.saved_tensors
        width = x.shape[-1] // 2
        din = torch.empty_like(x)
        grid = (x.numel() // (2 * width), triton.cdiv(width, 1024))
        _gate_backward[grid](dout.contiguous(), x, din, F=width, BLOCK=1024, num_warps=4)
        return din
