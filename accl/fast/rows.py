"""DeBERTa-v2 and v3 on the CPU: what transformers' `DebertaV2Model` computes, from its own parameters, in less time.

Rows are sorted by length and cut into one part for each thread. A thread takes its part through all layers, and later
back, in one call of `c/encoder.c`: sharing out every single product instead would make the threads wait for each other
hundreds of times a step, and for whatever else runs on the machine. On a CPU a small layer is as much bookkeeping as
arithmetic: there is no graph to record and walk, nothing is computed for padding, no dropout mask is drawn or kept, and
the gradients of residuals ride on matrix products.

Shapes: N rows, L length, T real tokens, D hidden.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from accl.fast.native import pointer
from accl.fast.row_weights import Gradients, Weights
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


class Shape(ctypes.Structure):
    """What c/encoder.c knows of an encoder beside its weights."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("layers", "kept", "hidden", "heads", "size", "wide", "words")),
        *((name, ctypes.c_double) for name in ("embedding_dropout", "attention_dropout", "dropout")),
        *((name, ctypes.c_float) for name in ("embedding_eps", "table_eps", "eps")),
    ]


class Part(ctypes.Structure):
    """Rows that go through the layers together, as c/encoder.c knows them.

    Attributes:
        held: what the addresses among the fields belong to.
    """

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("tokens", "n", "longest", "first", "used")),
        *((name, ctypes.c_void_p) for name in ("id_T", "begin", "row_X", "place_n")),
        ("seed", ctypes.c_uint64),
        ("room", ctypes.c_void_p),
    ]
    held: list[Tensor | None]


class RowEncoder:
    """Runs a `DebertaV2Model`: the same hidden states and gradients, and dropout where the module is in training mode.

    Computes in single precision, which the weights must be in, under autocast as well. Not a module itself: it owns no
    parameter, so that the names and files of the module's weights stay as they are. A backward pass adds the gradients
    to the ``grad`` of all weights by itself.

    Args:
        module: its parameters must stay the same objects; what is in them is read anew at every call, so that it may be
            trained, loaded and switched between modes.
        kernels: from `accl.fast.native.load`.
        team: rows are shared out to its threads.

    Raises:
        ValueError: `unsupported`, or weights in another precision.
    """

    def __init__(self, module: Any, kernels: ctypes.CDLL, team: Team) -> None:
        reason = unsupported(module.config)
        if reason is not None:
            raise ValueError(f"no DeBERTa encoder that can be run by rows: {reason}")
        if any(parameter.dtype != torch.float32 for parameter in module.parameters()):
            raise ValueError("rows are computed in single precision: convert the encoder with .float()")
        self._module = module
        self.kernels = kernels
        self.team = team
        self.weights = Weights(module)
        self._shapes: dict[tuple[bool, bool], Shape] = {}
        self._distances: dict[int, tuple[Tensor, int, int]] = {}
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
        """Mean of the hidden states of each row, N x D, in another order: that of row r comes as the ``place_N[r]``-th;
        other arguments as for `states`."""
        return self._run(ids_T, length_N, place_N)

    def gradients(self, count: int) -> list[Gradients]:
        """For so many threads."""
        while len(self._gradients) < count:
            self._gradients.append(Gradients(self.weights))
        return self._gradients[:count]

    def gather(self, found: Sequence[Gradients], drow_TD: Tensor, ids_T: Tensor) -> None:
        """Add what threads have found for the weights to the ``grad`` of these."""
        to = np.array([pointer(_gradient(p)) if p.requires_grad else 0 for p in self.weights.parameters], np.int64)
        parts = np.array([pointer(of_thread.flat) for of_thread in found], np.int64)
        words = self._module.embeddings.word_embeddings
        never = -1 if words.padding_idx is None else words.padding_idx
        dtable_VD = _gradient(words.weight) if words.weight.requires_grad else None

        def add(span: tuple[int, int]) -> None:
            where = (array[slice(*span)].ctypes.data for array in (found[0].offsets, found[0].counts, to))
            self.kernels.gather(parts.ctypes.data, len(parts), *where, span[1] - span[0])
            if span[0] == 0 and dtable_VD is not None:
                sizes = (len(ids_T), dtable_VD.shape[1], never)
                self.kernels.scatter(pointer(drow_TD), pointer(ids_T), *sizes, pointer(dtable_VD))

        self.team.share_out(add, self.team.ranges(len(to)))

    def _run(self, ids_T: Tensor, length_N: NDArray[np.int64], place_N: Tensor | None) -> Tensor:
        words = self._module.embeddings.word_embeddings
        place_V = getattr(words, "place_V", None)
        ids_T = ids_T if place_V is None else place_V[ids_T]
        wanted = (words.weight, *self.weights.parameters)
        # For torch to come back: it gets no gradient.
        anchor = torch.empty(0, requires_grad=any(p.requires_grad for p in wanted))
        shape = self._shape(self._module.training, torch.is_grad_enabled() and anchor.requires_grad)
        parts = self._cut(ids_T, length_N, place_N, shape)
        pointers = self.weights.pointers(words.weight)
        out: Tensor = _Layers.apply(self, shape, parts, pointers, ids_T, place_N is not None, anchor)  # type: ignore[no-untyped-call]
        return out

    def _shape(self, training: bool, learning: bool) -> Shape:
        if (training, learning) not in self._shapes:
            module, config, layer = self._module, self._module.config, self._module.encoder.layer[0]
            embeddings, encoder, attention = module.embeddings, module.encoder, layer.attention.self
            self._shapes[training, learning] = Shape(
                layers=len(encoder.layer),
                kept=len(encoder.layer) if learning else 1,
                hidden=config.hidden_size,
                heads=attention.num_attention_heads,
                size=attention.attention_head_size,
                wide=config.intermediate_size,
                words=len(embeddings.word_embeddings.weight),
                embedding_dropout=embeddings.dropout.p if training else 0.0,
                attention_dropout=attention.dropout.p if training else 0.0,
                dropout=layer.output.dropout.p if training else 0.0,
                embedding_eps=embeddings.LayerNorm.eps,
                table_eps=encoder.LayerNorm.eps if hasattr(encoder, "LayerNorm") else 0.0,
                eps=layer.output.LayerNorm.eps,
            )
        return self._shapes[training, learning]

    def _cut(self, ids_T: Tensor, length_N: NDArray[np.int64], place_N: Tensor | None, shape: Shape) -> list[Part]:
        """Rows in a part for each thread, with as many tokens each as whole rows allow."""
        begin_N = np.concatenate([[0], length_N.cumsum()])
        wanted = begin_N[-1] * np.arange(1, self.team.size) / self.team.size
        bounds = [0, *np.abs(begin_N - wanted[:, None]).argmin(1).tolist(), len(length_N)]
        # Each its own, so that dropout does not depend on what other threads do.
        seeds = torch.randint(2**62, (self.team.size,)).tolist()
        parts: list[Part] = []
        for (start, stop), seed in zip(pairwise(bounds), seeds, strict=True):
            if start == stop:
                continue
            longest, first = int(length_N[start]), int(begin_N[start])
            begin = torch.from_numpy(begin_N[start : stop + 1] - first)
            row_X, lowest, used = self._by_distance(longest)
            part = Part(
                tokens=int(begin_N[stop]) - first,
                n=stop - start,
                longest=longest,
                first=lowest,
                used=used,
                id_T=pointer(ids_T) + 8 * first,
                begin=pointer(begin),
                row_X=pointer(row_X),
                place_n=None if place_N is None else pointer(place_N) + 8 * start,
                seed=seed,
            )
            room = torch.empty(self.kernels.encode_room(ctypes.byref(shape), ctypes.byref(part)))
            part.room = pointer(room)
            part.held = [ids_T, begin, row_X, room, place_N]
            parts.append(part)
        return parts

    def _by_distance(self, length: int) -> tuple[Tensor, int, int]:
        """How the position table is laid out by distance in rows of a length, with transformers' own buckets: which of
        the used rows belongs to the distance i - j = L - 1 - x of query i and key j, for each of 2L - 1 x; the first
        used one, and how many."""
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
            self._distances[length] = row_X - first, first, last - first + 1
        return self._distances[length]


