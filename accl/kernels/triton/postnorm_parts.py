"""Where transformers' post-norm encoders keep their parts: BERT and its kin, ELECTRA, RoBERTa, DistilBERT and MPNet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from accl.kernels.buckets import mpnet_buckets
from accl.kernels.triton.layer import EncoderSettings
from accl.kernels.triton.parameters import LayerModules, unsupported_sizes

# MPNet looks its biases up in so many buckets, whatever its configuration says.
MPNET_BUCKETS = 32


@dataclass(frozen=True)
class PostNormParts:
    """Parts of an encoder whose layers are attention and feed-forward layer, each with a norm behind its residual.

    Attributes:
        positions: table of absolute positions. first: its row for the first token of a sequence.
        types: table of token types, of which all tokens have the first one; None without.
        norm: norm of the embeddings.
        bias: buckets x H; bias of the scores by bucket of distances, shared by all layers; None without.
        bucket: returns the bucket of each distance i - j, int64.
    """

    layers: list[LayerModules]
    positions: nn.Embedding
    first: int
    types: nn.Embedding | None
    norm: nn.LayerNorm
    settings: EncoderSettings
    bias: nn.Embedding | None = None
    bucket: Callable[[Tensor], Tensor] | None = None


def _settings(embeddings: Any, heads: int, proj_dropout: float, attention_dropout: float) -> EncoderSettings:
    """Return the settings of an encoder; probabilities are those of its modules, which the reference applies."""
    return EncoderSettings(heads, embeddings.LayerNorm.eps, embeddings.dropout.p, proj_dropout, attention_dropout)


def _bert(encoder: Any) -> PostNormParts:
    """BERT and ELECTRA: positions from 0."""
    return _like_bert(encoder, first=0)


def _roberta(encoder: Any) -> PostNormParts:
    """RoBERTa, XLM-RoBERTa and CamemBERT: positions from the row behind that of padding."""
    return _like_bert(encoder, first=encoder.embeddings.position_embeddings.padding_idx + 1)


def _like_bert(encoder: Any, first: int) -> PostNormParts:
    embeddings = encoder.embeddings
    layers = [
        LayerModules(
            *(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
            *(layer.attention.output.dense, layer.attention.output.LayerNorm),
            *(layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm),
        )
        for layer in encoder.encoder.layer
    ]
    attention = encoder.encoder.layer[0].attention
    heads = encoder.config.num_attention_heads
    settings = _settings(embeddings, heads, attention.output.dropout.p, attention.self.dropout.p)
    types, norm = embeddings.token_type_embeddings, embeddings.LayerNorm
    return PostNormParts(layers, embeddings.position_embeddings, first, types, norm, settings)


def _distilbert(encoder: Any) -> PostNormParts:
    """DistilBERT: no token types, and no dropout behind the projection of the attention's output."""
    embeddings = encoder.embeddings
    layers = [
        LayerModules(
            *(layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin),
            *(layer.attention.out_lin, layer.sa_layer_norm),
            *(layer.ffn.lin1, layer.ffn.lin2, layer.output_layer_norm),
        )
        for layer in encoder.transformer.layer
    ]
    attention = encoder.transformer.layer[0].attention
    settings = _settings(embeddings, encoder.config.n_heads, 0.0, attention.dropout.p)
    return PostNormParts(layers, embeddings.position_embeddings, 0, None, embeddings.LayerNorm, settings)


def _mpnet(encoder: Any) -> PostNormParts:
    """MPNet: positions as RoBERTa's, no token types, and biases by distance."""
    embeddings, inner = encoder.embeddings, encoder.encoder
    layers = [
        LayerModules(
            *(layer.attention.attn.q, layer.attention.attn.k, layer.attention.attn.v),
            *(layer.attention.attn.o, layer.attention.LayerNorm),
            *(layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm),
        )
        for layer in inner.layer
    ]
    attention = inner.layer[0].attention
    heads = encoder.config.num_attention_heads
    settings = _settings(embeddings, heads, attention.dropout.p, attention.attn.dropout.p)
    return PostNormParts(
        layers,
        embeddings.position_embeddings,
        embeddings.position_embeddings.padding_idx + 1,
        None,
        embeddings.LayerNorm,
        settings,
        inner.relative_attention_bias,
        partial(mpnet_buckets, buckets=MPNET_BUCKETS),
    )


# By what transformers calls the encoder.
PARTS: dict[str, Callable[[Any], PostNormParts]] = {
    "bert": _bert,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "electra": _bert,
    "mpnet": _mpnet,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}


def parts_of(encoder: Any) -> PostNormParts:
    """Return the parts of an encoder that is not `unsupported`."""
    return PARTS[encoder.config.model_type](encoder)


def unsupported(encoder: Any) -> str | None:
    """Return why the packed layers do not support an encoder of the types in `PARTS`; None if they do."""
    config = encoder.config
    width = config.hidden_size
    needed: dict[str, bool] = {
        "absolute positions": getattr(config, "position_embedding_type", None) in (None, "absolute"),
        "an embedding as wide as the layers": getattr(config, "embedding_size", width) == width,
        "no causal mask": not getattr(config, "is_decoder", False),
        "hidden_act=gelu": (config.activation if config.model_type == "distilbert" else config.hidden_act) == "gelu",
        f"{MPNET_BUCKETS} buckets of distances": config.model_type != "mpnet"
        or config.relative_attention_num_buckets == MPNET_BUCKETS,
    }
    missing = next((name for name, met in needed.items() if not met), None)
    feed_forward = config.hidden_dim if config.model_type == "distilbert" else config.intermediate_size
    missing = missing or unsupported_sizes(width, config.num_attention_heads, feed_forward)
    return f"the packed layers need {missing}" if missing else None
