"""Softmax attention over `Chunks` on a CPU, as products of matrices.

Query i attends to key j of its sequence with the weight p_ij, the softmax over j of

    s_ij = scale (q_i . k_j + q_i . K_{i-j} + k_j . Q_{i-j}) + b_{i-j}

where K and Q, vectors of relative positions (DeBERTa), and b, a bias of distances (MPNet), are there or not. With
A = dropout(p) and O = A V:

    dV = A^T dO,  ds_ij = p_ij (keep_ij dO_i . v_j - sum_j A_ij dO_i . v_j)
    dq_i = scale sum_j ds_ij (k_j + K_{i-j}),  dk_j = scale sum_i ds_ij (q_i + Q_{i-j})
    dK_d = scale sum_{i-j=d} ds_ij q_i,  dQ_d = scale sum_{i-j=d} ds_ij k_j,  db_d = sum_{i-j=d} ds_ij

Terms of distances are computed for all 2 L - 1 of them and shifted into place, which copies no row twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accl.kernels.layers.chunks import Chunk, Chunks
from accl.kernels.layers.functions import CpuFunctions
from accl.kernels.layers.operations import Distances, PlainOperations


class ChunkedOperations(PlainOperations):
    """`accl.kernels.layers.operations.Operations` on a CPU; ``dropout`` draws its masks.

    Attributes:
        longest: length that no sequence exceeds.
    """

    def __init__(self, chunks: Chunks, dropout: CpuFunctions) -> None:
        self._chunks, self._dropout, self.longest = chunks, dropout, chunks.longest

    def attend(
        self,
        q_THC: Tensor,
        k_THC: Tensor,
        v_THC: Tensor,
        *,
        scale: float,
        dropout: float,
        window: int | None = None,
        distances: Distances | None = None,
    ) -> Tensor:
        """Return O of the module's formula; see `accl.kernels.layers.operations.Operations`."""
        terms = distances or Distances()
        attended: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
            q_THC, k_THC, v_THC, terms.key_HEC, terms.query_HEC, terms.bias_HE,
            self._chunks, self._dropout, scale, dropout, window,
        )  # fmt: skip
        return attended


