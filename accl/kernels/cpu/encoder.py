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
from ctypes import c_double, c_int64, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accl.kernels.buckets import log_buckets
from accl.kernels.cpu.native import pointer
from accl.kernels.cpu.thread_pool import ThreadPool


def unsupported(config: Any) -> str | None:
    """Return why an encoder of that transformers configuration cannot be computed here, or None when it can."""
    if config.model_type != "deberta-v2":
        return f"{config.model_type} is not DeBERTa-v2 or v3"
    attention = config.relative_attention and set(config.pos_att_type or ()) == {"c2p", "p2c"}
    size = getattr(config, "embedding_size", config.hidden_size)
    embedding = config.position_biased_input or config.type_vocab_size or size != config.hidden_size
    obstacles = {
        "attention other than of content to position and position to content": not attention,
        "a convolution beside the first layer": getattr(config, "conv_kernel_size", 0) > 0,
        f"hidden_act={config.hidden_act} instead of gelu": config.hidden_act != "gelu",
        "an embedding of more than tokens, or of another size": embedding,
        "its layers need share_att_key": not getattr(config, "share_att_key", False),
        "its layers need norm_rel_ebd=layer_norm": getattr(config, "norm_rel_ebd", "none") != "layer_norm",
        "its layers need position_buckets": getattr(config, "position_buckets", -1) <= 0,
    }
    return next((reason for reason, there in obstacles.items() if there), None)


def _fields(names: str, kind: type[Any]) -> list[tuple[str, type[Any]]]:
    return [(name, kind) for name in names.split()]


class Shard(ctypes.Structure):
    """``Shard`` of c/kernels.h."""

    _fields_ = [
        *_fields("before tokens n max_length first used", c_int64),
        *_fields("id_T cu_seqlens bucket_X perm_n", c_void_p),
        *(("seed", c_uint64), ("buffer", c_void_p), ("unknown", c_int64)),
    ]


class EncoderContext(ctypes.Structure):
    """``EncoderContext`` of c/kernels.h."""

    _fields_ = [
        *_fields("layers saved_layers hidden heads size feed_forward words", c_int64),
        *_fields("shards tensors elements padding_id", c_int64),
        *_fields("embedding_dropout attention_dropout dropout embedding_eps table_eps eps", c_double),
        *_fields("shard word_VD weights mean_ND dmean_ND drow_TD gradients count to dword_VD", c_void_p),
    ]


