"""The parameters of an encoder's layers in the form that `accl.kernels.triton.layer` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from accl.kernels.triton.flat import FlatParameters


@dataclass(frozen=True)
class LayerModules:
    """Linear layers and norms of one layer, whatever their names in an encoder.

    Attributes:
        query, key, value: projections of the layer's input. proj: of the attention's output.
        up, down: linear layers before and behind the activation.
        norm1, norm2: norms behind attention and feed-forward layer.
    """

    query: Any
    key: Any
    value: Any
    proj: Any
    norm1: Any
    up: Any
    down: Any
    norm2: Any

    @property
    def qkv(self) -> tuple[Any, Any, Any]:
        """Projections to queries, keys and values, which are computed as one."""
        return self.query, self.key, self.value


@dataclass(frozen=True)
class LayerWeights:
    """Weights and gradients of one layer, as views of flat tensors.

    Attributes:
        qkv, qkv_bias: 3 D x D, 3 D; projections to queries, keys and values, joined.
        proj, proj_bias: D x D, D; projection of the attention's output.
        up, up_bias, down, down_bias: F x D, F, D x F, D; feed-forward layer.
        gain1, bias1, gain2, bias2: D, fp32; norms behind attention and feed-forward layer.
        dqkv, dqkv_bias, dproj, dup, dup_bias, ddown: gradients, fp32.
        dnorm1, dnorm2: 3 D, fp32; gradients of a norm's gain and bias, and of the bias of the linear layer before it.

    All weights but those of the norms are in the type of the computation.
    """

    qkv: Tensor
    qkv_bias: Tensor
    proj: Tensor
    proj_bias: Tensor
    gain1: Tensor
    bias1: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    gain2: Tensor
    bias2: Tensor
    dqkv: Tensor
    dqkv_bias: Tensor
    dproj: Tensor
    dnorm1: Tensor
    dup: Tensor
    dup_bias: Tensor
    ddown: Tensor
    dnorm2: Tensor


def unsupported_sizes(width: int, heads: int, feed_forward: int) -> str | None:
    """Return what layers of such sizes lack for the kernels; None if nothing."""
    needed = {
        "heads of 16, 32, 64 or 128 channels": width % heads == 0 and width // heads in (16, 32, 64, 128),
        "widths that are multiples of 64": width % 64 == 0 and feed_forward % 64 == 0,
    }
    return next((name for name, met in needed.items() if not met), None)


def layer_matrices(layers: Sequence[LayerModules]) -> Iterator[nn.Parameter]:
    """Yield the matrices of all layers, to which weight decay applies, in the order that `layer_weights` expects."""
    for layer in layers:
        for linear in (*layer.qkv, layer.proj, layer.up, layer.down):
            yield linear.weight


def layer_vectors(layers: Sequence[LayerModules]) -> Iterator[nn.Parameter]:
    """Yield the biases and norms of all layers in the order that `layer_weights` expects."""
    for layer in layers:
        for linear in (*layer.qkv, layer.up):
            yield linear.bias
        for norm, linear in ((layer.norm1, layer.proj), (layer.norm2, layer.down)):
            yield from (norm.weight, norm.bias, linear.bias)


def layer_weights(
    layers: Sequence[LayerModules], flat: FlatParameters, weights: Tensor, skipped: int
) -> list[LayerWeights]:
    """Return the weights of an encoder's layers.

    Args:
        flat: holds `layer_matrices` and `layer_vectors`, each in adjacent memory.
        weights: copy of ``flat.values`` from element ``skipped`` on, in the type of the computation.
    """
    all_weights = []
    for layer in layers:
        parts: dict[str, list[nn.Parameter]] = {
            "qkv": [linear.weight for linear in layer.qkv],
            "qkv_bias": [linear.bias for linear in layer.qkv],
            "proj": [layer.proj.weight],
            "up": [layer.up.weight],
            "up_bias": [layer.up.bias],
            "down": [layer.down.weight],
        }
        tensors = {name: flat.span(weights, part, skipped) for name, part in parts.items()}
        tensors |= {f"d{name}": flat.span(flat.gradients, part) for name, part in parts.items()}
        for half, name, linear, norm in ((1, "proj", layer.proj, layer.norm1), (2, "down", layer.down, layer.norm2)):
            tensors[f"{name}_bias"] = flat.span(weights, [linear.bias], skipped)
            tensors[f"gain{half}"], tensors[f"bias{half}"] = norm.weight.data, norm.bias.data
            tensors[f"dnorm{half}"] = flat.span(flat.gradients, [norm.weight, norm.bias, linear.bias])
        all_weights.append(LayerWeights(**tensors))
    return all_weights
