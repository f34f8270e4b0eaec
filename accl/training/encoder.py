"""Encoders with fp32 weights: from the Hub, from a local folder, or from scratch."""

from __future__ import annotations

import inspect
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accl.data import hub
from accl.data.architectures import ARCHITECTURES, RANDOM, architecture
from accl.errors import ConfigError, first_line
from accl.training.deberta_v1 import make_autocastable


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
        name: a Hub id, a local folder, or ``random:<architecture>`` as in `accl.data.architectures`.
        revision: commit of a Hub model.
        vocab_size: size of the embedding for an architecture without one of its own; not used by others.

    Raises:
        ConfigError: unknown architecture, no such folder, no encoder in it, or weights that do not fit it.
        HubError: a Hub model that is neither cached nor within reach.
    """
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # else transformers asks the Hub for a converted copy
    # Generation and losses of other models would import these two, which takes seconds.
    with _hidden("sklearn", "scipy"):
        if name.startswith(RANDOM):
            return _from_scratch(name, vocab_size)
        return _from_folder(resolve_model_folder(name, revision), name)


def resolve_model_folder(name: str, revision: str) -> Path:
    """Return the folder with config, tokenizer files and weights of a model.

    Raises:
        ConfigError: ``random:`` (it has no folder), or a local folder that is missing or incomplete.
        HubError: a Hub model that is neither cached nor within reach.
    """
    if name.startswith(RANDOM):
        raise ConfigError(f"model.name={name} has no folder: it starts from scratch.", "Train a tokenizer for it.")
    if hub.is_local(name):
        return hub.local_model(name)
    return hub.fetch_model(name, revision)


def _from_scratch(name: str, vocab_size: int | None) -> Encoder:
    from transformers import AutoConfig, AutoModel

    values = architecture(name)
    if values["vocab_size"] is None:
        if vocab_size is None:
            raise ValueError(f"{name} needs the vocabulary size of its tokenizer")
        values["vocab_size"] = vocab_size
    elif vocab_size is not None and vocab_size > values["vocab_size"]:
        raise ValueError(f"{vocab_size} tokens do not fit {name}'s {values['vocab_size']}")
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    module = AutoModel.from_config(config, **_without_pooler(type(config))).float()
    return _described(module, name, pretrained=False)


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
    what = f"The model in {folder} cannot be loaded: {first_line(error)}"
    return ConfigError(what, "Check its config.json and weights.")


def _described(module: nn.Module, name: str, pretrained: bool) -> Encoder:
    make_autocastable(module)
    config: Any = module.config
    parameters = sum(p.numel() for p in module.parameters())
    size = f"{parameters / 1e6:.1f} M parameters"
    text = f"{name} ({config.model_type}, {config.num_hidden_layers} layers, hidden {config.hidden_size}, {size})"
    settings = {key: getattr(config, key) for key in sorted(ARCHITECTURES["deberta-v3-base"]) if hasattr(config, key)}
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
def _hidden(*packages: str) -> Iterator[None]:
    """Let packages that are not imported yet look absent to transformers, which can do without them."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: as Python's import system has it
    try:
        from transformers.utils import import_utils

        for name in [*hidden]:
            if getattr(import_utils, f"is_{name}_available")():  # it has asked before, and keeps to the answer
                del sys.modules[name]
                hidden.remove(name)
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


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
