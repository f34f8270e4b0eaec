"""DeBERTa-v2 and v3 on the CPU: what transformers' `DebertaV2Model` computes, from its own parameters, in less time.

Rows are sorted by length and cut into one part for each thread. A thread takes its part through all layers and back
(`accl.fast.row_layer`); sharing out every single product instead would make the threads wait for each other hundreds of
times a step, and for whatever else runs on the machine.

Shapes: N rows, L length, T real tokens, D hidden, R rows of the position table.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from accl.fast.native import pointer
from accl.fast.products import products
from accl.fast.row_layer import PADDING, Distances, Layer, Part, Room, Saved, Shape
from accl.fast.row_weights import Gradients, Weights, parameters
from accl.fast.team import Team


@dataclass(frozen=True)
class Encoded:
    """The hidden states of the last layer, N x L x D; 0 where there is padding."""

    last_hidden_state: Tensor


def unsupported(config: Any) -> str | None:
    """Why an encoder of that transformers configuration cannot be computed here, in a few words; None when it can."""
    if config.model_type != "deberta-v2":
        return f"{config.model_type} is not DeBERTa-v2 or v3"
    if not config.relative_attention or set(config.pos_att_type or ()) != {"c2p", "p2c"}:
        return "attention other than of content to position and position to content"
    if getattr(config, "conv_kernel_size", 0) > 0:
        return "a convolution beside the first layer"
    if config.hidden_act != "gelu":
        return f"hidden_act={config.hidden_act} instead of gelu"
    if (
        config.position_biased_input
        or config.type_vocab_size
        or getattr(config, "embedding_size", config.hidden_size) != config.hidden_size
    ):
        return "an embedding of more than tokens, or of another size"
    return None


@dataclass(frozen=True)
class Embedding:
    """Parameters of a `DebertaV2Embeddings` of tokens alone, all or those in use: the table; its norm's gain and bias.

    Attributes:
        place_V: the row of the table for each token id; None where they are the same.
        never: the row of the table that is not learnt; -1 when all are.
    """

    table_VD: Tensor
    place_V: Tensor | None
    norm: tuple[Tensor, Tensor]
    eps: float
    never: int

    @classmethod
    def of(cls, embeddings: Any) -> Embedding:
        words, norm = embeddings.word_embeddings, embeddings.LayerNorm
        never = -1 if words.padding_idx is None else words.padding_idx
        return cls(words.weight, getattr(words, "place_V", None), (norm.weight, norm.bias), norm.eps, never)


class RowEncoder:
    """Runs a `DebertaV2Model`: the same hidden states and gradients, and dropout where the module is in training mode.

    Computes in single precision, which the weights must be in, under autocast as well. Not a module itself: it owns no
    parameter, so that the names and files of the module's weights stay as they are. A backward pass adds the gradients
    to the ``grad`` of all weights by itself, but for the position table, which torch goes on with.

    Args:
        module: its parameters must stay the same objects; what is in them is read anew at every call, so that it may be
            trained, loaded and switched between modes.
        kernels: from `accl.fast.native.load`.
        team: rows are shared out to its threads.

    Raises:
        ValueError: `unsupported`, or weights in another precision.
    """

    def __init__(self, module: Any, kernels: ctypes.CDLL, team: Team) -> None:
        self._module = module
        reason = unsupported(self._module.config)
        if reason is not None:
            raise ValueError(f"no DeBERTa encoder that can be run by rows: {reason}")
        if any(parameter.dtype != torch.float32 for parameter in module.parameters()):
            raise ValueError("rows are computed in single precision: convert the encoder with .float()")
        self.kernels = kernels
        self.team = team
        self.own = [parameters(layer) for layer in self._module.encoder.layer]
        """Parameters of each layer."""
        self.embedding = Embedding.of(self._module.embeddings)
        self._every = [*self.embedding.norm, *(parameter for of_layer in self.own for parameter in of_layer)]
        self._distances: dict[int, Distances] = {}
        self._gradients: list[Gradients] = []

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """One forward pass.

        Args:
            input_ids: N x L. attention_mask: N x L, 1 for real tokens: at least one in a row, and before all padding.
        """
        length_N, order_N = attention_mask.sum(1).sort(descending=True, stable=True)
        width = input_ids.shape[1]
        row_T = order_N.repeat_interleave(length_N)
        place_T = row_T * width + _positions(length_N.numpy())
        hidden_TD = self.states(input_ids.flatten()[place_T], length_N.numpy())
        hidden_MD = hidden_TD.new_zeros(input_ids.numel(), hidden_TD.shape[1]).index_copy(0, place_T, hidden_TD)
        return Encoded(hidden_MD.view(*input_ids.shape, -1))

    def states(self, ids_T: Tensor, length_N: NDArray[np.int64]) -> Tensor:
        """Hidden states of the last layer, T x D, of rows that lie end to end, the longest first."""
        return self._run(ids_T, length_N, None)

    def means(self, ids_T: Tensor, length_N: NDArray[np.int64], place_N: Tensor) -> Tensor:
        """Mean of the hidden states of each row, N x D, in another order: row ``place_N[i]`` comes i-th; other
        arguments as for `states`."""
        return self._run(ids_T, length_N, place_N)

    def gradients(self, table_RD: Tensor, weights: Sequence[Weights], count: int) -> list[Gradients]:
        """For so many threads."""
        while len(self._gradients) < count:
            self._gradients.append(Gradients(table_RD, self.embedding.norm, weights))
        return self._gradients[:count]

    def gather(self, found: Sequence[Gradients], drow_TD: Tensor, ids_T: Tensor) -> None:
        """Add what threads have found for the weights to the ``grad`` of these."""
        every = zip(self._every, *found[0].places, strict=True)
        learnt = [(pointer(_gradient(p)), offset, count) for p, offset, count in every if p.requires_grad]
        to, offset, count = torch.tensor(learnt).t().contiguous()
        parts = torch.tensor([pointer(of_thread.flat) for of_thread in found])
        table_VD = self.embedding.table_VD
        dtable_VD = _gradient(table_VD) if table_VD.requires_grad else None

        def add(span: tuple[int, int]) -> None:
            here = slice(*span)
            where = (offset[here], count[here], to[here])
            self.kernels.gather(pointer(parts), len(parts), *map(pointer, where), span[1] - span[0])
            if span[0] == 0 and dtable_VD is not None:
                sizes = (len(ids_T), dtable_VD.shape[1], self.embedding.never)
                self.kernels.scatter(pointer(drow_TD), pointer(ids_T), *sizes, pointer(dtable_VD))

        self.team.share_out(add, self.team.ranges(len(learnt)))

    def shape(self) -> Shape:
        """Of every layer, in the module's present mode."""
        layer, training = self._module.encoder.layer[0], self._module.training
        attention = layer.attention.self
        return Shape(
            heads=attention.num_attention_heads,
            size=attention.attention_head_size,
            eps=layer.output.LayerNorm.eps,
            dropout=layer.output.dropout.p if training else 0.0,
            attention_dropout=attention.dropout.p if training else 0.0,
            embedding_dropout=self._module.embeddings.dropout.p if training else 0.0,
        )

    def _run(self, ids_T: Tensor, length_N: NDArray[np.int64], place_N: Tensor | None) -> Tensor:
        table_RD, place_V = self._module.encoder.get_rel_embedding(), self.embedding.place_V
        ids_T = ids_T if place_V is None else place_V[ids_T]
        out: Tensor = _Layers.apply(self, self._cut(length_N), place_N, ids_T, table_RD)  # type: ignore[no-untyped-call]
        return out

    def _cut(self, length_N: NDArray[np.int64]) -> list[Part]:
        """Rows in a part for each thread, with as many tokens each as whole rows allow."""
        attention = self._module.encoder.layer[0].attention.self
        heads = attention.num_attention_heads
        begin_N = np.concatenate([[0], length_N.cumsum()])
        wanted = begin_N[-1] * np.arange(1, self.team.size) / self.team.size
        bounds = [0, *np.abs(begin_N - wanted[:, None]).argmin(1).tolist(), len(length_N)]
        seeds = torch.randint(2**62, (self.team.size,)).tolist()
        parts: list[Part] = []
        for (start, stop), seed in zip(pairwise(bounds), seeds, strict=True):
            if start == stop:
                continue
            length_n, longest = length_N[start:stop], int(length_N[start])
            padded_n = -(-length_n // PADDING) * PADDING
            first, last = int(begin_N[start]), int(begin_N[stop])
            parts.append(
                Part(
                    longest=longest,
                    tokens=slice(first, last),
                    rows=slice(start, stop),
                    begin_n=torch.from_numpy(begin_N[start : stop + 1] - first),
                    scores=heads * int((length_n * padded_n).sum()),
                    distances=self._by_distance(longest),
                    seed=seed,
                    scratch=torch.empty(self._scratch(last - first, longest)),
                )
            )
        return parts

    def _scratch(self, tokens: int, longest: int) -> int:
        """Floats that a part of the rows needs to work in."""
        config, attention = self._module.config, self._module.encoder.layer[0].attention.self
        hidden, inner, wide = config.hidden_size, attention.all_head_size, config.intermediate_size
        rows = max(tokens, 2 * longest)  # the position table has up to so many
        layers = ((hidden, 3 * inner), (inner, hidden), (hidden, wide), (wide, hidden))
        needed = [products(self.kernels).scratch(rows, *of) for of in layers]
        needed.append(self.kernels.attention_scratch(longest, attention.attention_head_size))
        return max(needed)

    def _by_distance(self, length: int) -> Distances:
        """Of rows of a length, with transformers' own buckets."""
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        if length not in self._distances:
            encoder = self._module.encoder
            buckets, farthest = encoder.position_buckets, encoder.max_relative_positions
            span = buckets if buckets > 0 else farthest
            row_X = length - 1 - torch.arange(2 * length - 1)
            if buckets > 0:
                row_X = make_log_bucket_position(row_X, buckets, farthest).long()
            row_X = (row_X + span).clamp(0, 2 * span - 1)
            first, last = int(row_X.min()), int(row_X.max())
            self._distances[length] = Distances(row_X - first, slice(first, last + 1))
        return self._distances[length]


class Embedded(NamedTuple):
    """What the way back through the embedding needs: what came out before gain and bias, and 1 / deviation."""

    normal_TD: Tensor
    inverse_T: Tensor


class _Layers(torch.autograd.Function):
    """Embedding and layers forward, and later back: each part of the rows in a thread of its own. Gives the last states
    of all tokens, or their means."""

    @staticmethod
    def forward(
        ctx: Any, encoder: RowEncoder, parts: list[Part], place_N: Tensor | None, ids_T: Tensor, table_RD: Tensor
    ) -> Tensor:
        weights = [Weights.joined(own) for own in encoder.own]
        kernels, embedding, shape = encoder.kernels, encoder.embedding, encoder.shape()
        layers = [Layer(kernels, of_layer, shape, i) for i, of_layer in enumerate(weights)]
        table_VD, width = embedding.table_VD.detach(), table_RD.shape[1]
        out_TD = torch.empty(len(ids_T), width)
        mean_ND = torch.empty(0 if place_N is None else len(place_N), width)

        def through(part: Part) -> tuple[Embedded, list[Saved]]:
            ids_t, kept = ids_T[part.tokens], []
            normal_TD, x_TD, inverse_T = (
                torch.empty(len(ids_t), width),
                torch.empty(len(ids_t), width),
                torch.empty(len(ids_t)),
            )
            unknown = kernels.embed(
                pointer(table_VD),
                len(table_VD),
                *map(pointer, (ids_t, *embedding.norm)),
                *x_TD.shape,
                embedding.eps,
                *(part.seed, 0, shape.embedding_dropout),
                *map(pointer, (normal_TD, x_TD, inverse_T)),
            )
            if unknown:
                raise IndexError(f"{unknown} token ids have no row in an embedding of {len(table_VD)}")
            for i, layer in enumerate(layers):
                y_TD = torch.empty_like(x_TD) if i + 1 < len(layers) else out_TD[part.tokens]
                kept.append(layer.forward(x_TD, table_RD, part, y_TD))
                x_TD = y_TD
            if place_N is not None:
                kernels.means(pointer(x_TD), *part.spans, width, pointer(mean_ND[part.rows]))
            return Embedded(normal_TD, inverse_T), kept

        kept = encoder.team.share_out(through, parts)
        ctx.encoder, ctx.shape, ctx.layers, ctx.weights = encoder, shape, layers, weights
        ctx.done, ctx.place_N, ctx.ids_T = list(zip(parts, kept, strict=True)), place_N, ids_T
        ctx.save_for_backward(table_RD)
        return out_TD if place_N is None else mean_ND[place_N]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (table_RD,), (dout,) = ctx.saved_tensors, gradients
        encoder, place_N = ctx.encoder, ctx.place_N
        kernels, embedding = encoder.kernels, encoder.embedding
        d_TD = torch.empty(len(ctx.ids_T), dout.shape[1])
        if place_N is not None:
            dout = torch.empty(dout.shape).index_copy_(0, place_N, dout)
        own = encoder.gradients(table_RD, ctx.weights, len(ctx.done))

        def back(work: tuple[Gradients, tuple[Part, tuple[Embedded, list[Saved]]]]) -> None:
            own, (part, (embedded, kept)) = work
            own.clear()
            room, d_tD = Room.of(kept[0]), d_TD[part.tokens]
            if place_N is None:
                d_tD.copy_(dout[part.tokens])
            else:
                kernels.means_back(pointer(dout[part.rows]), *part.spans, d_tD.shape[1], pointer(d_tD))
            for layer, saved, of_layer in zip(*map(reversed, (ctx.layers, kept, own.layers)), strict=True):
                layer.backward(d_tD, saved, part, of_layer, own.table_RD, room)
            kernels.embed_back(
                *map(pointer, (d_tD, *embedded, embedding.norm[0])),
                *d_tD.shape,
                *(part.seed, 0, ctx.shape.embedding_dropout),
                *map(pointer, (d_tD, *own.norm)),
            )

        encoder.team.share_out(back, list(zip(own, ctx.done, strict=True)))
        encoder.gather(own, d_TD, ctx.ids_T)
        dtable_RD = torch.stack([of_thread.table_RD for of_thread in own]).sum(0)
        return None, None, None, None, dtable_RD


def _gradient(parameter: Tensor) -> Tensor:
    """Where the gradient of a parameter is added up."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _positions(length_N: NDArray[np.int64]) -> Tensor:
    """Where in its row each token stands, T."""
    begin_N = length_N.cumsum() - length_N
    return torch.from_numpy(np.arange(length_N.sum()) - np.repeat(begin_N, length_N))
