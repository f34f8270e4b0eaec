"""Loading an encoder's parameters without the code that computes it.

Importing transformers takes longer than everything else before the first step together, and a backend that computes an
encoder by kernels of its own reads the encoder's parameters and configuration only. So the first load of a model, by
transformers, is followed by a blueprint in the cache: names and kinds of its modules, and which tensor of its file each
parameter is. The next load makes the modules by the blueprint and reads the file. A blueprint is kept only where it
gives every parameter to the last bit as transformers did, and one for each version of transformers and set of tensors.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from accl.data.cache import Cache
from accl.data.hub import WEIGHTS
from accl.training.encoder import Encoder

# Version of the stored format; raising it makes old blueprints unused.
FORMAT = 1
# Modules that who computes an encoder by its parameters may look for; any other is made as a plain one.
_KINDS = (nn.Embedding, nn.Linear, nn.LayerNorm, nn.Dropout, nn.ModuleList, nn.Module)
# Names under which older files keep the parameters of a norm.
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


class SavedConfig:
    """Configuration of an encoder as plain values, under all names that transformers' own class answers to."""

    def __init__(self, values: Mapping[str, Any], other_names: Mapping[str, str]) -> None:
        self.__dict__.update(values)
        self._other_names = dict(other_names)

    def __getattr__(self, name: str) -> Any:
        other = self.__dict__.get("_other_names", {}).get(name)
        if other is None or other == name:
            raise AttributeError(name)
        return getattr(self, other)


