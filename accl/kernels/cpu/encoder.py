"""DeBERTa-v2 and -v3 on the CPU: transformers' `DebertaV2Model`, from its own parameters, over packed sequences.

Sequences are sorted by length and cut into one shard for each thread. A thread takes its shard through all layers, and
later through the backward pass, in one call of `c/encoder.c`: if threads shared out every single matrix product, they
would wait for each other hundreds of times in a step. On a CPU a small layer is as much overhead as arithmetic, so
there is no graph to record, nothing is computed for padding, no dropout mask is stored, and the gradients of residuals
are accumulated by the matrix products.

Shapes: N sequences of length L, T tokens of all of them, D hidden, V rows of the word table, X = 2L - 1 distances.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.kernels.cpu.native import pointer
from accl.kernels.cpu.thread_pool import ThreadPool
from accl.kernels.cpu.weights import Gradients, Weights


def unsupported(config: Any) -> str | None:
    """Return why an encoder of that transformers configuration cannot be computed here, or None when it can."""
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
    """``Shape`` of c/encoder.c."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("layers", "saved_layers", "hidden", "heads", "size", "feed_forward", "words")
        ),
        *((name, ctypes.c_double) for name in ("embedding_dropout", "attention_dropout", "dropout")),
        *((name, ctypes.c_float) for name in ("embedding_eps", "table_eps", "eps")),
    ]


