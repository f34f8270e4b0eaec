"""One AdamW step over flat fp32 parameters as a Triton kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """AdamW (Loshchilov & Hutter, 2019, arXiv 1711.05101) with clipping; a step's own numbers lie on the device.

    Attributes:
        rates: four float64: the learning rate, it over 1 - beta1^t, 1 / sqrt(1 - beta2^t), and 1; where the last is 0
            no update is owed, and nothing happens.
        norm: of all gradients, scalar, fp32. max_norm: that they are clipped to.
    """

    rates: Tensor
    norm: Tensor
    max_norm: float
    beta1: float
    beta2: float
    eps: float

    @property
    def arguments(self) -> tuple[Tensor, Tensor, float, float, float, float]:
        """As the kernels take them."""
        return self.rates, self.norm, self.max_norm, self.beta1, self.beta2, self.eps


@triton.jit
def clipped(norm_ptr, max_norm):
    """The factor that clipping gives to gradients."""
    return tl.minimum(max_norm / (tl.load(norm_ptr) + 1e-6), 1.0)


@triton.jit
def stepped(p, g, m, v, rates_ptr, beta1, beta2, eps, decay):
    """Parameter and moments after a step with the gradient ``g``."""
    rate = tl.load(rates_ptr).to(tl.float32)
    step_size = tl.load(rates_ptr + 1).to(tl.float32)
    correction = tl.load(rates_ptr + 2).to(tl.float32)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    p = p * (1 - rate * decay) - step_size * m / (tl.sqrt(v) * correction + eps)
    return p, m, v


@triton.jit
def _adamw(
    p_ptr, g_ptr, m_ptr, v_ptr, narrow_ptr, n, decay, rates_ptr, norm_ptr, max_norm, beta1, beta2, eps,
    NARROW: tl.constexpr, CLEAR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    if tl.load(rates_ptr + 3) > 0:
        clip = clipped(norm_ptr, max_norm)
        for block in range(tl.program_id(0), tl.cdiv(n, BLOCK), tl.num_programs(0)):
            at = block * BLOCK + tl.arange(0, BLOCK)
            inside = at < n
            # Nobody reads these again soon: they are not to drive out of the cache what others beside this do.
            g = tl.load(g_ptr + at, mask=inside, eviction_policy="evict_first") * clip
            m = tl.load(m_ptr + at, mask=inside, eviction_policy="evict_first")
            v = tl.load(v_ptr + at, mask=inside, eviction_policy="evict_first")
            p = tl.load(p_ptr + at, mask=inside, eviction_policy="evict_first")
            p, m, v = stepped(p, g, m, v, rates_ptr, beta1, beta2, eps, decay)
            tl.store(p_ptr + at, p, mask=inside, eviction_policy="evict_first")
            tl.store(m_ptr + at, m, mask=inside, eviction_policy="evict_first")
            tl.store(v_ptr + at, v, mask=inside, eviction_policy="evict_first")
            if NARROW:
                tl.store(narrow_ptr + at, p.to(narrow_ptr.dtype.element_ty), mask=inside)
            if CLEAR:
                tl.store(g_ptr + at, tl.zeros([BLOCK], tl.float32), mask=inside)


@triton.jit
def _squares(in_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(in_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + tl.program_id(0), tl.sum(value * value, 0))


# Elements whose squares one program sums up.
SQUARES = 8192


def square_sums(values: Tensor) -> Tensor:
    """Sums of the squares of fp32 values, of so many at a time."""
    out = torch.empty(triton.cdiv(values.numel(), SQUARES), device=values.device)
    _squares[(len(out),)](values, out, values.numel(), BLOCK=SQUARES, num_warps=8)
    return out


def adamw(
    values: Tensor,
    gradients: Tensor,
    first: Tensor,
    second: Tensor,
    narrow: Tensor | None,
    decay: float,
    rule: Rule,
    clear: bool,
    units: int | None = None,
) -> None:
    """One step, in place.

    Args:
        values, gradients, first, second: n; parameters, their gradients, and both moments.
        narrow: a copy of ``values`` in a narrower type, kept true; None for none.
        decay: weight decay. clear: set the gradients to 0 afterwards.
        units: so many of the device's multiprocessors do it, one program each; None for the whole device.
    """
    n = values.numel()
    block, warps = (2048, 8) if units is None else (8192, 32)
    blocks = triton.cdiv(n, block)
    _adamw[(blocks if units is None else min(units, blocks),)](
        values, gradients, first, second, values if narrow is None else narrow, n, decay, *rule.arguments,
        NARROW=narrow is not None, CLEAR=clear, BLOCK=block, num_warps=warps,
    )  # fmt: skip
