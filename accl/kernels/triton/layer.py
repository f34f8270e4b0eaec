"""Forward and backward pass of one layer on packed sequences, without autograd, on the GPU.

A layer is attention and feed-forward layer, each with a norm behind its residual, as in BERT and DeBERTa. Encoders
differ in their attention, a `LayerAttention`. Matrix products are cuBLAS's and GELU is torch's; what stands between
them is in `accl.kernels.triton.pointwise`. Gradients have their place in `accl.kernels.triton.flat`: those of matrices
are written, those of vectors, which are sums over tokens, are added to what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from accl.kernels.triton.attention import PackedSequences
from accl.kernels.triton.dropout import dropout_offset
from accl.kernels.triton.parameters import LayerWeights
from accl.kernels.triton.pointwise import add_column_sums, add_norm, add_norm_backward, gelu_backward
from accl.kernels.triton.streams import SideStream

# Dropouts in a layer: of position table, attention weights, attention output, feed-forward output.
DROPOUTS = 4


@dataclass(frozen=True)
class EncoderSettings:
    """Settings of an encoder.

    Attributes:
        heads: H. eps: of the norms.
        hidden_dropout: probability behind embeddings and feed-forward layers. proj_dropout: behind the projection of
            the attention's output. attention_dropout: of attention weights.
    """

    heads: int
    eps: float
    hidden_dropout: float
    proj_dropout: float
    attention_dropout: float


class LayerAttention(Protocol):
    """Attention of the layers of one pass: from joined queries, keys and values to the weighted sum of values.

    ``qkv`` has T rows of 3 D channels, or more where an encoder puts other rows behind its tokens.
    """

    def attend(self, qkv: Tensor, layer: int) -> Any:
        """Return what `backward` needs, with the result, T x D, as attribute ``out``."""

    def backward(self, dout: Tensor, qkv: Tensor, attended: Any, dqkv: Tensor, layer: int) -> None:
        """Write the gradient of `attend` to the first T rows of ``dqkv``, which is like ``qkv``.

        Args:
            dout: T x D. attended: as `attend` returned it.
        """

    def backward_aside(self, qkv: Tensor, dqkv: Tensor, weights: LayerWeights, layer: int) -> None:
        """Write the other rows of ``dqkv``, and what follows from them, on the current side stream."""


@dataclass(frozen=True)
class LayerContext:
    """Values that all layers of a pass share.

    Attributes:
        matrix_stream, attention_stream: for gradients of parameters, which nothing in the backward pass waits for.
    """

    sequences: PackedSequences
    settings: EncoderSettings
    attention: LayerAttention
    matrix_stream: SideStream
    attention_stream: SideStream


@dataclass(frozen=True)
class SavedActivations:
    """Values of the forward pass that a layer's backward pass needs, all in the type of the computation.

    Attributes:
        inputs: as given to `forward`. qkv: as many rows, 3 D. attended: see `LayerAttention`.
        proj: T x D; projected output of the attention. norm1: mean and rstd of the norm behind it. hidden: T x D;
            result of that norm.
        up, gelu: T x F; before and after the activation. down: T x D; output of the feed-forward layer.
        norm2: as norm1.
    """

    inputs: Tensor
    qkv: Tensor
    attended: Any
    proj: Tensor
    norm1: tuple[Tensor, Tensor]
    hidden: Tensor
    up: Tensor
    gelu: Tensor
    down: Tensor
    norm2: tuple[Tensor, Tensor]


def forward(inputs: Tensor, out: Tensor, context: LayerContext, weights: LayerWeights, layer: int) -> SavedActivations:
    """Compute a layer; its result is written to the first T rows of ``out``.

    Args:
        inputs, out: T x D; with as many rows behind these as the attention reads. layer: index of the layer.
    """
    sequences, settings = context.sequences, context.settings
    tokens, seed, eps = len(sequences.start_T), sequences.seed, settings.eps
    _, _, proj_offset, down_offset = dropout_offsets(layer)
    x = inputs[:tokens]
    qkv = torch.addmm(weights.qkv_bias, inputs, weights.qkv.t())
    attended = context.attention.attend(qkv, layer)
    proj = torch.addmm(weights.proj_bias, attended.out, weights.proj.t())
    hidden = torch.empty_like(x)
    norm1 = add_norm(proj, x, weights.gain1, weights.bias1, eps, seed, proj_offset, settings.proj_dropout, hidden)
    up = torch.addmm(weights.up_bias, hidden, weights.up.t())
    gelu = F.gelu(up)
    down = torch.addmm(weights.down_bias, gelu, weights.down.t())
    norm2 = add_norm(
        down, hidden, weights.gain2, weights.bias2, eps, seed, down_offset, settings.hidden_dropout, out[:tokens]
    )
    return SavedActivations(inputs, qkv, attended, proj, norm1, hidden, up, gelu, down, norm2)


def backward(dout: Tensor, saved: SavedActivations, context: LayerContext, weights: LayerWeights, layer: int) -> Tensor:
    """Compute the gradients of `forward`, of parameters in place.

    Args:
        dout: T x D.

    Returns:
        the gradient to the tokens, T x D. Those of parameters are there once both side streams are joined.
    """
    settings, seed, tokens = context.settings, context.sequences.seed, len(dout)
    matrix_stream, attention_stream = context.matrix_stream, context.attention_stream
    _, _, proj_offset, down_offset = dropout_offsets(layer)
    x, qkv = saved.inputs[:tokens], saved.qkv
    ddown, dhidden = add_norm_backward(
        dout, saved.down, saved.hidden, weights.gain2, *saved.norm2, seed, down_offset, settings.hidden_dropout,
        weights.dnorm2,
    )  # fmt: skip
    with matrix_stream.on_stream(ddown, saved.gelu):
        _weight_gradient(ddown, saved.gelu, weights.ddown)
    dup = gelu_backward(torch.mm(ddown, weights.down), saved.up, weights.dup_bias)
    with matrix_stream.on_stream(dup, saved.hidden):
        _weight_gradient(dup, saved.hidden, weights.dup)
    dhidden.addmm_(dup, weights.up)
    dproj, dx = add_norm_backward(
        dhidden, saved.proj, x, weights.gain1, *saved.norm1, seed, proj_offset, settings.proj_dropout, weights.dnorm1
    )
    with matrix_stream.on_stream(dproj, saved.attended.out):
        _weight_gradient(dproj, saved.attended.out, weights.dproj)
    dqkv, dattended = torch.empty_like(qkv), torch.mm(dproj, weights.proj)
    context.attention.backward(dattended, qkv, saved.attended, dqkv, layer)
    with attention_stream.on_stream(dqkv, qkv, saved.inputs):
        context.attention.backward_aside(qkv, dqkv, weights, layer)
        _weight_gradient(dqkv, saved.inputs, weights.dqkv)
        add_column_sums(dqkv, weights.dqkv_bias)
    return dx.addmm_(dqkv[:tokens], weights.qkv)


def dropout_offsets(layer: int) -> list[int]:
    """Return the offsets of a layer's dropouts, in the order of `DROPOUTS`."""
    return [dropout_offset(layer * DROPOUTS + index) for index in range(DROPOUTS)]


def _weight_gradient(dout: Tensor, inputs: Tensor, out: Tensor) -> None:
    """Compute out = dout^T inputs in fp32, whatever the type of both."""
    if dout.dtype == out.dtype:
        torch.mm(dout.t(), inputs, out=out)
    else:
        torch.mm(dout.t(), inputs, out_dtype=out.dtype, out=out)
