"""The parameters of transformers' `DebertaV2Model`, as `accl.kernels.triton.deberta` wants them, and which encoders have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from accl.kernels.triton.flat import FlatParameters


def unsupported(config: Any) -> str | None:
    """Why a `DebertaV2Config` cannot be taken; None when it can."""
    width, heads = config.hidden_size, config.num_attention_heads
    wanted: dict[str, bool] = {
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
    missing = [name for name, there in wanted.items() if not there]
    return f"the fast layers need {missing[0]}" if missing else None


@dataclass(frozen=True)
class Layer:
    """Weights of one layer in the type that is computed in, norms in fp32, and where the gradients go, in fp32.

    ``sums``: 3 D; gradients of a norm's gain and bias, and of the bias of the linear layer before it. ``matrices``: the
    gradients of all matrices, end to end.
    """

    qkv: Tensor
    qkv_bias: Tensor
    mix: Tensor
    mix_bias: Tensor
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
    dmix: Tensor
    sums1: Tensor
    dup: Tensor
    dup_bias: Tensor
    ddown: Tensor
    sums2: Tensor
    matrices: Tensor


def matrices(encoder: nn.Module) -> Iterator[nn.Parameter]:
    """Weights of all layers in the order that `take_layers` expects: those that decay."""
    for layer in encoder.encoder.layer:  # type: ignore[union-attr]
        attention = layer.attention
        for linear in (attention.self.query_proj, attention.self.key_proj, attention.self.value_proj):
            yield linear.weight
        yield attention.output.dense.weight
        yield layer.intermediate.dense.weight
        yield layer.output.dense.weight


def vectors(encoder: nn.Module) -> Iterator[nn.Parameter]:
    """Biases and norms of all layers in the order that `take_layers` expects."""
    for layer in encoder.encoder.layer:  # type: ignore[union-attr]
        attention = layer.attention
        for linear in (attention.self.query_proj, attention.self.key_proj, attention.self.value_proj):
            yield linear.bias
        yield layer.intermediate.dense.bias
        for output in (attention.output, layer.output):
            yield from (output.LayerNorm.weight, output.LayerNorm.bias, output.dense.bias)


def take_layers(encoder: nn.Module, flat: FlatParameters, narrow: Tensor, before: int) -> list[Layer]:
    """The layers of an encoder whose `matrices` and `vectors` lie in ``flat``, end to end.

    Args:
        narrow: the copy that is computed with, of what lies ``before`` elements into ``flat``.
    """
    found = []
    stack: Any = encoder.encoder
    for layer in stack.layer:
        attention, inner = layer.attention, layer.intermediate.dense
        three = (attention.self.query_proj, attention.self.key_proj, attention.self.value_proj)
        parts = {
            "qkv": [linear.weight for linear in three],
            "qkv_bias": [linear.bias for linear in three],
            "mix": [attention.output.dense.weight],
            "up": [inner.weight],
            "up_bias": [inner.bias],
            "down": [layer.output.dense.weight],
        }
        weights = {name: flat.span(narrow, part, before) for name, part in parts.items()}
        gradients = {f"d{name}": flat.span(flat.gradients, part) for name, part in parts.items()}
        for half, output in ((1, attention.output), (2, layer.output)):
            bias = "mix_bias" if half == 1 else "down_bias"
            weights[bias] = flat.span(narrow, [output.dense.bias], before)
            norm = output.LayerNorm
            weights[f"gain{half}"], weights[f"bias{half}"] = norm.weight.data, norm.bias.data
            gradients[f"sums{half}"] = flat.span(flat.gradients, [norm.weight, norm.bias, output.dense.bias])
        whole = [weight for name in ("qkv", "mix", "up", "down") for weight in parts[name]]
        found.append(Layer(**weights, **gradients, matrices=flat.span(flat.gradients, whole)))
    return found
