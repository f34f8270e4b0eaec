"""Values as they are written, read by the declared type of their key.

The same rules hold in files and after ``--set``, so that a value means what was typed: text is taken verbatim, whole
numbers are digits, numbers are finite and decimal, true and false may be written as YAML knows them, and ``null``,
``none``, ``~`` or nothing is null for a key that may be. In a file, quotes make text, and text that YAML takes for null
needs them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from accl.choices import Choice, Registry, parse_number, parse_whole_number
from accl.config.schema import Config
from accl.config.synonyms import known_as
from accl.errors import ConfigError
from accl.text import listed
from accl.yamlfile import CONTROL, Written, shown

TEXT_LIMIT = 4096  # characters; as long as a path may be

FIELDS: dict[str, FieldInfo] = {
    f"{name}.{leaf}": field
    for name, section in Config.model_fields.items()
    if isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel)
    for leaf, field in section.annotation.model_fields.items()
}
"""Every key of a section, by its dotted name, in the order of the schema."""

_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS = ("", "~", "null")  # those of YAML

_TYPES: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_BOUNDS = {
    "ge": "of at least",
    "gt": "above",
    "le": "of at most",
    "lt": "below",
    "min_length": "with a length of at least",
}


def read_value(key: str, written: Written) -> Any:
    """Read a value by the declared type of its key; its range is left to the schema.

    Raises:
        ConfigError: there is no such key, or what is written is not of its type.
    """
    if key not in FIELDS:
        raise unknown_key(key, written.where)
    kind, optional = _kind(FIELDS[key])
    word = written.text.lower() if written.style != "quoted" else None
    if optional and word in (*_NULLS, "none"):
        return None
    if kind is str:
        return read_text(key, written)
    if written.style == "quoted":
        raise refusal(key, written, "in quotes it is text")
    try:
        return _READERS[kind](written.text.strip(" \t"))
    except ValueError as error:
        raise refusal(key, written, str(error)) from error


def read_text(key: str, written: Written) -> str:
    """Return text as it is written.

    Raises:
        ConfigError: it has control characters or line breaks, is too long, or is null to YAML.
    """
    text = written.text
    why = ""
    if found := CONTROL.search(text) or re.search(r"[\t\n\r]", text):
        why = f"the character U+{ord(found[0]):04X} is not accepted"
    elif len(text) > TEXT_LIMIT:
        why = f"more than {TEXT_LIMIT:,} characters are not accepted"
    elif written.style == "plain" and text.lower() in _NULLS:
        why = "without quotes it is null"
    if why:
        raise ConfigError(
            f"{key}={shown(text)} ({written.where}): expected text; {why}.", f"See: accl config explain {key}"
        )
    return text


def refusal(key: str, written: Written, why: str = "") -> ConfigError:
    """Make the error for a value that its key does not take."""
    what = f"{key}={shown(written.text)} ({written.where}): expected {type_in_words(FIELDS[key])}"
    return ConfigError(f"{what}; {why}." if why else f"{what}.", f"See: accl config explain {key}")


def unknown_key(key: str, where: str, near: Sequence[str] = ()) -> ConfigError:
    """Make the error for a key that there is not, which suggests ``near`` or the nearest key that there is."""
    if section := [known for known in FIELDS if known.startswith(f"{key}.")]:
        return ConfigError(f"{key} ({where}) is a section, not a key.", f"For example: {section[0]}")
    synonym = known_as(key)
    near = [synonym] if synonym else near or difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.5)
    if not near:  # perhaps only the section is missing: batch_size for train.batch_size
        leaves = {known.split(".", 1)[1]: known for known in FIELDS}
        near = [leaves[leaf] for leaf in difflib.get_close_matches(key.rsplit(".", 1)[-1], leaves, n=1)]
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return ConfigError(f"Unknown key {shown(key)} ({where}).", f"{hint}All keys: accl config explain")


def type_in_words(field: FieldInfo) -> str:
    """Say which values a key takes: ``whole number of at least 1, or null``."""
    if (registry := registry_of(field)) is not None:
        return listed([choice.form for choice in choices_of(registry)], "or")
    if get_origin(field.annotation) is Literal:
        return listed(get_args(field.annotation), "or")
    kind, optional = _kind(field)
    bounds = [
        f"{words} {limit:,}" if isinstance(limit := getattr(entry, bound), int) else f"{words} {limit:,.15g}"
        for bound, words in _BOUNDS.items()
        for entry in field.metadata
        if hasattr(entry, bound)
    ]
    limited = f"{_TYPES[kind]} {' and '.join(bounds)}".rstrip()
    return f"{limited}, or null" if optional else limited


def registry_of(field: FieldInfo) -> Registry | None:
    """Return the registry that the values of a key come from, if they do."""
    return next((entry for entry in field.metadata if isinstance(entry, Registry)), None)


def choices_of(registry: Registry) -> tuple[Choice, ...]:
    """Describe all choices of a registry.

    Raises:
        ConfigError: a file of it cannot be used.
    """
    try:
        return tuple(registry.choice(name) for name in registry.names())
    except ValueError as error:  # a file that somebody is still writing
        raise ConfigError(f"A choice of {registry.package} {error}.", "Correct the file or remove it.") from error


def _kind(field: FieldInfo) -> tuple[type, bool]:
    """Return the type of a key's values, and whether null is one of them."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) is not Literal else ()
    (kind,) = [kind for kind in kinds if kind is not NoneType] or [field.annotation]
    return (str if get_origin(kind) is Literal else kind), NoneType in kinds


def _read_bool(text: str) -> bool:
    if text.lower() not in _BOOLS:
        raise ValueError(f"accepted are {', '.join(_BOOLS)}")
    return _BOOLS[text.lower()]


_READERS: dict[type, Callable[[str], Any]] = {bool: _read_bool, int: parse_whole_number, float: parse_number}
