"""Keys in words: type and range, meaning, default, values of the profiles, and the choices of a registry."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from accl.choices import METRICS, Choice, Registry
from accl.config.recipes import available, base_values, find_file, flatten, read_yaml
from accl.config.resolution import unknown_key
from accl.config.schema import Config
from accl.errors import ConfigError

# Registries without a key: what is computed from all of their files, not from one of them.
TOPICS = {"metrics": (METRICS, "Metrics that are computed and recorded at every evaluation, all of them.")}

_TYPES: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_BOUNDS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}


@dataclass(frozen=True)
class Explained:
    """A key, or a topic without a key.

    Attributes:
        type: type and range in words; empty for a topic. default: value of ``configs/base.yaml``.
        profiles: the values of the profiles that differ from it.
        choices: files of the registry that the value is taken from; none for other keys.
    """

    key: str
    description: str
    type: str = ""
    default: Any = None
    profiles: tuple[tuple[str, Any], ...] = ()
    choices: tuple[Choice, ...] = ()

    @property
    def summary(self) -> str:
        """First sentence of the description."""
        return self.description.partition(". ")[0].rstrip(".") + "."


def explain_all() -> list[Explained]:
    """Explain every key, in the order of the schema."""
    return [_explained(key, field) for key, field in _fields().items()]


def explain(topic: str) -> list[Explained]:
    """Explain a key, all keys of a section, or the topic ``metrics``.

    Raises:
        ConfigError: there is no such key; the nearest one is named.
    """
    if topic in TOPICS:
        registry, description = TOPICS[topic]
        return [Explained(topic, description, choices=_choices(registry))]
    fields = _fields()
    if topic in fields:
        return [_explained(topic, fields[topic], everything=True)]
    if section := [_explained(key, field) for key, field in fields.items() if key.startswith(f"{topic}.")]:
        return section
    names = [*fields, *TOPICS, *dict.fromkeys(key.partition(".")[0] for key in fields)]
    near = difflib.get_close_matches(topic, names, n=1, cutoff=0.7)
    raise unknown_key(topic, "accl config explain", near)


def _fields() -> dict[str, FieldInfo]:
    return {
        f"{name}.{leaf}": field
        for name, section in Config.model_fields.items()
        if isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel)
        for leaf, field in section.annotation.model_fields.items()
    }


def _explained(key: str, field: FieldInfo, everything: bool = False) -> Explained:
    default, registry = base_values()[key], _registry(field)
    found = Explained(key, field.description or "", _type(field), default)
    if not everything:
        return found
    profiles = {name: flatten(read_yaml(find_file("profiles", name))) for name in available("profiles")}
    differing = tuple((name, values[key]) for name, values in profiles.items() if values.get(key, default) != default)
    return replace(found, profiles=differing, choices=_choices(registry) if registry else ())


def _registry(field: FieldInfo) -> Registry | None:
    return next((entry for entry in field.metadata if isinstance(entry, Registry)), None)


def _choices(registry: Registry) -> tuple[Choice, ...]:
    try:
        return tuple(registry.choice(name) for name in registry.names())
    except ValueError as error:  # a file that somebody is still writing
        raise ConfigError(f"A choice of {registry.package} {error}.", "Correct the file or remove it.") from error


def _type(field: FieldInfo) -> str:
    if (registry := _registry(field)) is not None:
        return _either([choice.form for choice in _choices(registry)])
    kinds = get_args(field.annotation) if get_origin(field.annotation) is not Literal else ()
    (kind,) = [kind for kind in kinds if kind is not NoneType] or [field.annotation]
    if get_origin(kind) is Literal:
        return _either(get_args(kind))
    bounds = [
        f"{words} {getattr(entry, bound):g}"
        for bound, words in _BOUNDS.items()
        for entry in field.metadata
        if hasattr(entry, bound)
    ]
    limited = f"{_TYPES[kind]} {' and '.join(bounds)}".rstrip()
    return f"{limited}, or null" if NoneType in kinds else limited


def _either(values: Sequence[str]) -> str:
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else last
