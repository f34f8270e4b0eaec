"""BERT and its kin on packed sequences, without autograd, on the GPU: token ids to last hidden states, and back.

The parameters of transformers' encoders are read and trained in place; `accl.kernels.triton.postnorm_parts` knows
where each of them keeps its parts, and what distinguishes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from accl.kernels.triton import layer as layers
from accl.kernels.triton import varlen
from accl.kernels.triton.attention import PackedSequences
from accl.kernels.triton.embedding import AddedRows, SavedEmbedding, WordEmbedding, embed, embed_backward
from accl.kernels.triton.flat import FlatParameters
from accl.kernels.triton.layer import EncoderSettings, LayerContext, SavedActivations, dropout_offsets
from accl.kernels.triton.parameters import LayerWeights, layer_weights
from accl.kernels.triton.pointwise import add_column_sums
from accl.kernels.triton.postnorm_parts import parts_of
from accl.kernels.triton.streams import SideStream
from accl.kernels.triton.varlen import DistanceBias


@dataclass(frozen=True)
class SoftmaxAttention:
    """Plain attention of the layers of one pass, see `accl.kernels.triton.layer.LayerAttention`.

    Attributes:
        bias: of the scores, the same in all layers; None without.
        dbias: layers x P x H x buckets, fp32; partial sums of its gradient. None without bias or in inference.
    """

    sequences: PackedSequences
    settings: EncoderSettings
    bias: DistanceBias | None
    dbias: Tensor | None

    def attend(self, qkv: Tensor, layer: int) -> varlen.Attended:
        attended = varlen.attend(*self._split(qkv), self.sequences, **self._options(qkv, layer))
        return replace(attended, out=attended.out.view(len(qkv), -1))

    def backward(self, dout: Tensor, qkv: Tensor, attended: varlen.Attended, dqkv: Tensor, layer: int) -> None:
        q, k, v = self._split(qkv)
        varlen.attend_backward(
            dout.view(q.shape), q, k, v, attended, *self._split(dqkv), self.sequences, **self._options(qkv, layer),
            dbias=None if self.dbias is None else self.dbias[layer],
        )  # fmt: skip

    def backward_aside(self, qkv: Tensor, dqkv: Tensor, weights: LayerWeights, layer: int) -> None:
        """Nothing stands behind the tokens."""

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv.view(len(qkv), 3, self.settings.heads, -1).unbind(1)
        return q, k, v

    def _options(self, qkv: Tensor, layer: int) -> dict[str, Any]:
        return {
            "scale": (qkv.shape[1] // 3 // self.settings.heads) ** -0.5,
            "dropout_offset": dropout_offsets(layer)[1],
            "dropout": self.settings.attention_dropout,
            "bias": self.bias,
        }


@dataclass(frozen=True)
class ForwardCache:
    """Values of an encoder's forward pass that its backward pass needs; layers: activations, by layer."""

    context: LayerContext
    attention: SoftmaxAttention
    embedding: SavedEmbedding
    layers: list[SavedActivations]


