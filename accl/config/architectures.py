"""Architectures of encoders that can be started from scratch."""

from __future__ import annotations

from typing import Any

RANDOM = "random:"

# What DeBERTa-v3-base and RoBERTa-base have in common.
_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}
# Published configuration of microsoft/deberta-v3-base.
_V3_BASE: dict[str, Any] = _BASE | {
    "model_type": "deberta-v2",
    "vocab_size": 128100,
    "layer_norm_eps": 1e-7,
    "max_position_embeddings": 512,
    "position_buckets": 256,
    "relative_attention": True,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
# Configurations that can be started from scratch as random:<name>, in transformers' words.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": _V3_BASE
    | {
        "vocab_size": None,  # the tokenizer's
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": 128,
        "position_buckets": 32,
    },
    "deberta-v3-base": _V3_BASE,
    # FacebookAI/roberta-base as published, but for padding: 0 as in a tokenizer trained for it, not 1. Positions count
    # from the row after that, so 512 tokens need one row less.
    "roberta-base": _BASE
    | {
        "model_type": "roberta",
        "vocab_size": 50265,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 513,
        "type_vocab_size": 1,
    },
}
