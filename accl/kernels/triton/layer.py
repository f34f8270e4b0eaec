"""One layer of DeBERTa-v2 and -v3 over packed sequences: forward and backward pass by hand, on the GPU.

Matrix products are cuBLAS's and GELU torch's, all else between them is in `accl.kernels.triton.pointwise`, `accl.kernels.triton.attention`
and `accl.kernels.triton.tables`. Parameter gradients are written where `accl.kernels.triton.flat` keeps them, not accumulated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from accl.kernels.triton.adamw import square_sums
from accl.kernels.triton.aside import Aside, wait
from accl.kernels.triton.attention import Attended, Stream, attend, attend_backward
from accl.kernels.triton.dropout import site
from accl.kernels.triton.parameters import Layer
from accl.kernels.triton.pointwise import add_dropped, add_norm, add_norm_backward, column_sums, gelu_backward
from accl.kernels.triton.positions import Reach
from accl.kernels.triton.tables import look_up, look_up_to_table, look_up_to_tokens

# Places of dropout in a layer: position table, attention weights, after attention, after the feed-forward part.
SITES = 4


@dataclass(frozen=True)
class Shape:
    """Numbers of an encoder: heads H, eps of its norms, and its dropout."""

    heads: int
    eps: float
    hidden_dropout: float
    attention_dropout: float


@dataclass(frozen=True)
class Pass:
    """What all layers of one pass share."""

    stream: Stream
    reach: Reach
    shape: Shape


@dataclass(frozen=True)
class Saved:
    """What the backward pass of a layer needs of the forward one."""

    joined: Tensor
    qkv: Tensor
    attended: Attended
    mixed: Tensor
    norm1: tuple[Tensor, Tensor]
    h: Tensor
    inner: Tensor
    active: Tensor
    dense: Tensor
    norm2: tuple[Tensor, Tensor]


@dataclass
class Room:
    """Where a layer leaves the gradients of its tables, 2 x H x T x 2R, and who reads them last."""

    dtables: Tensor
    read: torch.cuda.Event | None = None


@dataclass(frozen=True)
class Back:
    """What the layers of a backward pass share.

    Attributes:
        matrices, tables: streams for the gradients of parameters, which nothing in the pass waits for.
        rooms: two, so that a layer need not wait for those who read what the one above it left.
        dtable: gradient of the position table, W x D in fp32, which the layers add to.
    """

    shared: Pass
    matrices: Aside
    tables: Aside
    rooms: tuple[Room, Room]
    dtable: Tensor


def forward(joined: Tensor, out: Tensor, shared: Pass, layer: Layer, number: int) -> Saved:
    """A layer over (T + W) x D: tokens, and the position table behind them; its result goes to the first T of out."""
    stream, shape = shared.stream, shared.shape
    tokens, seed, dropout = len(stream.start_T), stream.seed, shape.hidden_dropout
    x = joined[:tokens]
    qkv = torch.addmm(layer.qkv_bias, joined, layer.qkv.t())
    tables = look_up(qkv, stream, shared.reach, shape.heads)
    attended = attend(qkv, tables, stream, shape.heads, _site(number, 1), shape.attention_dropout)
    mixed = torch.addmm(layer.mix_bias, attended.out, layer.mix.t())
    h = torch.empty_like(x)
    norm1 = add_norm(mixed, x, layer.gain1, layer.bias1, shape.eps, seed, _site(number, 2), dropout, h)
    inner = torch.addmm(layer.up_bias, h, layer.up.t())
    active = F.gelu(inner)
    dense = torch.addmm(layer.down_bias, active, layer.down.t())
    norm2 = add_norm(dense, h, layer.gain2, layer.bias2, shape.eps, seed, _site(number, 3), dropout, out[:tokens])
    return Saved(joined, qkv, attended, mixed, norm1, h, inner, active, dense, norm2)


def backward(dout: Tensor, saved: Saved, back: Back, layer: Layer, number: int) -> tuple[Tensor, Tensor]:
    """Gradients of `forward`: to the tokens as the result, T x D, to the position table added to ``back.dtable``.

    Returns:
        sums of squares of its matrices' gradients besides; those are there when ``back.tables`` is joined.
    """
    shared, room = back.shared, back.rooms[number % 2]
    stream, reach, shape = shared.stream, shared.reach, shared.shape
    tokens, seed, dropout = len(dout), stream.seed, shape.hidden_dropout
    x, qkv = saved.joined[:tokens], saved.qkv
    ddense, dh, partial = add_norm_backward(
        dout, saved.dense, saved.h, layer.gain2, *saved.norm2, seed, _site(number, 3), dropout
    )
    with back.matrices(ddense, partial, saved.active):
        _weight_gradient(ddense, saved.active, layer.ddown)
        column_sums(partial, layer.sums2)
    dinner, partial = gelu_backward(torch.mm(ddense, layer.down), saved.inner)
    with back.matrices(dinner, partial, saved.h):
        _weight_gradient(dinner, saved.h, layer.dup)
        column_sums(partial, layer.dup_bias)
    dh.addmm_(dinner, layer.up)
    dmixed, dx, partial = add_norm_backward(
        dh, saved.mixed, x, layer.gain1, *saved.norm1, seed, _site(number, 2), dropout
    )
    with back.matrices(dmixed, partial, saved.attended.out):
        _weight_gradient(dmixed, saved.attended.out, layer.dmix)
        column_sums(partial, layer.sums1)
        done = back.matrices.mark()
    dqkv, dseen = torch.empty_like(qkv), torch.mm(dmixed, layer.mix)
    wait(room.read)
    attend_backward(
        dseen, qkv, saved.attended, dqkv, room.dtables, stream, shape.heads, _site(number, 1), shape.attention_dropout
    )
    look_up_to_tokens(room.dtables, qkv, stream, reach, dqkv)
    with back.tables(dqkv, qkv, saved.joined):
        look_up_to_table(room.dtables, qkv, stream, reach, dqkv)
        room.read = back.tables.mark()
        _weight_gradient(dqkv, saved.joined, layer.dqkv)
        column_sums(dqkv, layer.dqkv_bias)
        add_dropped(torch.mm(dqkv[tokens:], layer.qkv), back.dtable, seed, _site(number, 0), dropout)
        wait(done)
        squares = square_sums(layer.matrices)
    return dx.addmm_(dqkv[:tokens], layer.qkv), squares


def _site(number: int, place: int) -> int:
    return site(number * SITES + place)


def _weight_gradient(dout: Tensor, inputs: Tensor, out: Tensor) -> None:
    """dout^T inputs in fp32, whatever the type of both."""
    if dout.dtype == out.dtype:
        torch.mm(dout.t(), inputs, out=out)
    else:
        torch.mm(dout.t(), inputs, out_dtype=out.dtype, out=out)
