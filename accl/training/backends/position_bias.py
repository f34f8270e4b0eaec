"""Relative position biases that are looked up on the device, for encoders that compute them anew in every forward pass.

MPNet adds a learned bias to its attention scores: that of the bucket which the distance of two tokens falls into. Some
releases of transformers (5.17 among them) compute the buckets on the CPU and copy them to the GPU in every pass, and
such a copy cannot be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


def keep_buckets_on_device(encoder: nn.Module) -> Callable[[], None]:
    """Let an MPNet look its position biases up in buckets that stay on its device; do nothing to other encoders.

    The buckets are those that the encoder computes itself, once, for its longest input, so biases and gradients are
    bit for bit its own. They are no part of its state.

    Returns:
        what undoes it.
    """
    config: Any = encoder.config
    layers: Any = getattr(encoder, "encoder", None)
    if config.model_type != "mpnet":
        return _nothing
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

    def undo() -> None:
        del layers.compute_position_bias

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


def _nothing() -> None:
    """Undo nothing."""
