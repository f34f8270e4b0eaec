"""LayerNorm forward and backward on tiles of rows, for use inside Triton kernels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def layer_norm(x, gain_ptr, bias_ptr, d, mask, eps, D: tl.constexpr):
    """Return (x - mean) rstd gain + bias of one row, [BLOCK] in fp32, and its mean and rstd = 1 / sqrt(var + eps).

    Args:
        x: [BLOCK], fp32, 0 outside of ``mask``. d: [BLOCK]; channels. mask: [BLOCK]; d < D.
        gain_ptr, bias_ptr: D, fp32.
    """
    mean = tl.sum(x, 0) / D
    centred = tl.where(mask, x - mean, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 0) / D + eps)
    gain, bias = tl.load(gain_ptr + d, mask=mask), tl.load(bias_ptr + d, mask=mask)
    return centred * rstd * gain + bias, mean, rstd


@triton.jit
def layer_norm_backward(dout, x, row, d, gain_ptr, mean_ptr, rstd_ptr, mask, row_mask, D: tl.constexpr):
    """Return the gradient to ``x`` and the normalised rows x_hat, [ROWS, BLOCK] in fp32.

    x_hat = (x - mean) rstd,  g = dout gain,  dx = rstd (g - mean(g) - x_hat mean(g x_hat))

    Args:
        dout, x: [ROWS, BLOCK], fp32, 0 outside of ``mask``. row: [ROWS], valid in ``row_mask``. d: [BLOCK]; channels.
        gain_ptr: D, fp32. mean_ptr, rstd_ptr: fp32, one a row; from the forward pass.
    """
    gain = tl.load(gain_ptr + d, mask=d < D, other=0.0)
    mean, rstd = tl.load(mean_ptr + row, mask=row_mask, other=0.0), tl.load(rstd_ptr + row, mask=row_mask, other=0.0)
    x_hat = tl.where(mask, (x - mean[:, None]) * rstd[:, None], 0.0)
    dx_hat = dout * gain[None, :]
    projection = tl.sum(dx_hat * x_hat, 1)[:, None] / D
    return (dx_hat - tl.sum(dx_hat, 1)[:, None] / D - x_hat * projection) * rstd[:, None], x_hat