class _Layers(torch.autograd.Function):
    """Embedding and layers forward, and later back: each part of the rows in a thread of its own. Gives the last states
    of all tokens, or the means of rows."""

    @staticmethod
    def forward(
        ctx: Any,
        encoder: RowEncoder,
        shape: Shape,
        parts: list[Part],
        weights: NDArray[np.int64],
        ids_T: Tensor,
        means: bool,
        _: Tensor,
    ) -> Tensor:
        out = torch.empty(sum(part.n for part in parts) if means else len(ids_T), shape.hidden)
        told = ctypes.byref(shape), weights.ctypes.data

        def through(work: tuple[Part, tuple[int | None, int | None]]) -> None:
            part, where = work
            unknown = encoder.kernels.encode(told[0], ctypes.byref(part), told[1], *where)
            if unknown:
                raise IndexError(f"{unknown} token ids have no row in an embedding of {shape.words}")

        encoder.team.share_out(through, list(zip(parts, _places(parts, out, means), strict=True)))
        ctx.encoder, ctx.shape, ctx.parts, ctx.weights = encoder, shape, parts, weights
        ctx.ids_T, ctx.means = ids_T, means
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        encoder, shape, parts, ids_T = ctx.encoder, ctx.shape, ctx.parts, ctx.ids_T
        dout, drow_TD = gradients[0].contiguous(), torch.empty(len(ids_T), shape.hidden)
        own = encoder.gradients(len(parts))
        told = ctypes.byref(shape), ctx.weights.ctypes.data

        def back(work: tuple[Gradients, Part, tuple[int | None, int | None], tuple[int | None, int | None]]) -> None:
            own, part, where, to = work
            own.clear()
            encoder.kernels.encode_back(told[0], ctypes.byref(part), told[1], own.pointers.ctypes.data, *where, to[0])

        places = _places(parts, dout, ctx.means), _places(parts, drow_TD, False)
        encoder.team.share_out(back, list(zip(own, parts, *places, strict=True)))
        encoder.gather(own, drow_TD, ids_T)
        return (None,) * 7


def _places(parts: Sequence[Part], x: Tensor, means: bool) -> list[tuple[int | None, int | None]]:
    """For each part, where the states of its tokens begin in T x D, or where all means do."""
    if means:
        return [(None, pointer(x))] * len(parts)
    before = accumulate((part.tokens for part in parts[:-1]), initial=0)
    return [(pointer(x) + 4 * x.shape[1] * tokens, None) for tokens in before]


def _gradient(parameter: Tensor) -> Tensor:
    """Where the gradient of a parameter is added up."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _positions(length_N: NDArray[np.int64]) -> Tensor:
    """Where in its row each token stands, T."""
    begin_N = length_N.cumsum() - length_N
    return torch.from_numpy(np.arange(length_N.sum()) - np.repeat(begin_N, length_N))
