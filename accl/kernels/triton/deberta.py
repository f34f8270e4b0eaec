"""DeBERTa-v2 and -v3 on packed sequences, without autograd, on the GPU: token ids to last hidden states, and back.

The parameters of transformers' `DebertaV2Model` are read and trained in place. The W rows of the position table follow
the T tokens through the projections of queries and keys, which DeBERTa-v3 shares between content and positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from accl.kernels.triton import layer as layers
from accl.kernels.triton.attention import PackedSequences
from accl.kernels.triton.disentangled import DisentangledAttention
from accl.kernels.triton.embedding import SavedEmbedding, WordEmbedding, embed, embed_backward
from accl.kernels.triton.flat import FlatParameters
from accl.kernels.triton.layer import EncoderSettings, LayerContext, SavedActivations
from accl.kernels.triton.parameters import LayerModules, layer_weights, unsupported_sizes
from accl.kernels.triton.pointwise import add_norm, add_norm_backward, apply_dropout
from accl.kernels.triton.positions import RelativePositions, relative_positions
from accl.kernels.triton.streams import SideStream


def unsupported(encoder: Any) -> str | None:
    """Return why `PackedDeberta` does not support a `DebertaV2Model`; None if it does."""
    config = encoder.config
    width = config.hidden_size
    needed: dict[str, bool] = {
        "relative attention of content to position and position to content": bool(config.relative_attention)
        and set(config.pos_att_type or ()) == {"c2p", "p2c"},
        "share_att_key": bool(getattr(config, "share_att_key", False)),
        "norm_rel_ebd=layer_norm": getattr(config, "norm_rel_ebd", "none") == "layer_norm",
        "no absolute positions, token types or convolution": not config.position_biased_input
        and config.type_vocab_size == 0
        and getattr(config, "conv_kernel_size", 0) == 0,
        "an embedding as wide as the layers": getattr(config, "embedding_size", width) == width,
        "hidden_act=gelu": config.hidden_act == "gelu",
    }
    missing = next((name for name, met in needed.items() if not met), None)
    missing = missing or unsupported_sizes(width, config.num_attention_heads, config.intermediate_size)
    return f"the packed layers need {missing}" if missing else None


def layer_modules(encoder: Any) -> list[LayerModules]:
    """Return the modules of a `DebertaV2Model`'s layers."""
    return [
        LayerModules(
            *(layer.attention.self.query_proj, layer.attention.self.key_proj, layer.attention.self.value_proj),
            *(layer.attention.output.dense, layer.attention.output.LayerNorm),
            *(layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm),
        )
        for layer in encoder.encoder.layer
    ]


@dataclass(frozen=True)
class ForwardCache:
    """Values of an encoder's forward pass that its backward pass needs.

    Attributes:
        table_norm: mean and rstd of the position table's norm, W in fp32. layers: activations, by layer.
    """

    context: LayerContext
    attention: DisentangledAttention
    embedding: SavedEmbedding
    table_norm: tuple[Tensor, Tensor]
    layers: list[SavedActivations]


