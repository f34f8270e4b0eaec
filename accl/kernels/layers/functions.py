"""Functions of torch that have a faster equal among torch's own kernels for CPUs.

Dropout: torch draws a double for each element, one after the other, and compares it with the probability. Here 16 bits
are drawn for each, in a fifth of the time: probabilities are exact to 1/65536, and what is kept is scaled by the one
that is drawn with.

Linear layers in fp32: torch calls MKL, which on processors of other makers than its own does without their widest
instructions; oneDNN, which torch calls for bf16, does not, and takes half the time there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

STEPS = 2**16


class CpuFunctions(TorchFunctionMode):
    """As a context, takes the place of `torch.nn.functional.dropout` and `torch.nn.functional.linear`.

    Masks of dropout come from a generator of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator()

    def seed(self, seed: int) -> None:
        """Let the next masks follow from a seed alone."""
        self._generator.manual_seed(seed)

    def mask(self, x: Tensor, probability: float) -> Tensor | None:
        """Return the factor of each element, 0 or 1 / (1 - p) in the type of ``x``; None if nothing is dropped."""
        dropped = round(probability * STEPS)
        if dropped == 0:
            return None
        if dropped == STEPS:
            return torch.zeros_like(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
        drawn = words.random_(-(2**63), None, generator=self._generator).view(torch.int16)[: x.numel()].view(x.shape)
        # In the type of the elements: a product with booleans is not vectorised.
        keep = torch.ge(drawn, dropped - STEPS // 2, out=torch.empty(x.shape, dtype=x.dtype))
        return keep.mul_(STEPS / (STEPS - dropped))

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _: Any,
        arguments: tuple[Any, ...] = (),
        keywords: dict[str, Any] | None = None,
    ) -> Any:
        if function is F.dropout:
            function = self._dropout
        elif function is F.linear:
            function = _linear
        return function(*arguments, **(keywords or {}))

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        keep = self.mask(input, p) if training else None
        return input if keep is None else input * keep


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if torch.is_autocast_enabled("cpu") or input.dtype != torch.float32:
        return F.linear(input, weight, bias)
    product: Tensor = _Linear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
    return product


class _Linear(torch.autograd.Function):
    """x W^T + b for fp32 by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        dout_TO = dout.reshape(-1, dout.shape[-1])
        return (
            _product(dout, weight.t(), None) if needs_x else None,
            _product(dout_TO.t(), x.reshape(-1, x.shape[-1]).t(), None) if needs_weight else None,
            dout_TO.sum(0) if needs_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