class _Attention(torch.autograd.Function):
    """`ChunkedOperations.attend`; keeps the weights for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        q_THC: Tensor,
        k_THC: Tensor,
        v_THC: Tensor,
        key_HEC: Tensor | None,
        query_HEC: Tensor | None,
        bias_HE: Tensor | None,
        chunks: Chunks,
        dropout: CpuFunctions,
        scale: float,
        probability: float,
        window: int | None,
    ) -> Tensor:
        heads, dtype = q_THC.shape[1], q_THC.dtype
        q, k, v = (chunks.spread(x) for x in (q_THC, k_THC, v_THC))
        q.mul_(scale)
        key, query, bias = (None if x is None else x.to(dtype) for x in (key_HEC, query_HEC, bias_HE))
        if query is not None:
            query = query * scale
        out, weights = torch.empty_like(v), []
        with torch.autocast("cpu", enabled=False):
            for chunk in chunks:
                queries, keys, values = (chunk.block(x, heads) for x in (q, k, v))
                mask = chunks.mask(chunk, heads, window, dtype)
                scores = torch.bmm(queries, keys.mT) if mask is None else torch.baddbmm(mask, queries, keys.mT)
                if key is not None:
                    scores += _shifted(_rel_scores(queries, _near(key, chunk, chunks).flip(1)))
                if query is not None:
                    scores += _shifted(_rel_scores(keys, _near(query, chunk, chunks))).mT
                if bias is not None:
                    by_head = scores.view(heads, chunk.sequences, chunk.length, chunk.length)
                    by_head += _near(bias, chunk, chunks)[:, _distance_index(chunk.length)][:, None]
                p = torch.softmax(scores, -1)
                keep = dropout.mask(p, probability)
                torch.bmm(p if keep is None else p * keep, values, out=chunk.block(out, heads))
                weights.append((p, keep))
        ctx.chunks, ctx.scale, ctx.heads = chunks, scale, heads
        ctx.saved = q, k, v, key, query, bias, weights
        return chunks.gather(out, heads)

    @staticmethod
    def backward(ctx: Any, dout_THC: Tensor) -> tuple[Any, ...]:
        chunks, heads = ctx.chunks, ctx.heads
        q, k, v, key, query, bias, weights = ctx.saved
        dout = chunks.clear_padding(chunks.spread(dout_THC.contiguous()), heads)
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        dkey, dquery, dbias = (None if x is None else torch.zeros_like(x) for x in (key, query, bias))
        for chunk, (p, keep) in zip(chunks, weights, strict=True):
            queries, keys, values, douts = (chunk.block(x, heads) for x in (q, k, v, dout))
            torch.bmm((p if keep is None else p * keep).mT, douts, out=chunk.block(dv, heads))
            dweights = torch.bmm(douts, values.mT)
            if keep is not None:
                dweights *= keep
            dscores = torch._softmax_backward_data(dweights, p, -1, p.dtype)
            dqueries = torch.bmm(dscores, keys, out=chunk.block(dq, heads))
            dkeys = torch.bmm(dscores.mT, queries, out=chunk.block(dk, heads))
            if dkey is not None:
                rows = _near(key, chunk, chunks).flip(1)
                _near(dkey, chunk, chunks).add_(_rel_scores_backward(dscores, queries, rows, dqueries).flip(1))
            if dquery is not None:
                rows = _near(query, chunk, chunks)
                _near(dquery, chunk, chunks).add_(_rel_scores_backward(dscores.mT, keys, rows, dkeys))
            if dbias is not None:
                summed = dscores.view(heads, chunk.sequences, chunk.length, chunk.length).sum(1)
                _near(dbias, chunk, chunks).add_(_unshifted(summed).sum(1).flip(1))
        dq.mul_(ctx.scale)
        if dquery is not None:
            dquery.mul_(ctx.scale)
        return *(chunks.gather(x, heads) for x in (dq, dk, dv)), dkey, dquery, dbias, None, None, None, None, None


def _near(x_HE: Tensor, chunk: Chunk, chunks: Chunks) -> Tensor:
    """Return the part of what is given by distance, H x E or H x E x Dh, that a chunk needs."""
    return x_HE[:, chunks.longest - chunk.length : chunks.longest + chunk.length - 1]


def _distance_index(length: int) -> Tensor:
    """Return the index of i - j, L x L."""
    position = torch.arange(length)
    return position[:, None] - position + length - 1


def _rel_scores(x: Tensor, rows_HEC: Tensor) -> Tensor:
    """Return the products of every vector, H n x L x Dh, with those of all distances; H n x L x E."""
    heads, distances, channels = rows_HEC.shape
    products = torch.bmm(x.view(heads, -1, channels), rows_HEC.mT)
    return products.view(*x.shape[:2], distances)


def _rel_scores_backward(dscores: Tensor, x: Tensor, rows_HEC: Tensor, dx: Tensor) -> Tensor:
    """Add the gradient of `_rel_scores` and `_shifted` to ``dx``, and return that of the rows; dscores: H n x L x L."""
    heads, distances, channels = rows_HEC.shape
    dproducts = _unshifted(dscores).view(heads, -1, distances)
    dx.view(heads, -1, channels).baddbmm_(dproducts, rows_HEC)
    return torch.bmm(dproducts.mT, x.view(heads, -1, channels))


def _shifted(x: Tensor) -> Tensor:
    """Return the view, b x L x L, of b x L x E: element (i, j) is the one at (i, j - i + L - 1)."""
    batch, length, distances = x.shape
    return x.as_strided((batch, length, length), (length * distances, distances - 1, 1), length - 1)


def _unshifted(x: Tensor) -> Tensor:
    """Return b x L x E, whose `_shifted` is ``x``, with 0 elsewhere."""
    batch, length, _ = x.shape
    out = x.new_zeros(batch, length, 2 * length - 1)
    _shifted(out).copy_(x)
    return out
