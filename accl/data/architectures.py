"""Architectures of encoders: those that can be started from scratch, and the longest input that one reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accl.errors import ConfigError

RANDOM = "random:"

# What most encoders of BERT's size have in common.
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
_BERT: dict[str, Any] = _BASE | {
    "model_type": "bert",
    "vocab_size": 30522,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
_ELECTRA: dict[str, Any] = _BERT | {"model_type": "electra", "embedding_size": 768}
# Configurations that can be started from scratch as random:<name>, in transformers' words: but for ``tiny`` those of
# published encoders, so that what is measured on one needs no weights.
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
    "bert-base-uncased": _BERT,
    "all-MiniLM-L6-v2": _BERT | {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "electra-base-discriminator": _ELECTRA,
    "electra-small-discriminator": _ELECTRA
    | {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    "distilbert-base-uncased": {
        "model_type": "distilbert",
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    },
    "all-mpnet-base-v2": _BASE
    | {
        "model_type": "mpnet",
        "vocab_size": 30527,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 514,
        "relative_attention_num_buckets": 32,
        "pad_token_id": 1,  # of the class, whatever the configuration says
    },
    "ModernBERT-base": {
        "model_type": "modernbert",
        "vocab_size": 50368,
        "hidden_size": 768,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "intermediate_size": 1152,
        "max_position_embeddings": 8192,
        "local_attention": 128,
        "global_attn_every_n_layers": 3,
        "pad_token_id": 0,
    },
    "deberta-base": _BASE
    | {
        "model_type": "deberta",
        "vocab_size": 50265,
        "layer_norm_eps": 1e-7,
        "max_position_embeddings": 512,
        "relative_attention": True,
        "max_relative_positions": -1,
        "pos_att_type": ["c2p", "p2c"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
}

# Models with a table of absolute positions, which counts from 0 or from the row after that of padding. Others have no
# limit, or one that only loading them tells.
_FROM_ZERO = {"albert", "bert", "distilbert", "electra"}
_FROM_PADDING = {"camembert", "mpnet", "roberta", "xlm-roberta"}


def architecture(name: str) -> dict[str, Any]:
    """Return the configuration of ``random:<architecture>``.

    Raises:
        ConfigError: there is no such architecture.
    """
    values = ARCHITECTURES.get(name.removeprefix(RANDOM))
    if values is None:
        known = ", ".join(RANDOM + other for other in ARCHITECTURES)
        raise ConfigError(f"Unknown architecture {name}.", f"There are: {known}.")
    return dict(values)


def read_architecture(folder: Path) -> dict[str, Any]:
    """Return the configuration of a model in a folder.

    Raises:
        ConfigError: its ``config.json`` cannot be read.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "Fetch or save the model again.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no configuration of a model.", "Fetch or save the model again.")
    return values


def longest_input(values: Mapping[str, Any]) -> int | None:
    """Return the longest input in tokens of an encoder of that configuration; None where it does not tell."""
    kind, rows = values.get("model_type"), values.get("max_position_embeddings")
    if not isinstance(rows, int):
        return None
    if kind in _FROM_PADDING:
        padding = values.get("pad_token_id", 1)
        return rows - padding - 1 if isinstance(padding, int) else None
    biased = kind in ("deberta", "deberta-v2") and values.get("position_biased_input", True)
    return rows if kind in _FROM_ZERO or biased else None
