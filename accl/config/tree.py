"""Values by section, and the same values by dotted key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a nested mapping by dotted key, in order."""

    values: dict[str, Any] = {}
    for key, value in tree.items():
        inner = flatten(value) if isinstance(value, Mapping) else None
        values |= {key: value} if inner is None else {f"{key}.{leaf}": inner[leaf] for leaf in inner}
    return values


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping that `flatten` takes apart."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, leaf = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    return tree
