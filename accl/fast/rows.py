"""DeBERTa-v2 and v3 on the CPU: what transformers' `DebertaV2Model` computes, from its own parameters, in less time.

Rows are sorted by length and cut into one part for each thread. A thread takes its part through all layers and back
(`accl.fast.row_layer`); sharing out every single product instead would make the threads wait for each other hundreds of
times a step, and for whatever else runs on the machine.

Shapes: N rows, L length, T real tokens, D hidden, R rows of the position table.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from accl.fast.row_layer import PADDING, Distances, Layer, Part, Room, Saved, Shape, dropout
from accl.fast.row_weights import Gradients, Weights, parameters

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    return None


class RowEncoder:
    """Runs a `DebertaV2Model`: the same hidden states and gradients, and dropout where the module is in training mode.

    Computes in single precision, which the weights must be in, under autocast as well. Not a module itself: it owns no
    parameter, so that the names and files of the module's weights stay as they are.

    Args:
        module: read anew at every call, so that it may be trained, loaded and switched between modes.
        kernels: from `accl.fast.native.load`.
        threads: rows are shared out to so many, this one among them. With more than one, torch's own threads should be
            off (``torch.set_num_threads(1)``), or both kinds take the cores from each other.

    Raises:
        ValueError: `unsupported`, or weights in another precision.
    """

    def __init__(self, module: nn.Module, kernels: ctypes.CDLL, threads: int) -> None:
        self._module: Any = module
        reason = unsupported(self._module.config)
        if reason is not None:
            raise ValueError(f"no DeBERTa encoder that can be run by rows: {reason}")
        if any(parameter.dtype != torch.float32 for parameter in module.parameters()):
            raise ValueError("rows are computed in single precision: convert the encoder with .float()")
        self.kernels = kernels
        self._threads = threads
        self._workers = ThreadPoolExecutor(max(1, threads - 1), initializer=torch.set_num_threads, initargs=(1,))
        self._distances: dict[int, Distances] = {}

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
        module = self._module
        own = chain.from_iterable(map(parameters, module.encoder.layer))
        table_RD = module.encoder.get_rel_embedding()
        # Under autocast the embedding may come out narrower.
        hidden_TD = self._embed(ids_T, length_N).to(table_RD.dtype)
        parts = self._cut(length_N)
        out_TD: Tensor = _Layers.apply(self, parts, hidden_TD, table_RD, *own)  # type: ignore[no-untyped-call]
        return out_TD

    def means(self, ids_T: Tensor, length_N: NDArray[np.int64]) -> Tensor:
        """Mean of the hidden states of each row, N x D; arguments as for `states`."""
        hidden_TD = self.states(ids_T, length_N)
        row_T = torch.from_numpy(np.repeat(np.arange(len(length_N)), length_N))
        sum_ND = hidden_TD.new_zeros(len(length_N), hidden_TD.shape[1]).index_add(0, row_T, hidden_TD)
        return sum_ND / torch.from_numpy(length_N)[:, None]

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self._module.encoder.layer)

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
        )

    def embedding_dropout(self) -> float:
        """Probability in the module's present mode."""
        embeddings = self._module.embeddings
        return float(embeddings.dropout.p) if embeddings.training else 0.0

    def share_out(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """``work`` of every item without graph or autocast, each in a thread of its own, the first in this one."""

        def alone(item: Item) -> Result:
            # A new thread does not have these from this one.
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                return work(item)

        others = [self._workers.submit(alone, item) for item in items[1:]]
        return [alone(items[0]), *(other.result() for other in others)]

    def _embed(self, ids_T: Tensor, length_N: NDArray[np.int64]) -> Tensor:
        embeddings = self._module.embeddings
        hidden_TD: Tensor = embeddings.word_embeddings(ids_T)
        if embeddings.position_embeddings is not None:
            hidden_TD = hidden_TD + embeddings.position_embeddings(_positions(length_N))
        if embeddings.token_type_embeddings is not None:
            hidden_TD = hidden_TD + embeddings.token_type_embeddings.weight[0]
        if embeddings.embed_proj is not None:
            hidden_TD = embeddings.embed_proj(hidden_TD)
        normal_TD: Tensor = embeddings.LayerNorm(hidden_TD)
        return normal_TD

    def _cut(self, length_N: NDArray[np.int64]) -> list[Part]:
        """Rows in a part for each thread, with as many tokens each as whole rows allow."""
        attention = self._module.encoder.layer[0].attention.self
        heads, size = attention.num_attention_heads, attention.attention_head_size
        begin_N = np.concatenate([[0], length_N.cumsum()])
        wanted = begin_N[-1] * np.arange(1, self._threads) / self._threads
        bounds = [0, *np.abs(begin_N - wanted[:, None]).argmin(1).tolist(), len(length_N)]
        seeds = torch.randint(2**62, (self._threads,)).tolist()
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
                    begin_n=torch.from_numpy(begin_N[start : stop + 1] - first),
                    scores=heads * int((length_n * padded_n).sum()),
                    distances=self._by_distance(longest),
                    seed=seed,
                    scratch=torch.empty(self.kernels.attention_scratch(longest, size)),
                )
            )
        return parts

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


