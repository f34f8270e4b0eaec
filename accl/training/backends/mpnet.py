"""MPNet without copies from the CPU to the GPU in its forward pass, which a CUDA graph cannot capture.

MPNet adds a learned bias to its attention scores: that of the bucket which the distance of two tokens falls into. Some
releases of transformers (5.17 among them) compute the buckets on the CPU and copy them in every pass. Its mask, as for
every encoder with eager attention, is made of a number that transformers copies as well.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

Keywords = dict[str, Any]


def make_capturable(encoder: nn.Module) -> Callable[[], None]:
    """Keep the position buckets of an MPNet on its device, and make its mask there; do nothing to other encoders.

    The buckets are those that the encoder computes itself, once, for its longest input, so outputs and gradients are
    bit for bit its own. They are no part of its state.

    Returns:
        what undoes it.
    """
    config: Any = encoder.config
    if config.model_type != "mpnet":
        return _nothing
    layers: Any = encoder.encoder
    device = layers.relative_attention_bias.weight.device
    buckets_LL = _buckets(layers, torch.empty(1, config.max_position_embeddings, 0, device=device))

    def compute_position_bias(module: Any, x_BLD: Tensor) -> Tensor:
        batch, length = x_BLD.shape[:2]
        # Buckets follow from distances alone, so those of a shorter input are the corner of a longer one's.
        bias_LLH = module.relative_attention_bias(buckets_LL[:length, :length])
        bias_HLL: Tensor = bias_LLH.permute(2, 0, 1)
        # Expanded, as the encoder does it, so that gradients are summed over layers before they are over sequences.
        return bias_HLL.expand(batch, -1, -1, -1)

    # A bound method, which a copy of the encoder binds to itself.
    layers.compute_position_bias = MethodType(compute_position_bias, layers)
    mask_hook = encoder.register_forward_pre_hook(_prepare_mask, with_kwargs=True)

    def undo() -> None:
        del layers.compute_position_bias
        mask_hook.remove()

    return undo


def _buckets(layers: Any, longest_1L0: Tensor) -> Tensor:
    """Return the buckets, L x L, that an encoder looks up for an input of that length."""
    seen: list[Tensor] = []

    def record(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append(arguments[0])

    handle = layers.relative_attention_bias.register_forward_pre_hook(record)
    try:
        with torch.no_grad():
            layers.compute_position_bias(longest_1L0)
    finally:
        handle.remove()
    (buckets_LL,) = seen
    return buckets_LL


def _prepare_mask(
    _: nn.Module, arguments: tuple[Any, ...], keywords: Keywords
) -> tuple[tuple[Any, ...], Keywords] | None:
    """Replace a mask, B x L, by what is added to the scores, B x 1 x 1 x L: transformers takes it as it is."""
    mask_BL = keywords.get("attention_mask")
    if mask_BL is None or mask_BL.ndim != 2:
        return None
    added_BL = torch.zeros_like(mask_BL, dtype=torch.float32)
    added_BL.masked_fill_(mask_BL == 0, torch.finfo(torch.float32).min)
    return arguments, {**keywords, "attention_mask": added_BL[:, None, None, :]}


def _nothing() -> None:
    """Undo nothing."""
