"""Single values of configurations, for queries over many runs.

They are read as they are written, without the schema: its import and a validated `accl.config.Config` would take a
thousand runs seconds.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path

from accl.choices import parse_number
from accl.errors import ConfigError
from accl.yamlfile import Written, parse_yaml, read_yaml

SECTION_LIMIT = 8192  # characters; accl writes a few hundred


@cache
def default_values() -> dict[str, str | float]:
    """Return the default of every key, by dotted key."""
    from accl.config.shipped import configs_folder  # here and below: most lists of runs never ask

    return layer_values(configs_folder() / "base.yaml")


@cache
def layer_values(path: Path) -> dict[str, str | float]:
    """Return the values that a file which comes with accl gives, by dotted key."""
    return {key: _value(written) for key, written in read_yaml(path).items()}


def config_values(config: str, path: Path) -> dict[str, str | float]:
    """Return all values in the text of a ``config.yaml`` by dotted key, in its order; ``path`` is for messages.

    Keys that were added since the file was written follow, with their defaults.

    Raises:
        ConfigError: it is no YAML, or too long.
    """
    from accl.config.renamed import translate

    written, _ = translate(parse_yaml(config, path))
    return {key: _value(value) for key, value in written.items()} | {
        key: value for key, value in default_values().items() if key not in written
    }


def config_value(config: str, key: str) -> str | float | None:
    """Return a value from the text of a ``config.yaml``, as a number or as text.

    A key that was added since the file was written has its default, as in `accl.config.load`.

    Returns:
        None where the section of the key is missing or cannot be read.
    """
    section = key.partition(".")[0]
    found = re.findall(rf"^{re.escape(section)}:.*(?:\n(?![^\s#]).*)*", config, re.MULTILINE)
    if len(found) != 1 or len(found[0]) > SECTION_LIMIT:
        return None
    values = _section(found[0])
    return values.get(key, default_values().get(key)) if values else None


@lru_cache(maxsize=256)
def all_values(config: str) -> dict[str, str | float]:
    """Return every value from the text of a ``config.yaml`` by dotted key, with the defaults of those it lacks."""
    found = re.findall(r"^\w+:.*(?:\n(?![^\s#]).*)*", config, re.MULTILINE)
    written = {key: value for text in found if len(text) <= SECTION_LIMIT for key, value in _section(text).items()}
    return default_values() | written if written else {}


def config_difference(config: str, other: str) -> dict[str, tuple[str | float, str | float]]:
    """Return by dotted key, in order, the values that differ in two texts of a ``config.yaml``, the other's first.

    Nothing differs from a text that cannot be read.
    """
    first, second = (_section(text) for text in (other, config))
    if not first or not second:
        return {}
    first, second = default_values() | first, default_values() | second
    return {key: (first[key], value) for key, value in second.items() if key in first and value != first[key]}


@lru_cache(maxsize=1024)
def _section(text: str) -> dict[str, str | float]:
    """Return the values of a section by dotted key, none if it cannot be read; most runs share most of theirs."""
    from accl.config.renamed import translate

    try:
        written, _ = translate(parse_yaml(text, Path("config.yaml")))
    except ConfigError:
        return {}
    return {key: _value(value) for key, value in written.items()}


def _value(written: Written) -> str | float:
    text = written.text.strip()
    if written.style == "quoted":
        return written.text
    try:
        return parse_number(text)
    except ValueError:
        return "null" if text in ("", "~") else text
