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
        rates: 4, float64, on the device, so that a captured step can be replayed with other values: the learning rate
            lr, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), and 1 if an update is pending. Kernels change nothing where
            the last is 0.
        norm: scalar, fp32, on the device; norm of all gradients. max_norm: value that it is clipped to.
        beta1, beta2, eps: as in the paper.
    """

    rates: Tensor
    norm: Tensor
    max_norm: float
    beta1: float
    beta2: float
    eps: float

    @property
    def kernel_args(self) -> tuple[Tensor, Tensor, float, float, float, float]:
        """Return the arguments in the order in which the kernels take them."""
        return self.rates, self.norm, self.max_norm, self.beta1, self.beta2, self.eps


@triton.jit
def clip_factor(norm_ptr, max_norm):
    """Return min(max_norm / (norm + 1e-6), 1), the scalar that clipping multiplies the gradients by."""
    return tl.minimum(max_norm / (tl.load(norm_ptr) + 1e-6), 1.0)


@triton.jit
def adamw_update(p, g, m, v, rates_ptr, beta1, beta2, eps, weight_decay):
    """Return parameters and both moments after a step, all fp32 in the shape of ``p``.

    m' = beta1 m + (1 - beta1) g
    v' = beta2 v + (1 - beta2) g^2
    p' = p (1 - lr weight_decay) - lr / (1 - beta1^t) m' / (sqrt(v' / (1 - beta2^t)) + eps)

    Args:
        g: gradients, clipped. rates_ptr: see `AdamWParams`.
    """
    lr = tl.load(rates_ptr).to(tl.float32)
    step_size = tl.load(rates_ptr + 1).to(tl.float32)
    correction = tl.load(rates_ptr + 2).to(tl.float32)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    p = p * (1 - lr * weight_decay) - step_size * m / (tl.sqrt(v) * correction + eps)
    return p, m, v


@triton.jit
def _adamw(
    p_ptr, g_ptr, m_ptr, v_ptr, copy_ptr, n, weight_decay, rates_ptr, norm_ptr, max_norm, beta1, beta2, eps,
    COPY: tl.constexpr, ZERO_GRAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """p, m, v = adamw_update(p, clip_factor g, m, v) in place, of n fp32 elements each, where an update is pending.

    COPY also stores p to ``copy_ptr`` (n, any type), ZERO_GRAD sets g to 0. A program owns every
    num_programs-th block of BLOCK elements.
    """
    if tl.load(rates_ptr + 3) > 0:
        clip = clip_factor(norm_ptr, max_norm)
        for block in range(tl.program_id(0), tl.cdiv(n, BLOCK), tl.num_programs(0)):
            index = block * BLOCK + tl.arange(0, BLOCK)
            mask = index < n
            # No kernel reads these again soon: they must not evict the data of kernels that run at the same time.
            g = tl.load(g_ptr + index, mask=mask, eviction_policy="evict_first") * clip
            m = tl.load(m_ptr + index, mask=mask, eviction_policy="evict_first")
            v = tl.load(v_ptr + index, mask=mask, eviction_policy="evict_first")
            p = tl.load(p_ptr + index, mask=mask, eviction_policy="evict_first")
            p, m, v = adamw_update(p, g, m, v, rates_ptr, beta1, beta2, eps, weight_decay)
            tl.store(p_ptr + index, p, mask=mask, eviction_policy="evict_first")
            tl.store(m_ptr + index, m, mask=mask, eviction_policy="evict_first")
            tl.store(v_ptr + index, v, mask=mask, eviction_policy="evict_first")
            if COPY:
                tl.store(copy_ptr + index, p.to(copy_ptr.dtype.element_ty), mask=mask)
            if ZERO_GRAD:
                tl.store(g_ptr + index, tl.zeros([BLOCK], tl.float32), mask=mask)


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
    values: Tensor,
    gradients: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    low_precision_copy: Tensor | None,
    weight_decay: float,
    params: AdamWParams,
    zero_grad: bool,
    num_sms: int | None = None,
) -> None:
    """Take one AdamW step, in place.

    Args:
        values, gradients, exp_avg, exp_avg_sq: n, fp32; parameters, their gradients, and both moments.
        low_precision_copy: n; copy of ``values`` in another type, updated with them; None for none.
        zero_grad: set the gradients to 0 afterwards.
        num_sms: number of multiprocessors to use, with one program each; None for the whole device.
    """
    n = values.numel()
    block, warps = (2048, 8) if num_sms is None else (8192, 32)
    blocks = triton.cdiv(n, block)
    copy = low_precision_copy is not None
    _adamw[(blocks if num_sms is None else min(num_sms, blocks),)](
        values, gradients, exp_avg, exp_avg_sq, low_precision_copy if copy else values, n, weight_decay,
        *params.kernel_args, COPY=copy, ZERO_GRAD=zero_grad, BLOCK=block, num_warps=warps,
    )  # fmt: skip
