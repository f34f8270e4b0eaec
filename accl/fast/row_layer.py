"""One layer of DeBERTa-v2 over rows of like length, forward and back by hand, in plain torch.

By hand, because on a CPU a small layer is as much bookkeeping as arithmetic: there is no graph to record and walk, sums
are made in place, and the gradients of residuals ride on matrix products.

- Everything but attention runs over the real tokens alone, one after the other, never over padding.
- Scores against positions are a product with the position table laid out by distance, L x 2L, which a relative shift
  turns into L x L without a copy: no table for every row, no gather, and nothing added up in random order on the way
  back.
- Dropout masks come from 16 random bits an element. torch draws Bernoulli numbers one by one, which takes as long as
  the matrix products.

Shapes: n rows, L length, M = n * L places, T real tokens, D hidden, F feed-forward, h heads of d, E = h * d, B = h * n,
P = 2 * L distances, U used rows of the position table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from accl.fast.row_weights import Weights


class Grid(NamedTuple):
    """Between vectors of T tokens x k and of k x n x L: which stands at each place, and at which place each stands.

    At places of padding stands any one.
    """

    fill_X: Tensor
    place_X: Tensor


class Distances(NamedTuple):
    """How the projected position table is laid out by distance, for products of contents with it.

    ``row_X``: which of U x 2 x h vectors stands at each of 2 x h x P places: first keys, in columns of
    i - j = L - 1 - column; then queries, of i - j = column - (L - 1). ``used``: the rows of the table meant, U of them.
    """

    row_X: Tensor
    used: slice


@dataclass(frozen=True)
class Part:
    """Rows that go through the layers together.

    Attributes:
        tokens: which of all real tokens these are.
        real_M1: 1 where there is a real token, else 0.
        projected, context: of queries, keys and values of all heads; of what the heads read with them.
        padding_n1L: to be added to scores: 0 where a key is real, else so little that nothing attends to it. None when
            all are real.
        generator: of its dropout, so that it does not depend on what other threads do.
    """

    n: int
    length: int
    tokens: slice
    real_M1: Tensor
    projected: Grid
    context: Grid
    padding_n1L: Tensor | None
    distances: Distances
    generator: torch.Generator


@dataclass(frozen=True)
class Shape:
    """What a layer has beside its weights.

    Attributes:
        dropout: after the layer's products, and of the position table. attention_dropout: of attention weights. 0 when
            not training.
    """

    heads: int
    size: int
    eps: float
    dropout: float
    attention_dropout: float

    @property
    def scale(self) -> float:
        """Of scores: 1 / sqrt(3 d)."""
        return float((3 * self.size) ** -0.5)


class Masks(NamedTuple):
    """Dropout of a layer, scaled; None where nothing is dropped."""

    table_UD: Tensor | None
    attention_BLL: Tensor | None
    mixed_TD: Tensor | None
    down_TD: Tensor | None


class Saved(NamedTuple):
    """What the way back needs; norms as (input, mean, 1 / deviation)."""

    x_TD: Tensor
    grid_3BLd: Tensor
    table_UD: Tensor
    position_GPd: Tensor
    probability_BLL: Tensor
    kept_BLL: Tensor
    context_TE: Tensor
    norm1: tuple[Tensor, Tensor, Tensor]
    y_TD: Tensor
    up_TF: Tensor
    wide_TF: Tensor
    norm2: tuple[Tensor, Tensor, Tensor]
    masks: Masks


def draw_masks(layers: int, table_RD: Tensor, shape: Shape, part: Part) -> list[Masks]:
    """Of every layer, all at once: a few operations on much take less time than many on little."""
    hidden, used = table_RD.shape[1], part.distances.used
    tokens = part.tokens.stop - part.tokens.start
    states = [(used.stop - used.start, hidden), (tokens, hidden), (tokens, hidden)]
    scores = (shape.heads * part.n, part.length, part.length)
    of_states = dropout_masks(states * layers, shape.dropout, part.generator, table_RD.dtype)
    of_scores = dropout_masks([scores] * layers, shape.attention_dropout, part.generator, table_RD.dtype)
    return [Masks(of_states[3 * i], of_scores[i], *of_states[3 * i + 1 : 3 * i + 3]) for i in range(layers)]


def dropout_masks(
    shapes: Sequence[tuple[int, ...]], probability: float, generator: torch.Generator | None, dtype: torch.dtype
) -> list[Tensor | None]:
    """0 for what is dropped and 1 / (share kept) for the rest; None when nothing is.

    The probability is the nearest multiple of 1 / 65536, and the scale that of this very probability, so that the mean
    is kept exactly.
    """
    if probability == 0:
        return [None] * len(shapes)
    dropped, sizes = round(probability * 2**16), [math.prod(shape) for shape in shapes]
    words = torch.empty((sum(sizes) + 3) // 4, dtype=torch.long)
    words.random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[: sum(sizes)]
    # Compared as numbers of the result's type: bools would have to be converted, at three times the price.
    masks = bits.to(dtype).ge_(dropped - 2**15).mul_(2**16 / (2**16 - dropped))
    return [mask.view(shape) for mask, shape in zip(torch.split(masks, sizes), shapes, strict=True)]


def shifted(x_BLP: Tensor) -> Tensor:
    """x[b, i, L - 1 - i + j] as [b, i, j], B x L x L: from columns by distance to columns by place; a view.

    Row i of L x 2L starts 2L after row i - 1 but is read one place earlier: rows of 2L - 1 from the L-1st element on.
    """
    batch, length, columns = x_BLP.shape
    size = length * columns
    return x_BLP.as_strided((batch, length, length), (size, columns - 1, 1), x_BLP.storage_offset() + length - 1)


def forward(
    x_TD: Tensor, table_RD: Tensor, weights: Weights, shape: Shape, part: Part, masks: Masks
) -> tuple[Tensor, Saved]:
    """A layer of disentangled attention (He et al., 2021, arXiv 2006.03654) and its feed-forward part, T x D.

    scores[i, j] = ( q_i . k_j + q_i . pk(i - j) + k_j . pq(i - j) ) / sqrt(3 d)
    """
    length, heads, size, scale = part.length, shape.heads, shape.size, shape.scale
    inner_Xd = torch.addmm(weights.inner_3E, x_TD, weights.inner_3ED.t()).view(-1, size)
    # What stands at padding is another token's and counts for nothing: as a key it is masked, and nobody reads what it
    # gets as a query.
    grid_3BLd = inner_Xd.index_select(0, part.projected.fill_X).view(3, -1, length, size)
    q_BLd, k_BLd, v_BLd = grid_3BLd.unbind()

    table_UD = table_RD[part.distances.used]
    if masks.table_UD is not None:
        table_UD = table_UD * masks.table_UD
    weight, bias = weights.of_positions
    position_Xd = torch.addmm(bias, table_UD, weight.t()).view(-1, size)
    position_GPd = position_Xd.index_select(0, part.distances.row_X).view(2 * heads, -1, size)
    by_distance_GMP = torch.bmm(grid_3BLd[:2].view(2 * heads, -1, size), position_GPd.transpose(1, 2))
    toward_BLL, back_BLL = shifted(by_distance_GMP.view(-1, length, 2 * length)).chunk(2)
    score_BLL = torch.baddbmm(toward_BLL, q_BLd, k_BLd.transpose(1, 2), beta=scale, alpha=scale)
    score_BLL.add_(back_BLL.transpose(1, 2), alpha=scale)
    if part.padding_n1L is not None:
        score_BLL.view(heads, part.n, length, length).add_(part.padding_n1L)
    probability_BLL = kept_BLL = score_BLL.softmax(-1)
    if masks.attention_BLL is not None:
        kept_BLL = probability_BLL * masks.attention_BLL
    context_Xd = torch.bmm(kept_BLL, v_BLd).view(-1, size).index_select(0, part.context.place_X)
    context_TE = context_Xd.view(len(x_TD), -1)

    def joined(
        product_TD: Tensor, residual_TD: Tensor, mask_TD: Tensor | None, norm: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        sum_TD = residual_TD + product_TD if mask_TD is None else residual_TD.addcmul(product_TD, mask_TD)
        out_TD, mean, scale = torch.native_layer_norm(sum_TD, sum_TD.shape[1:], *norm, shape.eps)
        return out_TD, (sum_TD, mean, scale)

    mixed_TD = torch.addmm(weights.mix_D, context_TE, weights.mix_DE.t())
    y_TD, norm1 = joined(mixed_TD, x_TD, masks.mixed_TD, weights.norm1)
    up_TF = torch.addmm(weights.up_F, y_TD, weights.up_FD.t())
    wide_TF = F.gelu(up_TF)
    down_TD = torch.addmm(weights.down_D, wide_TF, weights.down_DF.t())
    out_TD, norm2 = joined(down_TD, y_TD, masks.down_TD, weights.norm2)
    return out_TD, Saved(
        x_TD,
        grid_3BLd,
        table_UD,
        position_GPd,
        probability_BLL,
        kept_BLL,
        context_TE,
        norm1,
        y_TD,
        up_TF,
        wide_TF,
        norm2,
        masks,
    )


def backward(
    dout_TD: Tensor, dtable_RD: Tensor, saved: Saved, weights: Weights, shape: Shape, part: Part
) -> tuple[Tensor, Weights]:
    """Gradients of a layer's input and weights. That of the position table is added to ``dtable_RD``."""
    length, heads, size, masks = part.length, shape.heads, shape.size, saved.masks

    def unjoined(
        gradient_TD: Tensor, mask_TD: Tensor | None, norm: tuple[Tensor, Tensor, Tensor], gain: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Gradients of the residual and of the product, which are the same but for dropout; and of the norm."""
        dsum_TD, dgain_D, dbias_D = torch.ops.aten.native_layer_norm_backward(
            gradient_TD, norm[0], gradient_TD.shape[1:], *norm[1:], *gain, [True, True, True]
        )
        return dsum_TD, dsum_TD if mask_TD is None else dsum_TD * mask_TD, (dgain_D, dbias_D)

    dskip_TD, ddown_TD, dnorm2 = unjoined(dout_TD, masks.down_TD, saved.norm2, weights.norm2)
    dup_TF = torch.ops.aten.gelu_backward(torch.mm(ddown_TD, weights.down_DF), saved.up_TF)
    dy_TD = dskip_TD.addmm(dup_TF, weights.up_FD)
    dskip_TD, dmix_TD, dnorm1 = unjoined(dy_TD, masks.mixed_TD, saved.norm1, weights.norm1)

    q_BLd, k_BLd, v_BLd = saved.grid_3BLd.unbind()
    dcontext_Xd = torch.mm(dmix_TD, weights.mix_DE).view(-1, size).index_select(0, part.context.fill_X)
    dcontext_Xd.view(heads, -1, size).mul_(part.real_M1)
    dcontext_BLd = dcontext_Xd.view(-1, length, size)
    dgrid_3BLd = torch.empty_like(saved.grid_3BLd)
    dq_BLd, dk_BLd, dv_BLd = dgrid_3BLd.unbind()
    dkept_BLL = torch.bmm(dcontext_BLd, v_BLd.transpose(1, 2))
    if masks.attention_BLL is not None:
        dkept_BLL.mul_(masks.attention_BLL)
    torch.bmm(saved.kept_BLL.transpose(1, 2), dcontext_BLd, out=dv_BLd)
    dscore_BLL = torch._softmax_backward_data(dkept_BLL, saved.probability_BLL, -1, dkept_BLL.dtype).mul_(shape.scale)
    torch.bmm(dscore_BLL, k_BLd, out=dq_BLd)
    torch.bmm(dscore_BLL.transpose(1, 2), q_BLd, out=dk_BLd)

    # Back through the shift: what no score was read from stays 0, in both directions alike.
    by_distance_SLP = dscore_BLL.new_zeros(2 * len(dscore_BLL), length, 2 * length)
    toward_BLL, back_BLL = shifted(by_distance_SLP).chunk(2)
    toward_BLL.copy_(dscore_BLL)
    back_BLL.copy_(dscore_BLL.transpose(1, 2))
    by_distance_GMP = by_distance_SLP.view(2 * heads, -1, 2 * length)
    dgrid_3BLd[:2].view(2 * heads, -1, size).baddbmm_(by_distance_GMP, saved.position_GPd)
    dposition_GPd = torch.bmm(by_distance_GMP.transpose(1, 2), saved.grid_3BLd[:2].view(2 * heads, -1, size))
    dposition_Xd = dposition_GPd.new_zeros(len(saved.table_UD) * 2 * heads, size)
    dposition_Xd.index_add_(0, part.distances.row_X, dposition_GPd.view(-1, size))
    dposition_U2E = dposition_Xd.view(len(saved.table_UD), -1)
    dtable_UD = torch.mm(dposition_U2E, weights.of_positions[0])
    dtable_RD[part.distances.used].add_(dtable_UD if masks.table_UD is None else dtable_UD.mul_(masks.table_UD))

    dinner_T3E = dgrid_3BLd.view(-1, size).index_select(0, part.projected.place_X).view(len(dout_TD), -1)
    dinner_3ED, dinner_3E = torch.mm(dinner_T3E.t(), saved.x_TD), dinner_T3E.sum(0)
    dposition_2ED, dposition_2E = torch.mm(dposition_U2E.t(), saved.table_UD), dposition_U2E.sum(0)
    own = weights.position_2ED is not None
    if not own:
        dinner_3ED[: len(dposition_2E)] += dposition_2ED
        dinner_3E[: len(dposition_2E)] += dposition_2E
    gradients = Weights(
        inner_3ED=dinner_3ED,
        inner_3E=dinner_3E,
        position_2ED=dposition_2ED if own else None,
        position_2E=dposition_2E if own else None,
        mix_DE=torch.mm(dmix_TD.t(), saved.context_TE),
        mix_D=dmix_TD.sum(0),
        norm1=dnorm1,
        up_FD=torch.mm(dup_TF.t(), saved.y_TD),
        up_F=dup_TF.sum(0),
        down_DF=torch.mm(ddown_TD.t(), saved.wide_TF),
        down_D=ddown_TD.sum(0),
        norm2=dnorm2,
    )
    return dskip_TD.addmm(dinner_T3E, weights.inner_3ED), gradients
