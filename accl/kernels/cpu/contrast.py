"""The contrastive loss on the CPU: what `accl.method.contrastive.anchor_losses` computes with every negative, in one
kernel instead of some forty operations each way.

Shapes: B anchors of E, a memory bank of K tasks with S slots each.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from accl.kernels.cpu.native import pointer
from accl.kernels.cpu.rooms import Rooms


class Bank(NamedTuple):
    """Unit embeddings, ids of their texts, and how many have been written of each task, all contiguous."""

    z_KSE: Tensor
    text_KS: Tensor
    written_K: Tensor


class Contrast:
    """Computes it.

    Args:
        kernels: from `accl.kernels.cpu.native.load`.
    """

    def __init__(self, kernels: ctypes.CDLL) -> None:
        self.kernels, self.rooms = kernels, Rooms()

    def anchor_losses(
        self,
        z_BE: Tensor,
        task_B: Tensor,
        text_B: Tensor,
        *,
        temperature: float,
        positives: bool,
        bank: Bank | None,
    ) -> tuple[Tensor, Tensor]:
        """The loss of each anchor, B, and 1 for those that count, 0 for the others.

        Args:
            z_BE: unit embeddings in single precision. task_B, text_B: int64. temperature: above 0.
            positives: whether they are in the denominator, beside the negatives.
            bank: more candidates, which get no gradient, and may be written to before the way back.
        """
        given = (task_B, text_B, temperature, positives, bank)
        found: tuple[Tensor, Tensor] = _Anchors.apply(z_BE, self, given)  # type: ignore[no-untyped-call]
        return found


class _Anchors(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z_BE: Tensor,
        contrast: Contrast,
        given: tuple[Tensor, Tensor, float, bool, Bank | None],
    ) -> tuple[Tensor, Tensor]:
        task_B, text_B, temperature, positives, bank = given
        anchors, width = z_BE.shape
        z_BE, sizes = z_BE.contiguous(), (0, 0) if bank is None else bank.text_KS.shape
        room = contrast.rooms.take(contrast.kernels.contrast_scratch(anchors, width, sizes[0] * sizes[1]))
        loss_B, counted_B = torch.empty(2, anchors)
        own_BE, slope_BB = torch.empty_like(z_BE), torch.empty(anchors, anchors)
        contrast.kernels.contrast(
            *map(pointer, (z_BE, task_B, text_B)),
            anchors,
            width,
            *((None,) * 3 if bank is None else map(pointer, bank)),
            *sizes,
            temperature,
            positives,
            *map(pointer, (room, loss_B, counted_B, own_BE, slope_BB)),
        )
        contrast.rooms.give(room)
        ctx.kernels = contrast.kernels
        ctx.save_for_backward(z_BE, own_BE, slope_BB)
        ctx.mark_non_differentiable(counted_B)
        return loss_B, counted_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        dloss_B, saved = gradients[0].contiguous(), ctx.saved_tensors
        dz_BE = torch.empty_like(saved[0])
        ctx.kernels.contrast_back(pointer(dloss_B), *map(pointer, saved), *dz_BE.shape, pointer(dz_BE))
        return dz_BE, None, None
