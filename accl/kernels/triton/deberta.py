"""DeBERTa-v2 and -v3 over packed sequences, by hand, on the GPU: from token ids to the last hidden states, and back.

Reads and trains the parameters of transformers' `DebertaV2Model` in place. A stream of T tokens holds sequences end to
end; the W rows of the position table ride behind it through the projections of queries and keys, which DeBERTa-v3
shares with the content.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from accl.kernels.triton import layer as layers
from accl.kernels.triton.aside import Aside
from accl.kernels.triton.attention import Stream
from accl.kernels.triton.dropout import site
from accl.kernels.triton.embedding import Embedded, Words, embed, embed_backward
from accl.kernels.triton.flat import FlatAdamW, FlatParameters
from accl.kernels.triton.layer import SITES, Back, Pass, Room, Saved, Shape
from accl.kernels.triton.overdue import Overdue
from accl.kernels.triton.parameters import take_layers
from accl.kernels.triton.pointwise import add_norm, add_norm_backward, column_sums, drop
from accl.kernels.triton.positions import Reach, by_distance


@dataclass(frozen=True)
class Track:
    """What the backward pass of an encoder needs of the forward one."""

    shared: Pass
    embedded: Embedded
    table: tuple[Tensor, Tensor]
    layers: list[Saved]
    overdue: Overdue


@dataclass(frozen=True)
class Gradients:
    """What `FastDeberta.backward` left.

    Attributes:
        squares: sums of squares of the layers' matrices' gradients.
    """

    squares: list[Tensor]
    _back: Back

    def join(self) -> None:
        """Wait for all of them, on the stream in use."""
        self._back.matrices.join()
        self._back.tables.join()


class FastDeberta:
    """The last hidden states of packed sequences, by an encoder's own parameters.

    Args:
        encoder: a `DebertaV2Model` that is not `accl.kernels.triton.parameters.unsupported`, its word embedding a
            `accl.kernels.triton.vocabulary.CompactEmbedding`, its parameters in ``flat``.
        narrow, before: see `accl.kernels.triton.parameters.take_layers`; their type is that of the computation.
    """

    def __init__(self, encoder: Any, flat: FlatParameters, adamw: FlatAdamW, narrow: Tensor, before: int) -> None:
        self._encoder = encoder
        config = self._encoder.config
        self._dtype, self._device = narrow.dtype, narrow.device
        self._layers = take_layers(encoder, flat, narrow, before)
        embeddings = self._encoder.embeddings.word_embeddings
        spans = (flat.values, flat.gradients, adamw.first, adamw.second)
        self._words = Words(embeddings.place_V, *(flat.view(part, embeddings.weight) for part in spans))
        self._rule = adamw.rule
        self._no_residual = torch.zeros_like(self._encoder.encoder.rel_embeddings.weight)
        self._shape = Shape(
            config.num_attention_heads,
            config.layer_norm_eps,
            config.hidden_dropout_prob,
            config.attention_probs_dropout_prob,
        )
        self._reaches: dict[int, Reach] = {}
        self._asides = Aside(narrow.device), Aside(narrow.device)

    def prepare(self, reach: int) -> None:
        """Lay the position table out for a reach; before a step with it is captured."""
        if reach not in self._reaches:
            self._reaches[reach] = by_distance(self._encoder.config, reach, self._device)

    def infer(self, ids_T: Tensor, stream: Stream, reach: int) -> Tensor:
        """Hidden states, T x D, of token ids in sequences no longer than ``reach``; no update may be owed."""
        return self._forward(ids_T, stream, reach, None, [])[0]

    def learn(self, ids_T: Tensor, stream: Stream, reach: int, overdue: Overdue) -> tuple[Tensor, Track]:
        """The same with dropout, while the update that is owed is done; and what `backward` wants."""
        saved: list[Saved] = []
        hidden_TD, shared, embedded, table = self._forward(ids_T, stream, reach, overdue, saved)
        overdue.words()
        return hidden_TD, Track(shared, embedded, table, saved, overdue)

    def _forward(
        self, ids_T: Tensor, stream: Stream, reach: int, overdue: Overdue | None, saved: list[Saved]
    ) -> tuple[Tensor, Pass, Embedded, tuple[Tensor, Tensor]]:
        self.prepare(reach)
        learning, shape = overdue is not None, self._shape
        if overdue is None:
            shape = replace(shape, hidden_dropout=0.0, attention_dropout=0.0)
        else:
            overdue.begin()
        words, positions = self._encoder.embeddings.LayerNorm, self._encoder.encoder
        table_WD = positions.rel_embeddings.weight.data
        tokens, (rows, width) = len(ids_T), table_WD.shape
        seed, dropout = stream.seed, shape.hidden_dropout
        assert (tokens + rows) * 3 * width < 2**31, "offsets in the kernels are of 32 bits"
        joined = torch.empty(tokens + rows, width, dtype=self._dtype, device=self._device)
        embedded = embed(
            ids_T, self._words, words.weight.data, words.bias.data, words.eps, seed, self._site, dropout,
            joined[:tokens], self._rule if learning else None,
        )  # fmt: skip
        if overdue is not None:
            overdue.others()
        norm, normed_WD = positions.LayerNorm, torch.empty_like(table_WD)
        table = add_norm(
            table_WD, self._no_residual, norm.weight.data, norm.bias.data, norm.eps, seed, 0, 0.0, normed_WD
        )
        shared = Pass(stream, self._reaches[reach], shape)
        for number, layer in enumerate(self._layers):
            # The table rides behind the tokens of every layer.
            drop(normed_WD, joined[tokens:], seed, site(number * SITES), dropout)
            if overdue is not None:
                overdue.before(number)
            out = torch.empty_like(joined)
            kept = layers.forward(joined, out, shared, layer, number)
            if learning:
                saved.append(kept)
            joined = out
        return joined[:tokens], shared, embedded, table

    def backward(self, dhidden_TD: Tensor, track: Track) -> Gradients:
        """Leave the gradients of all parameters in place: the words' now, the others when the result is joined."""
        shared, dx, device = track.shared, dhidden_TD, self._device
        stream, dropout = shared.stream, shared.shape.hidden_dropout
        size = (2, shared.shape.heads, len(dx), len(shared.reach.row))
        rooms = [Room(torch.empty(size, dtype=self._dtype, device=device)) for _ in range(2)]
        dtable = torch.zeros_like(self._no_residual)
        back = Back(shared, *self._asides, (rooms[0], rooms[1]), dtable)
        squares = []
        for number in reversed(range(len(self._layers))):
            dx, found = layers.backward(dx, track.layers.pop(), back, self._layers[number], number)
            squares.append(found)
        words, positions = self._encoder.embeddings.LayerNorm, self._encoder.encoder
        with back.tables():
            table_WD, norm = positions.rel_embeddings.weight, positions.LayerNorm
            dense, _, partial = add_norm_backward(
                dtable, table_WD.data, self._no_residual, norm.weight.data, *track.table, stream.seed, 0, 0.0
            )
            table_WD.grad.copy_(dense)
            _norm_gradients(partial, norm)
        track.overdue.end()
        partial = embed_backward(dx, track.embedded, self._words, words.weight.data, stream.seed, self._site, dropout)
        _norm_gradients(partial, words)
        return Gradients(squares, back)

    @property
    def _site(self) -> int:
        """Of the embedding's dropout, behind those of all layers."""
        return site(len(self._layers) * SITES)


def _norm_gradients(partial: Tensor, norm: Any) -> None:
    """Write the gradients of a norm's gain and bias; their partial sums are the first columns."""
    sums = torch.empty(partial.shape[1], device=partial.device)
    column_sums(partial, sums)
    width = norm.weight.numel()
    torch._foreach_copy_([norm.weight.grad, norm.bias.grad], [sums[:width], sums[width : 2 * width]])
