"""Products of a linear layer, on one thread of a CPU.

Shapes: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Protocol

import torch
from torch import Tensor

from accl.fast.native import pointer


class Products(Protocol):
    """Written to their last argument but one, or returned."""

    def forward(self, x_TK: Tensor, w_NK: Tensor, bias_N: Tensor | None, scratch: Tensor) -> Tensor:
        """x w^T + bias, T x N."""

    def back(self, dy_TN: Tensor, w_NK: Tensor, dx_TK: Tensor, scratch: Tensor, *, add: bool = False) -> None:
        """The gradient of x, written over ``dx_TK`` or added to it."""

    def weights(self, dy_TN: Tensor, x_TK: Tensor, dw_NK: Tensor, scratch: Tensor, *, add: bool = False) -> None:
        """The gradient of w, written over ``dw_NK`` or added to it."""

    def scratch(self, tokens: int, inputs: int, outputs: int) -> int:
        """Floats that these need to work in."""


def products(kernels: ctypes.CDLL) -> Products:
    """The faster ones here. On Apple's processors torch reaches matrix units that no compiler knows; elsewhere, the
    kernels take a fifth less time, because in a step the factors do not lie in the cache."""
    return TorchProducts() if sys.platform == "darwin" else NativeProducts(kernels)


class TorchProducts:
    """By torch; see `Products`."""

    def forward(self, x_TK: Tensor, w_NK: Tensor, bias_N: Tensor | None, scratch: Tensor) -> Tensor:
        return torch.mm(x_TK, w_NK.t()) if bias_N is None else torch.addmm(bias_N, x_TK, w_NK.t())

    def back(self, dy_TN: Tensor, w_NK: Tensor, dx_TK: Tensor, scratch: Tensor, *, add: bool = False) -> None:
        dx_TK.addmm_(dy_TN, w_NK, beta=int(add))

    def weights(self, dy_TN: Tensor, x_TK: Tensor, dw_NK: Tensor, scratch: Tensor, *, add: bool = False) -> None:
        dw_NK.addmm_(dy_TN.t(), x_TK, beta=int(add))

    def scratch(self, tokens: int, inputs: int, outputs: int) -> int:
        return 0


class NativeProducts:
    """By `c/product.c`; see `Products`."""

    def __init__(self, kernels: ctypes.CDLL) -> None:
        self._kernels = kernels

    def forward(self, x_TK: Tensor, w_NK: Tensor, bias_N: Tensor | None, scratch: Tensor) -> Tensor:
        (tokens, inputs), outputs = x_TK.shape, len(w_NK)
        y_TN, bias = x_TK.new_empty(tokens, outputs), None if bias_N is None else pointer(bias_N)
        assert len(scratch) >= self.scratch(tokens, inputs, outputs)
        self._kernels.product(
            pointer(x_TK), pointer(w_NK), bias, tokens, inputs, outputs, pointer(scratch), pointer(y_TN)
        )
        return y_TN

    def back(self, dy_TN: Tensor, w_NK: Tensor, dx_TK: Tensor, scratch: Tensor, *, add: bool = False) -> None:
        (tokens, outputs), inputs = dy_TN.shape, w_NK.shape[1]
        assert len(scratch) >= self.scratch(tokens, inputs, outputs)
        self._kernels.product_back(
            pointer(dy_TN), pointer(w_NK), tokens, inputs, outputs, add, pointer(scratch), pointer(dx_TK)
        )

    def weights(self, dy_TN: Tensor, x_TK: Tensor, dw_NK: Tensor, scratch: Tensor, *, add: bool = False) -> None:
        (tokens, outputs), inputs = dy_TN.shape, x_TK.shape[1]
        assert len(scratch) >= self.scratch(tokens, inputs, outputs)
        self._kernels.product_weights(
            pointer(dy_TN), pointer(x_TK), tokens, inputs, outputs, add, pointer(scratch), pointer(dw_NK)
        )

    def scratch(self, tokens: int, inputs: int, outputs: int) -> int:
        found: int = self._kernels.product_scratch(tokens, inputs, outputs)
        return found
