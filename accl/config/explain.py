"""Keys in words: type and range, meaning, default, values of the profiles, and the choices of a registry."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Any

from pydantic.fields import FieldInfo

from accl.choices import METRICS, Choice
from accl.config.recipes import base_values, find_file, read_values
from accl.config.shipped import available
from accl.config.values import FIELDS, choices_of, registry_of, type_in_words, unknown_key

# Registries without a key: what is computed from all of their files, not from one of them.
TOPICS = {"metrics": (METRICS, "Metrics that are computed and recorded at every evaluation, all of them.")}


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
    return [_explained(key, field) for key, field in FIELDS.items()]


def explain(topic: str) -> list[Explained]:
    """Explain a key, all keys of a section, or the topic ``metrics``.

    Raises:
        ConfigError: there is no such key; the nearest one is named.
    """
    if topic in TOPICS:
        registry, description = TOPICS[topic]
        return [Explained(topic, description, choices=choices_of(registry))]
    if topic in FIELDS:
        return [_explained(topic, FIELDS[topic], everything=True)]
    if section := [_explained(key, field) for key, field in FIELDS.items() if key.startswith(f"{topic}.")]:
        return section
    names = [*FIELDS, *TOPICS, *dict.fromkeys(key.partition(".")[0] for key in FIELDS)]
    near = difflib.get_close_matches(topic, names, n=1, cutoff=0.7)
    raise unknown_key(topic, "accl config explain", near)


def _explained(key: str, field: FieldInfo, everything: bool = False) -> Explained:
    default, registry = base_values()[key], registry_of(field)
    found = Explained(key, field.description or "", type_in_words(field), default)
    if not everything:
        return found
    profiles = {name: read_values(find_file("profiles", name)) for name in available("profiles")}
    differing = tuple((name, values[key]) for name, values in profiles.items() if values.get(key, default) != default)
    return replace(found, profiles=differing, choices=choices_of(registry) if registry else ())