class _Layers(torch.autograd.Function):
    """Dropout of the embedding and all layers forward, and later all of it back: each part of the rows in a thread of
    its own."""

    @staticmethod
    def forward(
        ctx: Any, encoder: RowEncoder, parts: list[Part], hidden_TD: Tensor, table_RD: Tensor, *own: Tensor
    ) -> Tensor:
        count = encoder.layers
        size = len(own) // count
        weights = [Weights.joined(own[at : at + size]) for at in range(0, len(own), size)]
        kernels, shape = encoder.kernels, encoder.shape()
        layers = [Layer(kernels, of_layer, shape, i) for i, of_layer in enumerate(weights)]
        hidden_TD, probability = hidden_TD.contiguous(), encoder.embedding_dropout()
        out_TD = torch.empty_like(hidden_TD)

        def through(part: Part) -> list[Saved]:
            x_TD, kept = hidden_TD[part.tokens], []
            if probability:
                x_TD = dropout(kernels, x_TD, torch.empty_like(x_TD), (part.seed, 0, probability))
            for i, layer in enumerate(layers):
                y_TD = torch.empty_like(x_TD) if i + 1 < count else out_TD[part.tokens]
                kept.append(layer.forward(x_TD, table_RD, part, y_TD))
                x_TD = y_TD
            return kept

        kept = encoder.share_out(through, parts)
        ctx.encoder, ctx.probability, ctx.layers, ctx.weights = encoder, probability, layers, weights
        ctx.done = list(zip(parts, kept, strict=True))
        ctx.save_for_backward(table_RD)
        return out_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (table_RD,) = ctx.saved_tensors
        kernels, dout_TD = ctx.encoder.kernels, torch.empty(gradients[0].shape)

        def back(done: tuple[Part, list[Saved]]) -> Gradients:
            part, kept = done
            own, room = Gradients.of(table_RD, ctx.weights), Room.of(kept[0])
            d_TD = dout_TD[part.tokens].copy_(gradients[0][part.tokens])
            for layer, saved, of_layer in zip(*map(reversed, (ctx.layers, kept, own.layers)), strict=True):
                layer.backward(d_TD, saved, part, of_layer, own.table_RD, room)
            if ctx.probability:
                dropout(kernels, d_TD, d_TD, (part.seed, 0, ctx.probability))
            return own

        total, *others = ctx.encoder.share_out(back, ctx.done)
        for other in others:
            total.flat.add_(other.flat)
        own = chain.from_iterable(of_layer.parted() for of_layer in total.layers)
        return None, None, dout_TD, total.table_RD, *own


def _positions(length_N: NDArray[np.int64]) -> Tensor:
    """Where in its row each token stands, T."""
    begin_N = length_N.cumsum() - length_N
    return torch.from_numpy(np.arange(length_N.sum()) - np.repeat(begin_N, length_N))
