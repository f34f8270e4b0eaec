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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Grid(NamedTuple):
    """Between vectors of T tokens x k and of k x n x L: which stands at each place, and at which place each stands.

    At places of padding stands any one.
    """

    fill_X: Tensor
    place_X: Tensor


class Distances(NamedTuple):
    """Which of the used rows of the position table belong to the P columns that `shifted` reads.

    ``toward``: of i - j = L - 1 - column. ``back``: of i - j = column - (L - 1). ``used``: the rows meant, U of them.
    """

    toward_P: Tensor
    back_P: Tensor
    used: slice


@dataclass(frozen=True)
class Part:
    """Rows that go through the layers together.

    Attributes:
        tokens: which of all real tokens these are. place_T: their places among all rows, padding included.
        real_M1: 1 where there is a real token, else 0.
        projected, context: of queries, keys and values of all heads; of what the heads read with them.
        padding_n1L: to be added to scores: 0 where a key is real, else so little that nothing attends to it. None when
            all are real.
        generator: of its dropout, so that it does not depend on what other threads do; None: torch's own.
    """

    n: int
    length: int
    tokens: slice
    place_T: Tensor
    real_M1: Tensor
    projected: Grid
    context: Grid
    padding_n1L: Tensor | None
    distances: Distances
    generator: torch.Generator | None


@dataclass(frozen=True)
class Weights:
    """Parameters of a layer, or their gradients.

    ``inner`` are queries, keys and values, one below the other; ``position`` queries and keys of the position table,
    and None where they are the first two thirds of ``inner``. ``norm``: gain and bias.
    """

    inner_3ED: Tensor
    inner_3E: Tensor
    position_2ED: Tensor | None
    position_2E: Tensor | None
    mix_DE: Tensor
    mix_D: Tensor
    norm1: tuple[Tensor, Tensor]
    up_FD: Tensor
    up_F: Tensor
    down_DF: Tensor
    down_D: Tensor
    norm2: tuple[Tensor, Tensor]

    @classmethod
    def joined(cls, own: Sequence[Tensor]) -> Weights:
        """From the tensors of a layer in the order of `parameters`."""
        *first, mix_DE, mix_D, gain1_D, bias1_D, up_FD, up_F, down_DF, down_D, gain2_D, bias2_D = own
        apart = len(first) > 6
        return cls(
            torch.cat(first[0:3]),
            torch.cat(first[3:6]),
            torch.cat(first[6:8]) if apart else None,
            torch.cat(first[8:10]) if apart else None,
            mix_DE,
            mix_D,
            (gain1_D, bias1_D),
            up_FD,
            up_F,
            down_DF,
            down_D,
            (gain2_D, bias2_D),
        )

    def parted(self) -> list[Tensor]:
        """The tensors of a layer in the order of `parameters`."""
        positions: tuple[Tensor, ...] = ()
        if self.position_2ED is not None and self.position_2E is not None:
            positions = (*self.position_2ED.chunk(2), *self.position_2E.chunk(2))
        return [
            *self.inner_3ED.chunk(3),
            *self.inner_3E.chunk(3),
            *positions,
            self.mix_DE,
            self.mix_D,
            *self.norm1,
            self.up_FD,
            self.up_F,
            self.down_DF,
            self.down_D,
            *self.norm2,
        ]

    @property
    def of_positions(self) -> tuple[Tensor, Tensor]:
        """Weight and bias that the position table is projected with."""
        if self.position_2ED is not None and self.position_2E is not None:
            return self.position_2ED, self.position_2E
        size = len(self.inner_3E) // 3 * 2
        return self.inner_3ED[:size], self.inner_3E[:size]


def parameters(layer: Any) -> list[Tensor]:
    """Of a `DebertaV2Layer`."""
    attention, mix = layer.attention.self, layer.attention.output
    inner = [attention.query_proj, attention.key_proj, attention.value_proj]
    positions = [] if attention.share_att_key else [attention.pos_query_proj, attention.pos_key_proj]
    rest = [mix.dense, mix.LayerNorm, layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm]
    together = [getattr(m, name) for group in (inner, positions) for name in ("weight", "bias") for m in group]
    return [*together, *(getattr(m, name) for m in rest for name in ("weight", "bias"))]


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


class Saved(NamedTuple):
    """What the way back needs; norms as (input, mean, 1 / deviation), masks scaled, None where nothing is dropped."""

    x_TD: Tensor
    grid_3BLd: Tensor
    table_UD: Tensor
    table_mask_UD: Tensor | None
    position_key_hPd: Tensor
    position_query_hPd: Tensor
    probability_BLL: Tensor
    attention_mask_BLL: Tensor | None
    context_TE: Tensor
    mask1_TD: Tensor | None
    norm1: tuple[Tensor, Tensor, Tensor]
    y_TD: Tensor
    up_TF: Tensor
    wide_TF: Tensor
    mask2_TD: Tensor | None
    norm2: tuple[Tensor, Tensor, Tensor]


