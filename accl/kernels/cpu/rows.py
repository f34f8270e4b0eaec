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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from accl.kernels.cpu.native import pointer
from accl.kernels.cpu.rooms import Rooms
from accl.kernels.cpu.row_weights import Gradients, Weights
from accl.kernels.cpu.team import Team


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
    """Rows that one thread takes through the layers, as c/encoder.c knows them."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("before", "tokens", "n", "longest", "first", "used")),
        *((name, ctypes.c_void_p) for name in ("id_T", "begin", "row_X", "place_n")),
        ("seed", ctypes.c_uint64),
        ("room", ctypes.c_void_p),
        ("unknown", ctypes.c_int64),
    ]


class Target(ctypes.Structure):
    """Where c/encoder.c adds gradients to."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("offset", "count", "to")),
        *((name, ctypes.c_int64) for name in ("tensors", "never")),
        ("dword_VD", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class Passage:
    """One way of rows through the layers, which torch does not follow.

    Attributes:
        out: states, T x D, or means, N x D.
        told: what c/encoder.c is told on both ways. held: what the addresses among that belong to; rooms: the same, of
            each part, until it has gone back.
    """

    encoder: RowEncoder
    ids_T: Tensor
    means: bool
    out: Tensor
    told: tuple[Any, ...]
    held: tuple[Any, ...]
    rooms: list[Tensor]

    def back(self, dout: Tensor) -> None:
        """Add the gradients of all weights to their ``grad``, from that of ``out``.

        Raises:
            RuntimeError: it has gone back before, or was not to.
        """
        if not self.rooms:
            raise RuntimeError("rows go back through the layers once, and only when they are learnt from")
        rooms, dout = self.encoder.rooms, dout.contiguous()
        drow = rooms.take(len(self.ids_T) * dout.shape[1])
        gradients, target, _held = self.encoder.target(len(self.rooms))
        where = (gradients.ctypes.data, *_either(dout, self.means), pointer(drow))
        self.encoder.kernels.encode_back(*self.told, *where, ctypes.byref(target))
        rooms.give(drow)
        self.release()

    def release(self) -> None:
        """Nothing goes back."""
        while self.rooms:
            self.encoder.rooms.give(self.rooms.pop())


class RowEncoder:
    """Runs a `DebertaV2Model`: the same hidden states and gradients, and dropout where the module is in training mode.

    Computes in single precision, which the weights must be in, under autocast as well. Not a module itself: it owns no
    parameter, so that the names and files of the module's weights stay as they are. The way back adds the gradients to
    the ``grad`` of all weights by itself.

    Args:
        module: its parameters must stay the same objects; what is in them is read anew at every call, so that it may be
            trained, loaded and switched between modes.
        kernels: from `accl.kernels.cpu.native.load`.
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
        self.kernels, self.team, self.rooms = kernels, team, Rooms()
        self._weights, self._words = Weights(module), module.embeddings.word_embeddings
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
        wanted = any(p.requires_grad for p in (self._words.weight, *self._weights.parameters))
        # So that torch comes back: it gets no gradient.
        anchor = torch.empty(0, requires_grad=wanted)
        learning = wanted and torch.is_grad_enabled()
        out: Tensor = _Followed.apply(self, ids_T, length_N, learning, anchor)  # type: ignore[no-untyped-call]
        return out

    def run(self, ids_T: Tensor, length_N: NDArray[np.int64], place_N: Tensor | None, learning: bool) -> Passage:
        """One way through the layers.

        Args:
            ids_T, length_N: as for `states`.
            place_N: for means of rows, N x D, where that of each row goes; None for `states`.
            learning: whether to go back.

        Raises:
            IndexError: a token id has no row in the embedding.
        """
        place_V = getattr(self._words, "place_V", None)
        ids_T = ids_T if place_V is None else place_V[ids_T]
        shape, means = self._shape(self._module.training, learning), place_N is not None
        parts, rooms, held = self._cut(ids_T, length_N, place_N, shape)
        weights = self._weights.pointers(self._words.weight)
        out = torch.empty(len(length_N) if means else len(ids_T), shape.hidden)
        told = (self.team.handle, ctypes.byref(shape), ctypes.byref(parts), len(parts), weights.ctypes.data)
        unknown = self.kernels.encode(*told, *_either(out, means))
        if unknown:
            raise IndexError(f"{unknown} token ids have no row in an embedding of {shape.words}")
        passage = Passage(self, ids_T, means, out, told, (weights, *held), rooms)
        if not learning:
            passage.release()
        return passage

    def target(self, parts: int) -> tuple[NDArray[np.int64], Target, NDArray[np.int64]]:
        """For the way back of so many parts: memory for the gradients of each, where they are added up in the end, and
        what addresses in that belong to."""
        while len(self._gradients) < parts:
            self._gradients.append(Gradients(self._weights))
        own = self._gradients[:parts]
        to = np.array([_gradient(parameter) for parameter in self._weights.parameters], np.int64)
        target = Target(
            offset=own[0].offsets.ctypes.data,
            count=own[0].counts.ctypes.data,
            to=to.ctypes.data,
            tensors=len(to),
            never=-1 if self._words.padding_idx is None else self._words.padding_idx,
            dword_VD=_gradient(self._words.weight),
        )
        return np.array([of_part.pointers.ctypes.data for of_part in own], np.int64), target, to

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

    def _cut(
        self, ids_T: Tensor, length_N: NDArray[np.int64], place_N: Tensor | None, shape: Shape
    ) -> tuple[Any, list[Tensor], list[Any]]:
        """Rows in a part for each thread, with as many tokens each as whole rows allow; the room of each; and what else
        is to live as long."""
        begin_N = np.concatenate([[0], length_N.cumsum()])
        wanted = begin_N[-1] * np.arange(1, self.team.size) / self.team.size
        bounds = [0, *np.abs(begin_N - wanted[:, None]).argmin(1).tolist(), len(length_N)]
        # Each its own, so that dropout does not depend on what other threads do.
        seeds = torch.randint(2**62, (self.team.size,)).tolist()
        cuts = [(*cut, seed) for *cut, seed in zip(bounds[:-1], bounds[1:], seeds, strict=True) if cut[0] < cut[1]]
        parts, rooms, held = (Part * len(cuts))(), [], [ids_T, place_N]
        for part, (start, stop, seed) in zip(parts, cuts, strict=True):
            part.before, part.n, part.longest, part.seed = begin_N[start], stop - start, length_N[start], seed
            part.tokens = begin_N[stop] - begin_N[start]
            begin = torch.from_numpy(begin_N[start : stop + 1] - begin_N[start])
            row_X, part.first, part.used = self._by_distance(part.longest)
            part.id_T, part.begin, part.row_X = pointer(ids_T) + 8 * part.before, pointer(begin), pointer(row_X)
            if place_N is not None:
                part.place_n = pointer(place_N) + 8 * start
            rooms.append(self.rooms.take(self.kernels.encode_room(ctypes.byref(shape), ctypes.byref(part))))
            part.room = pointer(rooms[-1])
            held += [begin, row_X]
        return parts, rooms, held

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


class _Followed(torch.autograd.Function):
    """A passage that torch follows."""

    @staticmethod
    def forward(
        ctx: Any, encoder: RowEncoder, ids_T: Tensor, length_N: NDArray[np.int64], learning: bool, _: Tensor
    ) -> Tensor:
        ctx.passage = encoder.run(ids_T, length_N, None, learning)
        out: Tensor = ctx.passage.out
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        ctx.passage.back(*gradients)
        return (None,) * 5


def _either(x: Tensor, means: bool) -> tuple[int | None, int | None]:
    """States or means, or gradients of either."""
    return (None, pointer(x)) if means else (pointer(x), None)


def _gradient(parameter: Tensor) -> int:
    """Where the gradient of a parameter is added up; 0 if none is wanted."""
    if not parameter.requires_grad:
        return 0
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return pointer(parameter.grad)


def _positions(length_N: NDArray[np.int64]) -> Tensor:
    """Where in its row each token stands, T."""
    begin_N = length_N.cumsum() - length_N
    return torch.from_numpy(np.arange(length_N.sum()) - np.repeat(begin_N, length_N))