class SavedEncoder(nn.Module):
    """The parameters of an encoder, under the names that they have in transformers' model; it cannot be called.

    Args:
        load: loads transformers' model of the same weights.

    Attributes:
        config: configuration of the encoder.
    """

    def __init__(self, config: SavedConfig, words: str, load: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.config, self._words, self._load = config, words, load

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the words, as transformers' models do."""
        return self.get_submodule(self._words)

    def with_layers(self) -> nn.Module:
        """Return transformers' model with these parameters' values, in the same mode and on the same device."""
        device = next(self.parameters()).device
        module = self._load().to(device).train(self.training)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                module.get_parameter(name).copy_(parameter)
        return module


def load_by_blueprint(folder: Path, name: str, cache: Cache, load: Callable[[], Encoder]) -> Encoder:
    """Load the encoder in a folder by its blueprint, or by transformers if there is none yet, and keep one then.

    Args:
        name: of the model, which its description contains.
        load: loads the encoder by transformers.

    Returns:
        an encoder whose module is a `SavedEncoder`, or what ``load`` returned.
    """
    if (contents := _contents(folder)) is None:
        return load()
    loaded: list[Encoder] = []

    def make() -> dict[str, Any]:
        state = torch.get_rng_state()
        loaded.append(load())
        # A load that draws random numbers cannot be left out: the heads' initial weights are drawn after it.
        return _blueprint(loaded[0], folder) if torch.equal(state, torch.get_rng_state()) else {}

    digest = hashlib.blake2b(f"{FORMAT}\x1f{name}\x1f{_transformers()}\x1f".encode() + contents, digest_size=12)
    kept = f"encoder-{digest.hexdigest()}"
    blueprint = cache.load_or_make(kept, make, lambda value: json.dumps(value).encode(), _decode)
    if loaded:
        return loaded[0]
    if blueprint:
        # What is wrong with a file is said where transformers reads it.
        with suppress(OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, pickle.UnpicklingError):
            return _encoder(blueprint, _tensors(folder), lambda: load().module)
    return load()


def _decode(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("is no blueprint")
    return value


def _transformers() -> str:
    try:
        return version("transformers")
    except PackageNotFoundError:
        return ""


# Files ----------------------------------------------------------------------------------------------


def _contents(folder: Path) -> bytes | None:
    """Return what a blueprint depends on: the configuration, and the names, types and shapes of the tensors; None where
    the weights are in several files, or in none that can be read."""
    safe, pickled = (folder / name for name in WEIGHTS)
    try:
        config = (folder / "config.json").read_bytes()
        if safe.is_file():
            with open(safe, "rb") as file:
                header = file.read(int.from_bytes(file.read(8), "little"))
        else:  # torch's format is a zip file with the checksum of each of its members
            with zipfile.ZipFile(pickled) as archive:
                header = json.dumps([(item.filename, item.file_size, item.CRC) for item in archive.infolist()]).encode()
    except (OSError, ValueError, OverflowError, MemoryError, zipfile.BadZipFile):
        return None
    return len(config).to_bytes(8, "little") + config + header


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a model by their names in its file."""
    safe, pickled = (folder / name for name in WEIGHTS)
    if safe.is_file():
        tensors: dict[str, Tensor] = load_file(safe)
    else:
        tensors = torch.load(pickled, map_location="cpu", weights_only=True)
    return tensors


# Blueprints -----------------------------------------------------------------------------------------


def _blueprint(encoder: Encoder, folder: Path) -> dict[str, Any]:
    """Return the blueprint of an encoder that transformers loaded from a folder; empty where there can be none."""
    module: Any = encoder.module
    tensors = _tensors(folder)
    keys = _keys(dict(module.named_parameters()), tensors)
    words = next((name for name, each in module.named_modules() if each is module.get_input_embeddings()), "")
    # What else a state has are buffers, which belong to the code.
    if not words or set(keys) != set(module.state_dict()):
        return {}
    return {
        "encoder": {field.name: getattr(encoder, field.name) for field in fields(encoder) if field.name != "module"},
        "config": json.loads(module.config.to_json_string(use_diff=False)),
        "other_names": dict(module.config.attribute_map),
        "words": words,
        "modules": [(name, _described(each)) for name, each in module.named_modules() if name],
        "parameters": keys,
    }


def _keys(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return, by parameter, the name in the file of the tensor that it was made from; nothing where that is unclear."""
    first = next(iter(parameters))
    for prefix in {key.removesuffix(first) for key in tensors if key.endswith(first)}:
        keys = {name: _present(f"{prefix}{name}", tensors) for name in parameters}
        if all(key in tensors and torch.equal(tensors[key].float(), parameters[name]) for name, key in keys.items()):
            return keys
    return {}


def _present(key: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the name of a tensor as a file has it, which may be an old one."""
    if key not in tensors:
        for end, old in _OLD_NAMES.items():
            if key.endswith(end):
                return f"{key.removesuffix(end)}{old}"
    return key


def _described(module: nn.Module) -> dict[str, Any]:
    """Describe a module as the one of torch's that holds the same parameters: its class, what this was made with, and
    the parameters that it could have and lacks."""
    kind = next(kind for kind in _KINDS if isinstance(module, kind))
    made_with = {name: getattr(module, name) for name in getattr(kind, "__constants__", ())}
    lacks = [name for name, parameter in module._parameters.items() if parameter is None]
    return {"kind": kind.__name__, "made_with": made_with, "lacks": lacks}


def _module(description: Mapping[str, Any]) -> nn.Module:
    """Make a module by its description, without parameters.

    Its own constructor would draw initial weights, and with them other random numbers for what is made after it.
    """
    kind = next(kind for kind in _KINDS if kind.__name__ == description["kind"])
    module: nn.Module = kind.__new__(kind)
    nn.Module.__init__(module)
    module.__dict__.update(description["made_with"])
    for name in description["lacks"]:
        module.register_parameter(name, None)
    return module


def _encoder(blueprint: Mapping[str, Any], tensors: Mapping[str, Tensor], load: Callable[[], nn.Module]) -> Encoder:
    """Make an encoder by its blueprint, with the tensors of its file as fp32 parameters."""
    config = SavedConfig(blueprint["config"], blueprint["other_names"])
    module = SavedEncoder(config, blueprint["words"], load)
    for name, description in blueprint["modules"]:
        parent, _, own = name.rpartition(".")
        module.get_submodule(parent).add_module(own, _module(description))
    for name, key in blueprint["parameters"].items():
        parent, _, own = name.rpartition(".")
        module.get_submodule(parent).register_parameter(own, nn.Parameter(tensors[key].float()))
    return Encoder(module, **blueprint["encoder"])
