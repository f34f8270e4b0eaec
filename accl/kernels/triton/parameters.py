"""The parameters of transformers' `DebertaV2Model` in the form that `accl.kernels.triton.layer` reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from accl.kernels.triton.flat import FlatParameters


def unsupported(config: Any) -> str | None:
    """Return why the kernels do not support a `DebertaV2Config`; None if they do."""
    width, heads = config.hidden_size, config.num_attention_heads
    needed: dict[str, bool] = {
        "relative attention of content to position and position to content": bool(config.relative_attention)
        and set(config.pos_att_type or ()) == {"c2p", "p2c"},
        "share_att_key": bool(getattr(config, "share_att_key", False)),
        "norm_rel_ebd=layer_norm": getattr(config, "norm_rel_ebd", "none") == "layer_norm",
        "no absolute positions, token types or convolution": not config.position_biased_input
        and config.type_vocab_size == 0
        and getattr(config, "conv_kernel_size", 0) == 0,
        "an embedding as wide as the layers": getattr(config, "embedding_size", width) == width,
        "hidden_act=gelu": config.hidden_act == "gelu",
        "heads of 16, 32, 64 or 128 channels": width % heads == 0 and width // heads in (16, 32, 64, 128),
        "widths that are multiples of 64": width % 64 == 0 and config.intermediate_size % 64 == 0,
    }
    missing = [name for name, met in needed.items() if not met]
    return f"the packed layers need {missing[0]}" if missing else None


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


def _qkv_projections(layer: Any) -> tuple[Any, Any, Any]:
    attention = layer.attention.self
    return attention.query_proj, attention.key_proj, attention.value_proj


def layer_matrices(encoder: Any) -> Iterator[nn.Parameter]:
    """Yield the matrices of all layers, to which weight decay applies, in the order that `layer_weights` expects."""
    for layer in encoder.encoder.layer:
        for linear in _qkv_projections(layer):
            yield linear.weight
        yield layer.attention.output.dense.weight
        yield layer.intermediate.dense.weight
        yield layer.output.dense.weight


def layer_vectors(encoder: Any) -> Iterator[nn.Parameter]:
    """Yield the biases and norms of all layers in the order that `layer_weights` expects."""
    for layer in encoder.encoder.layer:
        for linear in _qkv_projections(layer):
            yield linear.bias
        yield layer.intermediate.dense.bias
        for output in (layer.attention.output, layer.output):
            yield from (output.LayerNorm.weight, output.LayerNorm.bias, output.dense.bias)


def layer_weights(encoder: Any, flat: FlatParameters, weights: Tensor, skipped: int) -> list[LayerWeights]:
    """Return the weights of an encoder's layers.

    Args:
        flat: holds `layer_matrices` and `layer_vectors`, each in adjacent memory.
        weights: copy of ``flat.values`` from element ``skipped`` on, in the type of the computation.
    """
    layers = []
    for layer in encoder.encoder.layer:
        qkv = _qkv_projections(layer)
        parts: dict[str, list[nn.Parameter]] = {
            "qkv": [linear.weight for linear in qkv],
            "qkv_bias": [linear.bias for linear in qkv],
            "proj": [layer.attention.output.dense.weight],
            "up": [layer.intermediate.dense.weight],
            "up_bias": [layer.intermediate.dense.bias],
            "down": [layer.output.dense.weight],
        }
        tensors = {name: flat.span(weights, part, skipped) for name, part in parts.items()}
        tensors |= {f"d{name}": flat.span(flat.gradients, part) for name, part in parts.items()}
        for half, linear, output in ((1, "proj", layer.attention.output), (2, "down", layer.output)):
            norm, bias = output.LayerNorm, output.dense.bias
            tensors[f"{linear}_bias"] = flat.span(weights, [bias], skipped)
            tensors[f"gain{half}"], tensors[f"bias{half}"] = norm.weight.data, norm.bias.data
            tensors[f"dnorm{half}"] = flat.span(flat.gradients, [norm.weight, norm.bias, bias])
        layers.append(LayerWeights(**tensors))
    return layers