class Shard(ctypes.Structure):
    """``Shard`` of c/encoder.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("before", "tokens", "n", "max_length", "first", "used")),
        *((name, ctypes.c_void_p) for name in ("id_T", "cu_seqlens", "bucket_X", "perm_n")),
        ("seed", ctypes.c_uint64),
        ("buffer", ctypes.c_void_p),
        ("unknown", ctypes.c_int64),
    ]


class Target(ctypes.Structure):
    """``Target`` of c/encoder.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("offset", "count", "to")),
        *((name, ctypes.c_int64) for name in ("tensors", "padding_id")),
        ("dword_VD", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class ForwardContext:
    """A forward pass, which autograd does not record.

    Attributes:
        mean_ND: mean hidden state of each sequence. tokens: T.
        c_args: first arguments of `encode` and `encode_backward`. keepalive: owners of the addresses among them.
        buffers: one for each shard, until the backward pass.
    """

    encoder: PackedEncoder
    mean_ND: Tensor
    tokens: int
    c_args: tuple[Any, ...]
    keepalive: tuple[Any, ...]
    buffers: list[Tensor]

    def backward(self, dmean_ND: Tensor) -> None:
        """Add the gradients of all weights to their ``grad``, given those of ``mean_ND``.

        Raises:
            RuntimeError: there was a backward pass already, or the forward pass was without gradients.
        """
        if not self.buffers:
            raise RuntimeError("a forward pass with gradients allows one backward pass, one without allows none")
        dmean_ND = dmean_ND.contiguous()
        drow = torch.empty(self.tokens * dmean_ND.shape[1])
        gradients, target, _keepalive = self.encoder.target(len(self.buffers))
        where = (gradients.ctypes.data, pointer(dmean_ND), pointer(drow), ctypes.byref(target))
        self.encoder.kernels.encode_backward(*self.c_args, *where)
        self.buffers.clear()


class PackedEncoder:
    """Runs a `DebertaV2Model`: the same hidden states and gradients, and dropout where the module is in training mode.

    Computes in single precision, also under autocast. Not a module itself: it owns no parameter, so that the names and
    files of the module's weights stay as they are.

    Args:
        module: its parameters must stay the same objects; their values are read anew at every call, so that the module
            may be trained, loaded and switched between modes.
        kernels: from `accl.kernels.cpu.native.load`.
        threads: computes a shard of the sequences in each of its threads.

    Raises:
        ValueError: `unsupported`, or weights that are not in single precision.
    """

    def __init__(self, module: Any, kernels: ctypes.CDLL, threads: ThreadPool) -> None:
        reason = unsupported(module.config)
        if reason is not None:
            raise ValueError(f"no DeBERTa encoder for packed sequences on a CPU: {reason}")
        if any(parameter.dtype != torch.float32 for parameter in module.parameters()):
            raise ValueError("packed sequences are computed in single precision: convert the encoder with .float()")
        self._module = module
        self.kernels, self._threads = kernels, threads
        self._weights, self._words = Weights(module), module.embeddings.word_embeddings
        self._shapes: dict[tuple[bool, bool], Shape] = {}
        self._buckets: dict[int, tuple[Tensor, int, int]] = {}
        self._gradients: list[Gradients] = []

    def forward(
        self, ids_T: Tensor, length_N: NDArray[np.int64], perm_N: Tensor, *, with_gradients: bool
    ) -> ForwardContext:
        """Encode sequences that lie end to end, the longest first.

        Args:
            ids_T: token ids. length_N: of the sequences, at least 1.
            perm_N: index of each sequence among the means.
            with_gradients: whether there will be a backward pass.

        Raises:
            IndexError: a token id has no row in the embedding.
        """
        shape = self._shape(self._module.training, with_gradients)
        shards, buffers, keepalive = self._shards(ids_T, length_N, perm_N, shape)
        weights = self._weights.pointers(self._words.weight)
        mean_ND = torch.empty(len(length_N), shape.hidden)
        c_args = (self._threads.handle, ctypes.byref(shape), ctypes.byref(shards), len(shards), weights.ctypes.data)
        unknown = self.kernels.encode(*c_args, pointer(mean_ND))
        if unknown:
            raise IndexError(f"{unknown} token ids have no row in an embedding of {shape.words}")
        saved = buffers if with_gradients else []
        return ForwardContext(self, mean_ND, len(ids_T), c_args, (weights, *keepalive), saved)

    def target(self, shards: int) -> tuple[NDArray[np.int64], Target, NDArray[np.int64]]:
        """Return memory for the gradients of each shard, where their sums are added, and the owner of addresses in it.

        Parameters that require a gradient and have none get one of 0.
        """
        while len(self._gradients) < shards:
            self._gradients.append(Gradients(self._weights))
        own = self._gradients[:shards]
        to = np.array([_grad_pointer(parameter) for parameter in self._weights.parameters], np.int64)
        target = Target(
            offset=own[0].offsets.ctypes.data,
            count=own[0].counts.ctypes.data,
            to=to.ctypes.data,
            tensors=len(to),
            padding_id=-1 if self._words.padding_idx is None else self._words.padding_idx,
            dword_VD=_grad_pointer(self._words.weight),
        )
        return np.array([gradients.pointers.ctypes.data for gradients in own], np.int64), target, to

    def _shape(self, training: bool, with_gradients: bool) -> Shape:
        if (training, with_gradients) not in self._shapes:
            module, config, layer = self._module, self._module.config, self._module.encoder.layer[0]
            embeddings, encoder, attention = module.embeddings, module.encoder, layer.attention.self
            self._shapes[training, with_gradients] = Shape(
                layers=len(encoder.layer),
                saved_layers=len(encoder.layer) if with_gradients else 1,
                hidden=config.hidden_size,
                heads=attention.num_attention_heads,
                size=attention.attention_head_size,
                feed_forward=config.intermediate_size,
                words=len(embeddings.word_embeddings.weight),
                embedding_dropout=embeddings.dropout.p if training else 0.0,
                attention_dropout=attention.dropout.p if training else 0.0,
                dropout=layer.output.dropout.p if training else 0.0,
                embedding_eps=embeddings.LayerNorm.eps,
                table_eps=encoder.LayerNorm.eps if hasattr(encoder, "LayerNorm") else 0.0,
                eps=layer.output.LayerNorm.eps,
            )
        return self._shapes[training, with_gradients]

    def _shards(
        self, ids_T: Tensor, length_N: NDArray[np.int64], perm_N: Tensor, shape: Shape
    ) -> tuple[Any, list[Tensor], list[Any]]:
        """Cut the sequences into a shard for each thread, of as equal numbers of tokens as whole sequences allow.

        Returns:
            the array of shards, the buffer of each, and the owners of addresses in the shards.
        """
        cu_seqlens = np.concatenate([[0], length_N.cumsum()])
        wanted = cu_seqlens[-1] * np.arange(1, self._threads.size) / self._threads.size
        bounds = [0, *np.abs(cu_seqlens - wanted[:, None]).argmin(1).tolist(), len(length_N)]
        # A seed for each, so that dropout does not depend on what other threads do.
        seeds = torch.randint(2**62, (self._threads.size,)).tolist()
        cuts = [(*cut, seed) for *cut, seed in zip(bounds[:-1], bounds[1:], seeds, strict=True) if cut[0] < cut[1]]
        shards, buffers, keepalive = (Shard * len(cuts))(), [], [ids_T, perm_N]
        for shard, (start, stop, seed) in zip(shards, cuts, strict=True):
            shard.before, shard.n, shard.max_length = cu_seqlens[start], stop - start, length_N[start]
            shard.tokens, shard.seed = cu_seqlens[stop] - cu_seqlens[start], seed
            own_cu_seqlens = torch.from_numpy(cu_seqlens[start : stop + 1] - cu_seqlens[start])
            bucket_X, shard.first, shard.used = self._buckets_of(shard.max_length)
            shard.id_T, shard.perm_n = pointer(ids_T) + 8 * shard.before, pointer(perm_N) + 8 * start
            shard.cu_seqlens, shard.bucket_X = pointer(own_cu_seqlens), pointer(bucket_X)
            size = self.kernels.encode_buffer_size(ctypes.byref(shape), ctypes.byref(shard))
            buffers.append(torch.empty(size))
            shard.buffer = pointer(buffers[-1])
            keepalive += [own_cu_seqlens, bucket_X]
        return shards, buffers, keepalive

    def _buckets_of(self, length: int) -> tuple[Tensor, int, int]:
        """Return transformers' bucket of each distance i - j = L - 1 - x of query i and key j, counted from the first
        one in use; the first; and how many are in use."""
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        if length not in self._buckets:
            encoder = self._module.encoder
            buckets, max_distance = encoder.position_buckets, encoder.max_relative_positions
            span = buckets if buckets > 0 else max_distance
            bucket_X = length - 1 - torch.arange(2 * length - 1)
            if buckets > 0:
                bucket_X = make_log_bucket_position(bucket_X, buckets, max_distance).long()
            bucket_X = (bucket_X + span).clamp(0, 2 * span - 1)
            first, last = int(bucket_X.min()), int(bucket_X.max())
            self._buckets[length] = bucket_X - first, first, last - first + 1
        return self._buckets[length]


def _grad_pointer(parameter: Tensor) -> int:
    """Return the address of the parameter's gradient, made of 0 if there is none; 0 if none is required."""
    if not parameter.requires_grad:
        return 0
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return pointer(parameter.grad)
