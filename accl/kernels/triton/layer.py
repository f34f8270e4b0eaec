"""Forward and backward pass of one layer of DeBERTa-v2 and -v3 on packed sequences, without autograd, on the GPU.

Matrix products are cuBLAS's and GELU is torch's; what stands between them is in `accl.kernels.triton.pointwise`,
`accl.kernels.triton.attention` and `accl.kernels.triton.rel_scores`. Gradients of parameters are written to their
place in `accl.kernels.triton.flat`, not accumulated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from accl.kernels.triton.attention import Attended, PackedSequences, attend, attend_backward
from accl.kernels.triton.dropout import dropout_offset
from accl.kernels.triton.parameters import LayerWeights
from accl.kernels.triton.pointwise import add_norm, add_norm_backward, apply_dropout, column_sums, gelu_backward
from accl.kernels.triton.positions import RelativePositions
from accl.kernels.triton.rel_scores import grad_to_positions, grad_to_tokens, rel_scores
from accl.kernels.triton.streams import SideStream

# Dropouts in a layer: of position table, attention weights, attention output, feed-forward output.
DROPOUTS = 4


@dataclass(frozen=True)
class EncoderSettings:
    """Settings of an encoder.

    Attributes:
        heads: H. eps: of the norms. hidden_dropout, attention_dropout: probabilities.
    """

    heads: int
    eps: float
    hidden_dropout: float
    attention_dropout: float


@dataclass(frozen=True)
class LayerContext:
    """Values that all layers of a pass share."""

    sequences: PackedSequences
    positions: RelativePositions
    settings: EncoderSettings


@dataclass(frozen=True)
class SavedActivations:
    """Values of the forward pass that a layer's backward pass needs, all in the type of the computation.

    Attributes:
        inputs: (T + W) x D; tokens and position table. qkv: (T + W) x 3 D. attended: see `Attended`.
        proj: T x D; projected output of the attention. norm1: mean and rstd of the norm behind it. hidden: T x D;
            result of that norm.
        up, gelu: T x F; before and after the activation. down: T x D; output of the feed-forward layer.
        norm2: as norm1.
    """

    inputs: Tensor
    qkv: Tensor
    attended: Attended
    proj: Tensor
    norm1: tuple[Tensor, Tensor]
    hidden: Tensor
    up: Tensor
    gelu: Tensor
    down: Tensor
    norm2: tuple[Tensor, Tensor]


@dataclass
class GradBuffer:
    """Memory for the gradient to a layer's relative scores, 2 x H x T x 2R.

    Attributes:
        last_read: fires when the side stream has read what a layer wrote; None before the first one.
    """

    drel_scores: Tensor
    last_read: torch.cuda.Event | None = None


@dataclass(frozen=True)
class BackwardContext:
    """Values that the layers of a backward pass share.

    Attributes:
        matrix_stream, position_stream: for gradients of parameters, which nothing in the pass waits for.
        buffers: two, used in turn, so that a layer does not wait for the readers of the one above it.
        dtable: W x D, fp32; gradient of the position table, which the layers add to.
    """

    context: LayerContext
    matrix_stream: SideStream
    position_stream: SideStream
    buffers: tuple[GradBuffer, GradBuffer]
    dtable: Tensor


def forward(inputs: Tensor, out: Tensor, context: LayerContext, weights: LayerWeights, layer: int) -> SavedActivations:
    """Compute a layer; its result is written to the first T rows of ``out``.

    Args:
        inputs, out: (T + W) x D; tokens, and the position table behind them. layer: index of the layer.
    """
    sequences, settings = context.sequences, context.settings
    tokens, seed, dropout = len(sequences.start_T), sequences.seed, settings.hidden_dropout
    _, attention_offset, proj_offset, down_offset = dropout_offsets(layer)
    x = inputs[:tokens]
    qkv = torch.addmm(weights.qkv_bias, inputs, weights.qkv.t())
    scores = rel_scores(qkv, sequences, context.positions, settings.heads)
    attended = attend(qkv, scores, sequences, settings.heads, attention_offset, settings.attention_dropout)
    proj = torch.addmm(weights.proj_bias, attended.out, weights.proj.t())
    hidden = torch.empty_like(x)
    norm1 = add_norm(proj, x, weights.gain1, weights.bias1, settings.eps, seed, proj_offset, dropout, hidden)
    up = torch.addmm(weights.up_bias, hidden, weights.up.t())
    gelu = F.gelu(up)
    down = torch.addmm(weights.down_bias, gelu, weights.down.t())
    norm2 = add_norm(down, hidden, weights.gain2, weights.bias2, settings.eps, seed, down_offset, dropout, out[:tokens])
    return SavedActivations(inputs, qkv, attended, proj, norm1, hidden, up, gelu, down, norm2)


def backward(
    dout: Tensor, saved: SavedActivations, backward_context: BackwardContext, weights: LayerWeights, layer: int
) -> Tensor:
    """Compute the gradients of `forward`: of parameters in place, of the position table added to ``dtable``.

    Args:
        dout: T x D.

    Returns:
        the gradient to the tokens, T x D. Those of parameters are there once both side streams are joined.
    """
    context, buffer = backward_context.context, backward_context.buffers[layer % 2]
    sequences, positions, settings = context.sequences, context.positions, context.settings
    matrix_stream, position_stream = backward_context.matrix_stream, backward_context.position_stream
    tokens, seed, dropout = len(dout), sequences.seed, settings.hidden_dropout
    table_offset, attention_offset, proj_offset, down_offset = dropout_offsets(layer)
    x, qkv = saved.inputs[:tokens], saved.qkv
    ddown, dhidden, partial = add_norm_backward(
        dout, saved.down, saved.hidden, weights.gain2, *saved.norm2, seed, down_offset, dropout
    )
    with matrix_stream.on_stream(ddown, partial, saved.gelu):
        _weight_gradient(ddown, saved.gelu, weights.ddown)
        column_sums(partial, weights.dnorm2)
    dup, partial = gelu_backward(torch.mm(ddown, weights.down), saved.up)
    with matrix_stream.on_stream(dup, partial, saved.hidden):
        _weight_gradient(dup, saved.hidden, weights.dup)
        column_sums(partial, weights.dup_bias)
    dhidden.addmm_(dup, weights.up)
    dproj, dx, partial = add_norm_backward(
        dhidden, saved.proj, x, weights.gain1, *saved.norm1, seed, proj_offset, dropout
    )
    with matrix_stream.on_stream(dproj, partial, saved.attended.out):
        _weight_gradient(dproj, saved.attended.out, weights.dproj)
        column_sums(partial, weights.dnorm1)
    dqkv, dattended = torch.empty_like(qkv), torch.mm(dproj, weights.proj)
    if buffer.last_read is not None:
        torch.cuda.current_stream().wait_event(buffer.last_read)
    attend_backward(
        dattended, qkv, saved.attended, dqkv, buffer.drel_scores, sequences, settings.heads, attention_offset,
        settings.attention_dropout,
    )  # fmt: skip
    grad_to_tokens(buffer.drel_scores, qkv, sequences, positions, dqkv)
    with position_stream.on_stream(dqkv, qkv, saved.inputs):
        grad_to_positions(buffer.drel_scores, qkv, sequences, positions, dqkv)
        buffer.last_read = position_stream.record_event()
        _weight_gradient(dqkv, saved.inputs, weights.dqkv)
        column_sums(dqkv, weights.dqkv_bias)
        dpositions = torch.mm(dqkv[tokens:], weights.qkv)
        apply_dropout(dpositions, backward_context.dtable, seed, table_offset, dropout, add=True)
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
