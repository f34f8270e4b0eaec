"""One layer of DeBERTa-v2 over rows that lie end to end, forward and back by hand, with the kernels in `c/`.

By hand, because on a CPU a small layer is as much bookkeeping as arithmetic: there is no graph to record and walk, few
calls wait for Python's lock, nothing is computed for padding, no dropout mask is drawn or kept, and the gradients of
residuals ride on matrix products.

Shapes: n rows, T tokens, D hidden, F feed-forward, h heads of d, E = h * d, U used rows of the position table,
X scores of all rows and heads, rows padded.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from accl.fast.native import pointer
from accl.fast.products import products
from accl.fast.row_weights import Weights

# Places of dropout in a layer: the position table, attention weights, what attention adds, what feed-forward adds.
TABLE, ATTENTION, MIXED, DOWN = range(4)
SITES = 4
# Floats that rows of scores are padded to a multiple of, as in c/shared.h.
PADDING = 16


class Distances(NamedTuple):
    """How the position table is laid out by distance.

    ``row_X``: which of the U rows belongs to the distance i - j = L - 1 - x of query i and key j, 2L - 1 of them.
    ``used``: the rows of the table meant, U of them.
    """

    row_X: Tensor
    used: slice


@dataclass(frozen=True)
class Part:
    """Rows that go through the layers together.

    Attributes:
        tokens, rows: which of all these are.
        begin_n: where each row begins, and the end of the last.
        scores: floats that the scores of all rows and heads take.
        seed: of its dropout, so that it does not depend on what other threads do.
        scratch: for kernels to work in.
    """

    longest: int
    tokens: slice
    rows: slice
    begin_n: Tensor
    scores: int
    distances: Distances
    seed: int
    scratch: Tensor

    @property
    def spans(self) -> tuple[int, int]:
        """Where rows begin, and how many there are, as kernels take them."""
        return pointer(self.begin_n), len(self.begin_n) - 1

    @property
    def places(self) -> tuple[int, int, int, int]:
        """`spans` and positions, as the kernels of attention take them."""
        return *self.spans, self.longest, pointer(self.distances.row_X)


@dataclass(frozen=True)
class Shape:
    """What a layer has beside its weights.

    Attributes:
        dropout: after the layer's products, and of the position table. attention_dropout: of attention weights.
            embedding_dropout: of what comes into the first layer. 0 when not training.
    """

    heads: int
    size: int
    eps: float
    dropout: float
    attention_dropout: float
    embedding_dropout: float

    @property
    def scale(self) -> float:
        """Of scores: 1 / sqrt(3 d)."""
        return float((3 * self.size) ** -0.5)


class Saved(NamedTuple):
    """What the way back needs; of norms what came out before gain and bias, and 1 / deviation."""

    x_TD: Tensor
    qkv_T3E: Tensor
    table_UD: Tensor
    position_U2E: Tensor
    probability_X: Tensor
    context_TE: Tensor
    norm1: tuple[Tensor, Tensor]
    y_TD: Tensor
    slope_TF: Tensor
    wide_TF: Tensor
    norm2: tuple[Tensor, Tensor]


class Layer:
    """A layer of an encoder: its weights, and what it computes for a part of the rows.

    Args:
        number: of the layer, from 0 on.
    """

    def __init__(self, kernels: ctypes.CDLL, weights: Weights, shape: Shape, number: int) -> None:
        self._kernels, self._products = kernels, products(kernels)
        self._weights, self._shape = weights, shape
        self._site = 1 + SITES * number  # 0 is the embedding

    def forward(self, x_TD: Tensor, table_RD: Tensor, part: Part, out_TD: Tensor) -> Saved:
        """Writes the layer's output to ``out_TD``."""
        kernels, weights, shape = self._kernels, self._weights, self._shape
        tokens, hidden = x_TD.shape
        table_UD = table_RD[part.distances.used]
        if shape.dropout:
            table_UD = dropout(kernels, table_UD, torch.empty_like(table_UD), self._dropout(part, TABLE))
        linear, scratch = self._products.forward, part.scratch
        position_U2E = linear(table_UD, weights.position_2ED, weights.position_2E, scratch)
        qkv_T3E = linear(x_TD, weights.inner_3ED, weights.inner_3E, scratch)
        probability_X, context_TE = x_TD.new_empty(part.scores), x_TD.new_empty(tokens, shape.heads * shape.size)
        kernels.attention(
            pointer(qkv_T3E),
            pointer(position_U2E),
            *part.places,
            shape.heads,
            shape.size,
            shape.scale,
            *self._dropout(part, ATTENTION),
            pointer(part.scratch),
            pointer(probability_X),
            pointer(context_TE),
        )

        def joined(
            product_TD: Tensor,
            bias_D: Tensor,
            residual_TD: Tensor,
            norm: tuple[Tensor, Tensor],
            site: int,
            out_TD: Tensor,
        ) -> tuple[Tensor, Tensor]:
            inverse_T = product_TD.new_empty(tokens)
            kernels.norm(
                pointer(product_TD),
                pointer(bias_D),
                pointer(residual_TD),
                *map(pointer, norm),
                tokens,
                hidden,
                shape.eps,
                *self._dropout(part, site),
                pointer(out_TD),
                pointer(inverse_T),
            )
            return product_TD, inverse_T

        y_TD = torch.empty_like(x_TD)
        mixed_TD = linear(context_TE, weights.mix_DE, None, scratch)
        norm1 = joined(mixed_TD, weights.mix_D, x_TD, weights.norm1, MIXED, y_TD)
        up_TF = linear(y_TD, weights.up_FD, None, scratch)
        wide_TF = torch.empty_like(up_TF)
        kernels.gelu(pointer(up_TF), pointer(weights.up_F), *up_TF.shape, pointer(wide_TF))
        down_TD = linear(wide_TF, weights.down_DF, None, scratch)
        norm2 = joined(down_TD, weights.down_D, y_TD, weights.norm2, DOWN, out_TD)
        return Saved(
            x_TD, qkv_T3E, table_UD, position_U2E, probability_X, context_TE, norm1, y_TD, up_TF, wide_TF, norm2
        )

    def backward(
        self, dout_TD: Tensor, saved: Saved, part: Part, gradients: Weights, dtable_RD: Tensor, room: Room
    ) -> None:
        """Gradients of the layer's input, written over ``dout_TD``, and of its weights, to ``gradients``. That of the
        position table is added to ``dtable_RD``."""
        kernels, weights, shape = self._kernels, self._weights, self._shape
        back, to_weights, scratch = self._products.back, self._products.weights, part.scratch
        tokens, hidden = dout_TD.shape

        def unjoined(
            dout_TD: Tensor,
            norm: tuple[Tensor, Tensor],
            gain_D: Tensor,
            site: int,
            dnorm: tuple[Tensor, Tensor],
            dbias_D: Tensor,
        ) -> None:
            """Gradients of the residual over ``dout_TD``, and of the product, which are the same but for dropout."""
            kernels.norm_back(
                pointer(dout_TD),
                *map(pointer, norm),
                pointer(gain_D),
                tokens,
                hidden,
                *self._dropout(part, site),
                pointer(dout_TD),
                pointer(room.dproduct_TD),
                *map(pointer, dnorm),
                pointer(dbias_D),
            )

        unjoined(dout_TD, saved.norm2, weights.norm2[0], DOWN, gradients.norm2, gradients.down_D)
        dup_TF = room.dup_TF
        to_weights(room.dproduct_TD, saved.wide_TF, gradients.down_DF, scratch)
        back(room.dproduct_TD, weights.down_DF, dup_TF, scratch)
        kernels.gelu_back(pointer(dup_TF), pointer(saved.slope_TF), *dup_TF.shape, pointer(gradients.up_F))
        to_weights(dup_TF, saved.y_TD, gradients.up_FD, scratch)
        back(dup_TF, weights.up_FD, dout_TD, scratch, add=True)
        unjoined(dout_TD, saved.norm1, weights.norm1[0], MIXED, gradients.norm1, gradients.mix_D)
        to_weights(room.dproduct_TD, saved.context_TE, gradients.mix_DE, scratch)
        back(room.dproduct_TD, weights.mix_DE, room.dcontext_TE, scratch)

        dqkv_T3E, dposition_U2E = room.dqkv_T3E, room.dposition_U2E
        kernels.attention_back(
            pointer(room.dcontext_TE),
            pointer(saved.qkv_T3E),
            pointer(saved.position_U2E),
            pointer(saved.probability_X),
            *part.places,
            len(dposition_U2E),
            shape.heads,
            shape.size,
            shape.scale,
            *self._dropout(part, ATTENTION),
            pointer(part.scratch),
            pointer(dqkv_T3E),
            pointer(gradients.inner_3E),
            pointer(dposition_U2E),
            pointer(gradients.position_2E),
        )
        to_weights(dqkv_T3E, saved.x_TD, gradients.inner_3ED, scratch)
        # Where the weights are shared, on top of what is there.
        shared = not weights.own_positions
        to_weights(dposition_U2E, saved.table_UD, gradients.position_2ED, scratch, add=shared)
        dtable_UD = torch.empty_like(saved.table_UD)
        back(dposition_U2E, weights.position_2ED, dtable_UD, scratch)
        if shape.dropout:
            dropout(kernels, dtable_UD, dtable_UD, self._dropout(part, TABLE))
        dtable_RD[part.distances.used].add_(dtable_UD)
        back(dqkv_T3E, weights.inner_3ED, dout_TD, scratch, add=True)

    def _dropout(self, part: Part, site: int) -> tuple[int, int, float]:
        probability = self._shape.attention_dropout if site == ATTENTION else self._shape.dropout
        return part.seed, self._site + site, probability


class Room(NamedTuple):
    """Gradients between the products, of one layer after the other."""

    dproduct_TD: Tensor
    dup_TF: Tensor
    dcontext_TE: Tensor
    dqkv_T3E: Tensor
    dposition_U2E: Tensor

    @classmethod
    def of(cls, saved: Saved) -> Room:
        """For the way back of that part; layers are all of one shape."""
        like = (saved.x_TD, saved.wide_TF, saved.context_TE, saved.qkv_T3E, saved.position_U2E)
        return cls(*map(torch.empty_like, like))


def dropout(kernels: ctypes.CDLL, x: Tensor, out: Tensor, dropping: tuple[int, int, float]) -> Tensor:
    """``x`` or its gradient, written to ``out``, which may be ``x``."""
    kernels.dropout(pointer(x), pointer(out), x.numel(), *dropping)
    return out