def dropout_mask(like: Tensor, probability: float, generator: torch.Generator | None) -> Tensor | None:
    """0 for what is dropped and 1 / (share kept) for the rest; None when nothing is.

    The probability is the nearest multiple of 1 / 65536, and the scale that of this very probability, so that the mean
    is kept exactly.
    """
    if probability == 0:
        return None
    dropped = round(probability * 2**16)
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.long, device=like.device)
    words.random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[: like.numel()].view(like.shape)
    # Compared as numbers of the result's type: bools would have to be converted, at three times the price.
    return bits.to(like.dtype).ge_(dropped - 2**15).mul_(2**16 / (2**16 - dropped))


def shifted(x_BLP: Tensor) -> Tensor:
    """x[b, i, L - 1 - i + j] as [b, i, j], B x L x L: from columns by distance to columns by place; a view.

    Row i of L x 2L starts 2L after row i - 1 but is read one place earlier: rows of 2L - 1 from the L-1st element on.
    """
    batch, length, columns = x_BLP.shape
    rows_BLQ = x_BLP.view(batch, -1)[:, length - 1 : -1].view(batch, length, columns - 1)
    return rows_BLQ[:, :, :length]


def forward(x_TD: Tensor, table_RD: Tensor, weights: Weights, shape: Shape, part: Part) -> tuple[Tensor, Saved]:
    """A layer of disentangled attention (He et al., 2021, arXiv 2006.03654) and its feed-forward part, T x D.

    scores[i, j] = ( q_i . k_j + q_i . pk(i - j) + k_j . pq(i - j) ) / sqrt(3 d)
    """
    length, heads, size, scale = part.length, shape.heads, shape.size, shape.scale
    inner_Xd = torch.addmm(weights.inner_3E, x_TD, weights.inner_3ED.t()).view(-1, size)
    # What stands at padding is another token's and counts for nothing: as a key it is masked, and nobody reads what it
    # gets as a query.
    grid_3BLd = inner_Xd.index_select(0, part.projected.fill_X).view(3, -1, length, size)
    q_BLd, k_BLd, v_BLd = grid_3BLd

    toward_P, back_P, used = part.distances
    table_UD = table_RD[used]
    table_mask_UD = dropout_mask(table_UD, shape.dropout, part.generator)
    if table_mask_UD is not None:
        table_UD = table_UD * table_mask_UD
    weight, bias = weights.of_positions
    position_U2hd = torch.addmm(bias, table_UD, weight.t()).view(-1, 2, heads, size)

    def by_distance(content_BLd: Tensor, position_hPd: Tensor) -> Tensor:
        product_hMP = torch.bmm(content_BLd.view(heads, -1, size), position_hPd.transpose(1, 2))
        return shifted(product_hMP.view(-1, length, 2 * length))

    key_hPd = position_U2hd[:, 1].index_select(0, toward_P).transpose(0, 1)
    query_hPd = position_U2hd[:, 0].index_select(0, back_P).transpose(0, 1)
    score_BLL = torch.baddbmm(by_distance(q_BLd, key_hPd), q_BLd, k_BLd.transpose(1, 2), beta=scale, alpha=scale)
    score_BLL.add_(by_distance(k_BLd, query_hPd).transpose(1, 2), alpha=scale)
    if part.padding_n1L is not None:
        score_BLL.view(heads, part.n, length, length).add_(part.padding_n1L)
    probability_BLL = score_BLL.softmax(-1)
    attention_mask_BLL = dropout_mask(probability_BLL, shape.attention_dropout, part.generator)
    kept_BLL = probability_BLL if attention_mask_BLL is None else probability_BLL * attention_mask_BLL
    context_Xd = torch.bmm(kept_BLL, v_BLd).view(-1, size).index_select(0, part.context.place_X)
    context_TE = context_Xd.view(len(x_TD), -1)

    def joined(
        product_TD: Tensor, residual_TD: Tensor, norm: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor, Tensor]]:
        mask_TD = dropout_mask(product_TD, shape.dropout, part.generator)
        if mask_TD is not None:
            product_TD.mul_(mask_TD)
        product_TD.add_(residual_TD)
        out_TD, mean, scale = torch.native_layer_norm(product_TD, product_TD.shape[1:], *norm, shape.eps)
        return out_TD, mask_TD, (product_TD, mean, scale)

    mixed_TD = torch.addmm(weights.mix_D, context_TE, weights.mix_DE.t())
    y_TD, mask1_TD, norm1 = joined(mixed_TD, x_TD, weights.norm1)
    up_TF = torch.addmm(weights.up_F, y_TD, weights.up_FD.t())
    wide_TF = F.gelu(up_TF)
    down_TD = torch.addmm(weights.down_D, wide_TF, weights.down_DF.t())
    out_TD, mask2_TD, norm2 = joined(down_TD, y_TD, weights.norm2)
    saved = Saved(
        x_TD,
        grid_3BLd,
        table_UD,
        table_mask_UD,
        key_hPd,
        query_hPd,
        probability_BLL,
        attention_mask_BLL,
        context_TE,
        mask1_TD,
        norm1,
        y_TD,
        up_TF,
        wide_TF,
        mask2_TD,
        norm2,
    )
    return out_TD, saved