class PackedPostNorm:
    """Last hidden states of packed sequences, and the gradients of an encoder's own parameters.

    Args:
        encoder: one that `accl.kernels.triton.postnorm_parts` supports, its parameters but the word embedding in
            ``flat``. words: the rows of that embedding that may be asked for.
        weights, skipped: see `accl.kernels.triton.parameters.layer_weights`; the type of ``weights`` is that of the
            computation.
    """

    def __init__(self, encoder: Any, words: WordEmbedding, flat: FlatParameters, weights: Tensor, skipped: int) -> None:
        self._parts = parts = parts_of(encoder)
        self._words, self._dtype, self._device = words, weights.dtype, weights.device
        self._layers = layer_weights(parts.layers, flat, weights, skipped)
        positions: Any = parts.positions.weight
        types: Any = None if parts.types is None else parts.types.weight
        shared, dshared = (None, None) if types is None else (types.data[0], types.grad[0])
        self._added = AddedRows(positions.data, positions.grad, parts.first, shared, dshared)
        self._buckets: dict[int, Tensor] = {}
        self._side_streams = SideStream(weights.device), SideStream(weights.device)
        # Behind those of all layers.
        self._embedding_offset = dropout_offsets(len(self._layers))[0]

    def prepare(self, longest: int) -> None:
        """Compute the buckets of all distances; needed before a pass over sequences of that length is captured."""
        if self._parts.bucket is not None and longest not in self._buckets:
            distances = torch.arange(-longest, longest)
            self._buckets[longest] = self._parts.bucket(distances).int().to(self._device)

    def infer(self, ids_T: Tensor, sequences: PackedSequences, longest: int) -> Tensor:
        """Return the hidden states, T x D, of token ids without dropout.

        Args:
            longest: length that no sequence exceeds.
        """
        settings = replace(self._parts.settings, hidden_dropout=0.0, proj_dropout=0.0, attention_dropout=0.0)
        return self._forward(ids_T, sequences, longest, settings, keep=False)[0]

    def forward(self, ids_T: Tensor, sequences: PackedSequences, longest: int) -> tuple[Tensor, ForwardCache]:
        """Return the hidden states, T x D, with dropout, and what `backward` needs."""
        return self._forward(ids_T, sequences, longest, self._parts.settings, keep=True)

    def _forward(
        self, ids_T: Tensor, sequences: PackedSequences, longest: int, settings: EncoderSettings, keep: bool
    ) -> tuple[Tensor, ForwardCache]:
        self.prepare(longest)
        norm: Any = self._parts.norm
        tokens, width = len(ids_T), norm.weight.numel()
        assert tokens * 3 * width < 2**31, "offsets in the kernels are of 32 bits"
        inputs = torch.empty(tokens, width, dtype=self._dtype, device=self._device)
        embedding = embed(
            ids_T, self._words, self._added, norm.weight.data, norm.bias.data, norm.eps, sequences,
            self._embedding_offset, settings.hidden_dropout, inputs,
        )  # fmt: skip
        attention = SoftmaxAttention(sequences, settings, *self._bias(longest, tokens, keep))
        context = LayerContext(sequences, settings, attention, *self._side_streams)
        saved: list[SavedActivations] = []
        for layer, weights in enumerate(self._layers):
            out = torch.empty_like(inputs)
            activations = layers.forward(inputs, out, context, weights, layer)
            if keep:
                saved.append(activations)
            inputs = out
        return inputs, ForwardCache(context, attention, embedding, saved)

    def _bias(self, longest: int, tokens: int, keep: bool) -> tuple[DistanceBias | None, Tensor | None]:
        """Return the bias of the scores, and the memory for its gradient."""
        if self._parts.bias is None:
            return None, None
        table, bucket = self._parts.bias.weight.data, self._buckets[longest]
        buckets, heads = table.shape
        bias = DistanceBias(table[bucket].t().contiguous(), bucket, buckets)
        if not keep:
            return bias, None
        shape = len(self._layers), varlen.bias_partials(tokens, self._dtype), heads, buckets
        return bias, torch.empty(shape, device=self._device)

    def backward(self, dhidden_TD: Tensor, cache: ForwardCache) -> None:
        """Compute the gradients of all parameters in place; once only, as it releases the activations.

        Those of matrices of the layers and of the scores' biases are written, the others are added to what is there.
        """
        context, dx = cache.context, dhidden_TD
        for layer in reversed(range(len(self._layers))):
            dx = layers.backward(dx, cache.layers.pop(), context, self._layers[layer], layer)
        if cache.attention.dbias is not None:
            with context.attention_stream.on_stream(cache.attention.dbias):
                self._bias_gradient(cache.attention.dbias)
        norm: Any = self._parts.norm
        embed_backward(
            dx, cache.embedding, self._words, self._added, norm.weight.data, context.sequences,
            self._embedding_offset, context.settings.hidden_dropout, (norm.weight.grad, norm.bias.grad),
        )  # fmt: skip
        for stream in self._side_streams:
            stream.join()

    def _bias_gradient(self, dbias: Tensor) -> None:
        """Write the gradient of the biases, from their partial sums of all layers."""
        assert self._parts.bias is not None
        table: Any = self._parts.bias.weight
        buckets, heads = table.shape
        sums = torch.zeros(heads * buckets, device=dbias.device)
        add_column_sums(dbias.view(-1, heads * buckets), sums)
        table.grad.copy_(sums.view(heads, buckets).t())