class PackedDeberta:
    """Last hidden states of packed sequences, and the gradients of an encoder's own parameters.

    Args:
        encoder: a `DebertaV2Model` that is not `unsupported`, its parameters but the word embedding in ``flat``.
        words: the rows of that embedding that may be asked for.
        weights, skipped: see `accl.kernels.triton.parameters.layer_weights`; the type of ``weights`` is that of the
            computation.
    """

    def __init__(self, encoder: Any, words: WordEmbedding, flat: FlatParameters, weights: Tensor, skipped: int) -> None:
        self._encoder, self._words, config = encoder, words, encoder.config
        self._dtype, self._device = weights.dtype, weights.device
        self._layers = layer_weights(layer_modules(encoder), flat, weights, skipped)
        self._no_residual = torch.zeros_like(encoder.encoder.rel_embeddings.weight)
        self._settings = EncoderSettings(
            config.num_attention_heads,
            config.layer_norm_eps,
            hidden_dropout=config.hidden_dropout_prob,
            proj_dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
        )
        self._positions: dict[int, RelativePositions] = {}
        self._side_streams = SideStream(weights.device), SideStream(weights.device)
        # Behind those of all layers.
        self._embedding_offset = layers.dropout_offsets(len(self._layers))[0]

    def prepare(self, longest: int) -> None:
        """Compute the relative positions up to a distance; needed before a step with it is captured."""
        if longest not in self._positions:
            self._positions[longest] = relative_positions(self._encoder.config, longest, self._device)

    def infer(self, ids_T: Tensor, sequences: PackedSequences, longest: int) -> Tensor:
        """Return the hidden states, T x D, of token ids without dropout.

        Args:
            longest: length that no sequence exceeds.
        """
        settings = replace(self._settings, hidden_dropout=0.0, proj_dropout=0.0, attention_dropout=0.0)
        return self._forward(ids_T, sequences, longest, settings, keep=False)[0]

    def forward(self, ids_T: Tensor, sequences: PackedSequences, longest: int) -> tuple[Tensor, ForwardCache]:
        """Return the hidden states, T x D, with dropout, and what `backward` needs."""
        return self._forward(ids_T, sequences, longest, self._settings, keep=True)

    def _forward(
        self, ids_T: Tensor, sequences: PackedSequences, longest: int, settings: EncoderSettings, keep: bool
    ) -> tuple[Tensor, ForwardCache]:
        self.prepare(longest)
        word_norm, positions = self._encoder.embeddings.LayerNorm, self._encoder.encoder
        table_WD = positions.rel_embeddings.weight.data
        tokens, (rows, width) = len(ids_T), table_WD.shape
        seed, dropout = sequences.seed, settings.hidden_dropout
        assert (tokens + rows) * 3 * width < 2**31, "offsets in the kernels are of 32 bits"
        inputs = torch.empty(tokens + rows, width, dtype=self._dtype, device=self._device)
        embedding = embed(
            ids_T, self._words, None, word_norm.weight.data, word_norm.bias.data, word_norm.eps, sequences,
            self._embedding_offset, dropout, inputs[:tokens],
        )  # fmt: skip
        norm, normed_WD = positions.LayerNorm, torch.empty_like(table_WD)
        table_norm = add_norm(
            table_WD, self._no_residual, norm.weight.data, norm.bias.data, norm.eps, seed, 0, 0.0, normed_WD
        )
        attention = DisentangledAttention(sequences, self._positions[longest], settings, self._side_streams[1])
        context = LayerContext(sequences, settings, attention, *self._side_streams)
        saved: list[SavedActivations] = []
        for layer, weights in enumerate(self._layers):
            # Each layer sees the position table under a dropout mask of its own.
            apply_dropout(normed_WD, inputs[tokens:], seed, layers.dropout_offsets(layer)[0], dropout)
            out = torch.empty_like(inputs)
            activations = layers.forward(inputs, out, context, weights, layer)
            if keep:
                saved.append(activations)
            inputs = out
        return inputs[:tokens], ForwardCache(context, attention, embedding, table_norm, saved)

    def backward(self, dhidden_TD: Tensor, cache: ForwardCache) -> None:
        """Compute the gradients of all parameters in place; once only, as it releases the activations.

        Those of words, their norm and the layers' vectors are added to what is there, the others are written.
        """
        context, dx = cache.context, dhidden_TD
        sequences, settings = context.sequences, context.settings
        dtable = torch.zeros_like(self._no_residual)
        cache.attention.begin_backward(len(dx), self._dtype, dtable)
        for layer in reversed(range(len(self._layers))):
            dx = layers.backward(dx, cache.layers.pop(), context, self._layers[layer], layer)
        word_norm, positions = self._encoder.embeddings.LayerNorm, self._encoder.encoder
        with context.attention_stream.on_stream():
            table_WD, norm = positions.rel_embeddings.weight, positions.LayerNorm
            dnorm = torch.zeros(3, table_WD.shape[1], device=self._device)
            dtable_WD, _ = add_norm_backward(
                dtable, table_WD.data, self._no_residual, norm.weight.data, *cache.table_norm, sequences.seed, 0, 0.0,
                dnorm,
            )  # fmt: skip
            table_WD.grad.copy_(dtable_WD)
            torch._foreach_copy_([norm.weight.grad, norm.bias.grad], [dnorm[0], dnorm[1]])
        embed_backward(
            dx, cache.embedding, self._words, None, word_norm.weight.data, sequences, self._embedding_offset,
            settings.hidden_dropout, (word_norm.weight.grad, word_norm.bias.grad),
        )  # fmt: skip
        for stream in self._side_streams:
            stream.join()
