"""DeBERTa-v2 and v3 on the CPU: what transformers' `DebertaV2Model` computes, from its own parameters, in less time.

Rows are sorted by length and cut into one part for each thread. A thread takes its part through all layers and back
(`accl.fast.row_layer`); sharing out every single product instead would make the threads wait for each other hundreds of
times a step, and for whatever else runs on the machine.

Shapes: N rows, L length, T real tokens, D hidden, R rows of the position table.
"""

from __future__ import annotations

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

from accl.fast.row_layer import (
    Distances,
    Grid,
    Part,
    Saved,
    Shape,
    backward,
    draw_masks,
    dropout_masks,
    forward,
)
from accl.fast.row_weights import Weights, parameters

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

    Computes in the type of the weights, under autocast as well. Not a module itself: it owns no parameter, so that the
    names and files of the module's weights stay as they are.

    Args:
        module: read anew at every call, so that it may be trained, loaded and switched between modes.
        threads: rows are shared out to so many, this one among them. With more than one, torch's own threads should be
            off (``torch.set_num_threads(1)``), or both kinds take the cores from each other.

    Raises:
        ValueError: `unsupported`.
    """

    def __init__(self, module: nn.Module, threads: int) -> None:
        self._module: Any = module
        reason = unsupported(self._module.config)
        if reason is not None:
            raise ValueError(f"no DeBERTa encoder that can be run by rows: {reason}")
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
        out_TD: Tensor = _Layers.apply(self, self._cut(length_N), hidden_TD, table_RD, *own)  # type: ignore[no-untyped-call]
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
        hidden_TD = embeddings.LayerNorm(hidden_TD)
        probability = embeddings.dropout.p if embeddings.training else 0.0
        (mask_TD,) = dropout_masks([tuple(hidden_TD.shape)], probability, None, hidden_TD.dtype)
        return hidden_TD if mask_TD is None else hidden_TD * mask_TD

    def _cut(self, length_N: NDArray[np.int64]) -> list[Part]:
        """Rows in a part for each thread, with about as many tokens each."""
        heads, total_N = self._module.config.num_attention_heads, length_N.cumsum()
        wanted = total_N[-1] * np.arange(1, self._threads) / self._threads
        bounds = [0, *np.searchsorted(total_N, wanted).tolist(), len(length_N)]
        parts: list[Part] = []
        for start, stop in pairwise(bounds):
            if start == stop:
                continue
            length_n, length = length_N[start:stop], int(length_N[start])
            real_nL = np.arange(length) < length_n[:, None]
            real_T = real_nL.ravel().nonzero()[0]
            fill_M = real_nL.ravel().cumsum() - 1
            real = torch.from_numpy(real_nL.astype(np.float32))
            first = int(total_N[start - 1]) if start else 0
            parts.append(
                Part(
                    n=stop - start,
                    length=length,
                    tokens=slice(first, first + len(real_T)),
                    real_M1=real.view(-1, 1),
                    projected=_grid(real_T, fill_M, 3 * heads),
                    context=_grid(real_T, fill_M, heads),
                    padding_n1L=None if len(real_T) == real_nL.size else (1 - real).mul_(-1e30)[:, None],
                    distances=self._by_distance(length, heads),
                    generator=torch.Generator().manual_seed(int(torch.randint(2**62, ()))),
                )
            )
        return parts

    def _by_distance(self, length: int, heads: int) -> Distances:
        """Of rows of a length, with transformers' own buckets."""
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        if length not in self._distances:
            encoder = self._module.encoder
            buckets, farthest = encoder.position_buckets, encoder.max_relative_positions
            span = buckets if buckets > 0 else farthest
            column_P = torch.arange(2 * length)
            rows_2P = torch.stack([length - 1 - column_P, column_P - (length - 1)])
            if buckets > 0:
                rows_2P = make_log_bucket_position(rows_2P, buckets, farthest).long()
            rows_2P = (rows_2P + span).clamp(0, 2 * span - 1)
            first, last = int(rows_2P.min()), int(rows_2P.max())
            # Of each row of the table, the heads' queries come first, then their keys.
            head_2h = torch.arange(2 * heads).view(2, heads).flip(0)
            row_2hP = (rows_2P[:, None] - first) * 2 * heads + head_2h[:, :, None]
            self._distances[length] = Distances(row_2hP.flatten(), slice(first, last + 1))
        return self._distances[length]


class _Layers(torch.autograd.Function):
    """All layers forward, and later all of them back: each part of the rows in a thread of its own."""

    @staticmethod
    def forward(
        ctx: Any, encoder: RowEncoder, parts: list[Part], hidden_TD: Tensor, table_RD: Tensor, *own: Tensor
    ) -> Tensor:
        shape, layers = encoder.shape(), encoder.layers
        size = len(own) // layers
        weights = [Weights.joined(own[at : at + size]) for at in range(0, len(own), size)]

        def through(part: Part) -> tuple[Tensor, list[Saved]]:
            out_TD, kept = hidden_TD[part.tokens], []
            masks = draw_masks(layers, table_RD, shape, part)
            for of_layer, own_masks in zip(weights, masks, strict=True):
                out_TD, saved = forward(out_TD, table_RD, of_layer, shape, part, own_masks)
                kept.append(saved)
            return out_TD, kept

        outs, kept = zip(*encoder.share_out(through, parts), strict=True)
        ctx.encoder, ctx.shape, ctx.weights, ctx.done = encoder, shape, weights, list(zip(parts, kept, strict=True))
        ctx.save_for_backward(table_RD)
        return torch.cat(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (table_RD,) = ctx.saved_tensors

        def back(done: tuple[Part, list[Saved]]) -> tuple[Tensor, list[Tensor]]:
            part, kept = done
            dout_TD, dtable_RD = gradients[0][part.tokens], torch.zeros_like(table_RD)
            of_layers = []
            for of_layer, saved in zip(reversed(ctx.weights), reversed(kept), strict=True):
                dout_TD, dof_layer = backward(dout_TD, dtable_RD, saved, of_layer, ctx.shape, part)
                of_layers.append(dof_layer.parted())
            return dout_TD, [dtable_RD, *chain.from_iterable(reversed(of_layers))]

        dhidden, of_parts = zip(*ctx.encoder.share_out(back, ctx.done), strict=True)
        total, *others = of_parts
        for other in others:
            torch._foreach_add_(total, other)
        return None, None, torch.cat(dhidden), *total


def _positions(length_N: NDArray[np.int64]) -> Tensor:
    """Where in its row each token stands, T."""
    begin_N = length_N.cumsum() - length_N
    return torch.from_numpy(np.arange(length_N.sum()) - np.repeat(begin_N, length_N))


def _grid(real_T: NDArray[np.int64], fill_M: NDArray[np.int64], times: int) -> Grid:
    head_k = np.arange(times)
    fill_kM = fill_M * times + head_k[:, None]
    place_Tk = real_T[:, None] + head_k * len(fill_M)
    return Grid(torch.from_numpy(fill_kM.ravel()), torch.from_numpy(place_Tk.ravel()))
