"""Encoders with fp32 weights: from the Hub, from a local folder, or from scratch."""

from __future__ import annotations

import inspect
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accl.data import hub
from accl.errors import ConfigError

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


@dataclass
class Encoder:
    """A text encoder.

    Attributes:
        module: takes ``input_ids`` and ``attention_mask``, both B x L; gives ``last_hidden_state``, B x L x D. fp32.
        hidden_size: D.
        description: architecture and size in words.
        pretrained: whether its weights come from a file.
        max_length: the longest input in tokens; None: relative positions, no limit.
        settings: of the configuration that ARCHITECTURES also give, such as the rate of dropout.
    """

    module: nn.Module
    hidden_size: int
    description: str
    pretrained: bool
    max_length: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def load_encoder(name: str, revision: str, vocab_size: int | None = None) -> Encoder:
    """Load or make the encoder of that name, with fp32 weights.

    Args:
        name: a Hub id, a local folder, or ``random:<architecture>`` with one of ``ARCHITECTURES``.
        revision: commit of a Hub model.
        vocab_size: size of the embedding for an architecture without one of its own; not used by others.

    Raises:
        ConfigError: unknown architecture, no such folder, no encoder in it, or weights that do not fit it.
        HubError: a Hub model that is neither cached nor within reach.
    """
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # else transformers asks the Hub for a converted copy
    if name.startswith(RANDOM):
        return _from_scratch(name.removeprefix(RANDOM), vocab_size)
    return _from_folder(resolve_model_folder(name, revision), name)


def resolve_model_folder(name: str, revision: str) -> Path:
    """Return the folder with config, tokenizer files and weights of a model.

    A Hub model that has no safetensors is converted once, to fp32 ``model.safetensors`` in accl's cache, and read
    from there ever after.

    Raises:
        ConfigError: ``random:`` (it has no folder), or a local folder that is missing or incomplete.
        HubError: a Hub model that is neither cached nor within reach.
    """
    if name.startswith(RANDOM):
        raise ConfigError(f"model.name={name} has no folder: it starts from scratch.", "Train a tokenizer for it.")
    if hub.is_local(name):
        return hub.local_model(name)
    converted = hub.cache_folder() / "models" / f"{name.replace('/', '--')}@{revision or 'main'}"
    if (converted / "model.safetensors").is_file():
        return converted
    snapshot = hub.fetch_model(name, revision)
    if (snapshot / "model.safetensors").is_file():
        return snapshot
    _convert(snapshot, converted)
    return converted


def _convert(snapshot: Path, target: Path) -> None:
    """Write a snapshot's pickled weights as fp32 safetensors, under a temporary name that is then renamed."""
    from safetensors.torch import save_file

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        source = snapshot / "pytorch_model.bin"
        # weights_only: a pickle from the network must not run code.
        try:
            state: dict[str, torch.Tensor] = torch.load(source, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise _unreadable(snapshot, error) from error
        # Cloned, because safetensors refuses tensors that share memory.
        single = {
            key: (value.float() if value.is_floating_point() else value).clone().contiguous()
            for key, value in state.items()
        }
        save_file(single, partial / "model.safetensors", metadata={"format": "pt"})
        for path in snapshot.iterdir():
            if path.is_file() and path.name not in hub.WEIGHTS:
                shutil.copyfile(path, partial / path.name)
        partial.chmod(0o755)  # mkdtemp's is private
        try:
            partial.rename(target)
        except OSError:
            if not (target / "model.safetensors").is_file():  # another process was not faster: a real failure
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _from_scratch(architecture: str, vocab_size: int | None) -> Encoder:
    from transformers import AutoConfig, AutoModel

    if architecture not in ARCHITECTURES:
        known = ", ".join(RANDOM + name for name in ARCHITECTURES)
        raise ConfigError(f"Unknown architecture {RANDOM}{architecture}.", f"There are: {known}.")
    values = dict(ARCHITECTURES[architecture])
    if values["vocab_size"] is None:
        if vocab_size is None:
            raise ValueError(f"{RANDOM}{architecture} needs the vocabulary size of its tokenizer")
        values["vocab_size"] = vocab_size
    elif vocab_size is not None and vocab_size > values["vocab_size"]:
        raise ValueError(f"{vocab_size} tokens do not fit {RANDOM}{architecture}'s {values['vocab_size']}")
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    module = AutoModel.from_config(config, **_without_pooler(type(config))).float()
    return _described(module, f"{RANDOM}{architecture}", pretrained=False)


def _from_folder(folder: Path, name: str) -> Encoder:
    from safetensors import SafetensorError
    from transformers import MODEL_MAPPING, AutoConfig, AutoModel

    try:
        with _quiet():
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
            if getattr(config, "is_encoder_decoder", False) or type(config) not in MODEL_MAPPING:
                raise ConfigError(f"model.name={name} is no encoder.", "Use one such as microsoft/deberta-v3-base.")
            # dtype: transformers 5 would keep a half-precision file half.
            module, report = AutoModel.from_pretrained(
                str(folder),
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                **_without_pooler(type(config)),
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
        raise _unreadable(folder, error) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ConfigError(
            f"The weights in {folder} lack {len(missing)} of the encoder's tensors, such as {missing[0]}.",
            "Fetch or save the model again.",
        )
    return _described(module, name, pretrained=True)


def _without_pooler(config: type) -> dict[str, bool]:
    """Return the argument that leaves the pooler out, where an encoder takes one: the head pools by itself, and an
    unused pooler would be weights that never learn."""
    from transformers import MODEL_MAPPING

    accepted = inspect.signature(MODEL_MAPPING[config].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}


def _unreadable(folder: Path, error: Exception) -> ConfigError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ConfigError(f"The model in {folder} cannot be loaded: {reason}", "Check its config.json and weights.")


def _described(module: nn.Module, name: str, pretrained: bool) -> Encoder:
    config: Any = module.config
    parameters = sum(p.numel() for p in module.parameters())
    size = f"{parameters / 1e6:.1f} M parameters"
    text = f"{name} ({config.model_type}, {config.num_hidden_layers} layers, hidden {config.hidden_size}, {size})"
    settings = {key: getattr(config, key) for key in sorted(_V3_BASE) if hasattr(config, key)}
    return Encoder(module, config.hidden_size, text, pretrained, _longest_input(module), settings)


def _longest_input(module: nn.Module) -> int | None:
    """Return the rows of the absolute position table from the first token on; None without such a table."""
    table = next((m for n, m in module.named_modules() if n.endswith("embeddings.position_embeddings")), None)
    if not isinstance(table, nn.Embedding):
        return None
    # RoBERTa's family counts positions from padding_idx + 1.
    offset = 0 if table.padding_idx is None else table.padding_idx + 1
    return table.num_embeddings - offset


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the reports and progress bars of loading, which would repeat what is checked here."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