@dataclass(frozen=True)
class ForwardContext:
    """A forward pass, which autograd does not record.

    Attributes:
        mean_ND: mean hidden state of each sequence. tokens: T.
        c_args: the struct that both passes take. keepalive: owners of the addresses in it.
        buffers: one for each shard, until the backward pass.
    """

    encoder: PackedEncoder
    mean_ND: Tensor
    tokens: int
    c_args: EncoderContext
    keepalive: tuple[Any, ...]
    buffers: list[Tensor]

    def backward(self, dmean_ND: Tensor) -> None:
        """Add the gradients of all weights to their ``grad``, given those of ``mean_ND``.

        Parameters that require a gradient and have none get one of 0 first.

        Raises:
            RuntimeError: there was a backward pass already, or the forward pass was without gradients.
        """
        if not self.buffers:
            raise RuntimeError("a forward pass with gradients allows one backward pass, one without allows none")
        self.encoder.backward(self.c_args, dmean_ND.contiguous(), torch.empty(self.tokens, dmean_ND.shape[1]))
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
        self._module, self._kernels, self._threads = module, kernels, threads
        self._words, self._parameters = module.embeddings.word_embeddings, _parameters(module)
        self._counts = np.array([parameter.numel() for parameter in self._parameters], np.int64)
        # A row for each shard, of which `Parameters` of c/kernels.h has the addresses.
        self._gradients = torch.empty(threads.size, int(self._counts.sum()))
        offsets = self._counts.cumsum() - self._counts + self._gradients.shape[1] * np.arange(threads.size)[:, None]
        self._addresses = pointer(self._gradients) + 4 * offsets
        self._buckets: dict[int, tuple[Tensor, int, int]] = {}

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
        c_args = self._context(with_gradients)
        shards, buffers, keepalive = self._shards(ids_T, length_N, perm_N, c_args)
        weights = np.array(list(map(pointer, self._parameters)), np.int64)
        mean_ND = torch.empty(len(length_N), c_args.hidden)
        c_args.shards, c_args.shard = len(shards), ctypes.addressof(shards)
        c_args.weights, c_args.mean_ND = weights.ctypes.data, pointer(mean_ND)
        unknown = self._kernels.encode(self._threads.handle, ctypes.byref(c_args))
        if unknown:
            raise IndexError(f"{unknown} token ids have no row in an embedding of {c_args.words}")
        saved = buffers if with_gradients else []
        return ForwardContext(self, mean_ND, len(ids_T), c_args, (shards, weights, *keepalive), saved)

    def backward(self, c_args: EncoderContext, dmean_ND: Tensor, drow_TD: Tensor) -> None:
        """Add the gradients of all weights, for `ForwardContext.backward`; ``drow_TD`` is memory to work in."""
        to = np.array(list(map(_grad_pointer, self._parameters)), np.int64)
        c_args.dmean_ND, c_args.drow_TD = pointer(dmean_ND), pointer(drow_TD)
        c_args.dword_VD = _grad_pointer(self._words.weight)
        c_args.gradients, c_args.count, c_args.to = (a.ctypes.data for a in (self._addresses, self._counts, to))
        self._kernels.encode_backward(self._threads.handle, ctypes.byref(c_args))

    def _context(self, with_gradients: bool) -> EncoderContext:
        """Return sizes and settings, without addresses but that of the word table."""
        embeddings, encoder, config = self._module.embeddings, self._module.encoder, self._module.config
        layer, training = encoder.layer[0], self._module.training
        return EncoderContext(
            layers=len(encoder.layer),
            saved_layers=len(encoder.layer) if with_gradients else 1,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            size=layer.attention.self.attention_head_size,
            feed_forward=config.intermediate_size,
            words=len(self._words.weight),
            tensors=len(self._counts),
            elements=self._gradients.shape[1],
            padding_id=-1 if self._words.padding_idx is None else self._words.padding_idx,
            embedding_dropout=embeddings.dropout.p if training else 0.0,
            attention_dropout=layer.attention.self.dropout.p if training else 0.0,
            dropout=layer.output.dropout.p if training else 0.0,
            embedding_eps=embeddings.LayerNorm.eps,
            table_eps=encoder.LayerNorm.eps,
            eps=layer.output.LayerNorm.eps,
            word_VD=pointer(self._words.weight),
        )

    def _shards(
        self, ids_T: Tensor, length_N: NDArray[np.int64], perm_N: Tensor, c_args: EncoderContext
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
            size = self._kernels.encode_buffer_size(ctypes.byref(c_args), ctypes.byref(shard))
            buffers.append(torch.empty(size))
            shard.buffer = pointer(buffers[-1])
            keepalive += [own_cu_seqlens, bucket_X]
        return shards, buffers, keepalive

    def _buckets_of(self, length: int) -> tuple[Tensor, int, int]:
        """Return transformers' bucket of each distance i - j = L - 1 - x of query i and key j, counted from the first
        one in use; the first; and how many are in use."""
        if length not in self._buckets:
            buckets, max_distance = self._module.encoder.position_buckets, self._module.encoder.max_relative_positions
            bucket_X = log_buckets(length - 1 - torch.arange(2 * length - 1), buckets, max_distance)
            bucket_X = (bucket_X + buckets).clamp(0, 2 * buckets - 1)
            first, last = int(bucket_X.min()), int(bucket_X.max())
            self._buckets[length] = bucket_X - first, first, last - first + 1
        return self._buckets[length]


def _parameters(module: Any) -> list[Tensor]:
    """Return the parameters but the word table in the order of ``Parameters`` of c/kernels.h."""
    encoder = module.encoder
    found = [*_affine(module.embeddings.LayerNorm), encoder.rel_embeddings.weight, *_affine(encoder.LayerNorm)]
    for layer in encoder.layer:
        attention, output = layer.attention.self, layer.attention.output
        qkv = (attention.query_proj, attention.key_proj, attention.value_proj)
        found += [*(m.weight for m in qkv), *(m.bias for m in qkv), *_affine(output.dense), *_affine(output.LayerNorm)]
        found += [*_affine(layer.intermediate.dense), *_affine(layer.output.dense), *_affine(layer.output.LayerNorm)]
    return found


def _affine(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias


def _grad_pointer(parameter: Tensor) -> int:
    """Return the address of the parameter's gradient, made of 0 if there is none; 0 if none is required."""
    if not parameter.requires_grad:
        return 0
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return pointer(parameter.grad)
