"""One AdamW step over flat fp32 parameters as a Triton kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class AdamWParams:
    """Parameters of AdamW (Loshchilov & Hutter, 2019, arXiv 1711.05101) with clipping by the global norm.

    Attributes:
        rates: 3, float64, on the device, so that a captured step can be replayed with other values: the learning rate
            lr, lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t); see `rates_of`.
        norm: scalar, fp32, on the device; norm of all gradients. max_norm: value that it is clipped to.
        beta1, beta2, eps: as in the paper.
    """

    rates: Tensor
    norm: Tensor
    max_norm: float
    beta1: float
    beta2: float
    eps: float

    def rates_of(self, step: int, lr: float) -> tuple[float, float, float]:
        """Return the values of ``rates`` for optimizer step 1, 2, ... at a learning rate."""
        return lr, lr / (1 - self.beta1**step), (1 - self.beta2**step) ** -0.5


@triton.jit
def _adamw(
    p_ptr, g_ptr, m_ptr, v_ptr, n, weight_decay, rates_ptr, norm_ptr, max_norm, beta1, beta2, eps, BLOCK: tl.constexpr
):
    """Update n parameters p and moments m, v in place by gradients g, all fp32; a program owns BLOCK elements.

    g  = min(max_norm / (norm + 1e-6), 1) g
    m' = beta1 m + (1 - beta1) g
    v' = beta2 v + (1 - beta2) g^2
    p' = p (1 - lr weight_decay) - lr / (1 - beta1^t) m' / (sqrt(v' / (1 - beta2^t)) + eps)
    """
    clip = tl.minimum(max_norm / (tl.load(norm_ptr) + 1e-6), 1.0)
    lr = tl.load(rates_ptr).to(tl.float32)
    step_size = tl.load(rates_ptr + 1).to(tl.float32)
    correction = tl.load(rates_ptr + 2).to(tl.float32)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < n
    g = tl.load(g_ptr + index, mask=mask) * clip
    m = beta1 * tl.load(m_ptr + index, mask=mask) + (1 - beta1) * g
    v = beta2 * tl.load(v_ptr + index, mask=mask) + (1 - beta2) * g * g
    p = tl.load(p_ptr + index, mask=mask) * (1 - lr * weight_decay)
    tl.store(p_ptr + index, p - step_size * m / (tl.sqrt(v) * correction + eps), mask=mask)
    tl.store(m_ptr + index, m, mask=mask)
    tl.store(v_ptr + index, v, mask=mask)


@triton.jit
def _square_sums(in_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """out[b] = sum of in[i]^2 over block b of BLOCK elements, fp32; n inputs, one program and one output a block."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(in_ptr + index, mask=index < n, other=0.0)
    tl.store(out_ptr + tl.program_id(0), tl.sum(value * value, 0))


# Elements whose squares one program adds up.
SQUARE_SUM_BLOCK = 8192


def square_sums(values: Tensor) -> Tensor:
    """Return sums of squares of consecutive blocks of SQUARE_SUM_BLOCK fp32 elements; fp32, one a block."""
    out = torch.empty(triton.cdiv(values.numel(), SQUARE_SUM_BLOCK), device=values.device)
    _square_sums[(len(out),)](values, out, values.numel(), BLOCK=SQUARE_SUM_BLOCK, num_warps=8)
    return out


def adamw(
    values: Tensor, gradients: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, weight_decay: float, params: AdamWParams
) -> None:
    """Take one AdamW step, in place.

    Args:
        values, gradients, exp_avg, exp_avg_sq: n, fp32; parameters, their gradients, and both moments.
    """
    n, block = values.numel(), 2048
    _adamw[(triton.cdiv(n, block),)](
        values, gradients, exp_avg, exp_avg_sq, n, weight_decay, params.rates, params.norm, params.max_norm,
        params.beta1, params.beta2, params.eps, BLOCK=block, num_warps=8,
    )  # fmt: skip
