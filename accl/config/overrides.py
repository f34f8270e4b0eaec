"""Values from the command line: ``--set key=value``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from accl.errors import ConfigError


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` items, each value as YAML, so that 1e-3, true, null and text all work.

    A data.path without a data.source implies the source ``folder``.

    Raises:
        ConfigError: an item is not key=value.
    """
    values: dict[str, Any] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {item} is not key=value.", "For example: --set train.batch_size=32")
        values[key.strip()] = _scalar(text)
    if "data.path" in values and "data.source" not in values:
        values["data.source"] = "folder"
    return values


def _scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:  # YAML 1.1 reads 1e-3 as text
            return float(value)
        except ValueError:
            return value
    return value if not isinstance(value, (dict, list)) else text