def backward(
    dout_TD: Tensor, dtable_RD: Tensor, saved: Saved, weights: Weights, shape: Shape, part: Part
) -> tuple[Tensor, Weights]:
    """Gradients of a layer's input and weights. That of the position table is added to ``dtable_RD``."""
    length, heads, size, scale = part.length, shape.heads, shape.size, shape.scale

    def unjoined(
        gradient_TD: Tensor, mask_TD: Tensor | None, norm: tuple[Tensor, Tensor, Tensor], gain: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Gradients of the residual and of the product, which are the same but for dropout; and of the norm."""
        dsum_TD, dgain_D, dbias_D = torch.ops.aten.native_layer_norm_backward(
            gradient_TD, norm[0], gradient_TD.shape[1:], *norm[1:], *gain, [True, True, True]
        )
        return dsum_TD, dsum_TD if mask_TD is None else dsum_TD * mask_TD, (dgain_D, dbias_D)

    dskip_TD, ddown_TD, dnorm2 = unjoined(dout_TD, saved.mask2_TD, saved.norm2, weights.norm2)
    dup_TF = torch.ops.aten.gelu_backward(torch.mm(ddown_TD, weights.down_DF), saved.up_TF)
    dy_TD = dskip_TD.addmm(dup_TF, weights.up_FD)
    dskip_TD, dmix_TD, dnorm1 = unjoined(dy_TD, saved.mask1_TD, saved.norm1, weights.norm1)

    q_BLd, k_BLd, v_BLd = saved.grid_3BLd
    dcontext_Xd = torch.mm(dmix_TD, weights.mix_DE).view(-1, size).index_select(0, part.context.fill_X)
    dcontext_Xd.view(heads, -1, size).mul_(part.real_M1)
    dcontext_BLd = dcontext_Xd.view(-1, length, size)
    dgrid_3BLd = torch.empty_like(saved.grid_3BLd)
    dq_BLd, dk_BLd, dv_BLd = dgrid_3BLd
    kept_BLL, dkept_BLL = saved.probability_BLL, torch.bmm(dcontext_BLd, v_BLd.transpose(1, 2))
    if saved.attention_mask_BLL is not None:
        kept_BLL = kept_BLL * saved.attention_mask_BLL
        dkept_BLL.mul_(saved.attention_mask_BLL)
    torch.bmm(kept_BLL.transpose(1, 2), dcontext_BLd, out=dv_BLd)
    dscore_BLL = torch._softmax_backward_data(dkept_BLL, saved.probability_BLL, -1, dkept_BLL.dtype).mul_(scale)
    torch.bmm(dscore_BLL, k_BLd, out=dq_BLd)
    torch.bmm(dscore_BLL.transpose(1, 2), q_BLd, out=dk_BLd)

    # Back through the shift: what no score was read from stays 0, in both directions alike.
    by_distance_BLP = dscore_BLL.new_zeros(*dscore_BLL.shape[:2], 2 * length)
    by_distance_hMP = by_distance_BLP.view(heads, -1, 2 * length)
    dposition_U2E = saved.table_UD.new_zeros(len(saved.table_UD), 2, heads * size)

    def back(
        dscore_BLL: Tensor, dcontent_BLd: Tensor, content_BLd: Tensor, position_hPd: Tensor, row_P: Tensor, which: int
    ) -> None:
        shifted(by_distance_BLP).copy_(dscore_BLL)
        dcontent_BLd.view(heads, -1, size).baddbmm_(by_distance_hMP, position_hPd)
        dposition_hPd = torch.bmm(by_distance_hMP.transpose(1, 2), content_BLd.view(heads, -1, size))
        dposition_U2E[:, which].index_add_(0, row_P, dposition_hPd.transpose(0, 1).reshape(2 * length, -1))

    back(dscore_BLL, dq_BLd, q_BLd, saved.position_key_hPd, part.distances.toward_P, 1)
    back(dscore_BLL.transpose(1, 2), dk_BLd, k_BLd, saved.position_query_hPd, part.distances.back_P, 0)

    dinner_T3E = dgrid_3BLd.view(-1, size).index_select(0, part.projected.place_X).view(len(dout_TD), -1)
    dposition_U2E = dposition_U2E.view(len(saved.table_UD), -1)
    dtable_UD = torch.mm(dposition_U2E, weights.of_positions[0])
    dtable_RD[part.distances.used].add_(
        dtable_UD if saved.table_mask_UD is None else dtable_UD.mul_(saved.table_mask_UD)
    )
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
