"""Recipe and profile files: where they lie, and how they are read."""

from __future__ import annotations

import difflib
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from accl.config.shipped import Kind, available, configs_folder
from accl.config.values import read_value
from accl.errors import ConfigError
from accl.yamlfile import read_yaml, shown

NAME_LIMIT = 64

# Names become parts of ids, which are folders, arguments of commands and cells of tables.
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{NAME_LIMIT - 1}}}")


def is_name(text: str) -> bool:
    """Return whether a text can name a recipe or profile."""
    return _NAME.fullmatch(text) is not None


def find_file(kind: Kind, name: str) -> Path:
    """Find the file of a recipe or profile by its shipped name, or by its path.

    Raises:
        ConfigError: there is no such file, for which the nearest name is suggested, or it cannot name a run.
    """
    known = available(kind)
    if name in known:
        return configs_folder() / kind / f"{name}.yaml"
    if not name.endswith((".yaml", ".yml")):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        there = f"There are: {', '.join(known)}; or give the path of a YAML file."
        raise ConfigError(f"Unknown {kind[:-1]} {shown(name)}.", hint + there)
    if not os.path.lexists(name):
        raise ConfigError(f"There is no file {shown(name)}.", f"Shipped {kind}: {', '.join(known)}.")
    path = Path(name)
    if not is_name(path.stem):
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-._")[:NAME_LIMIT] or kind[:-1]
        raise ConfigError(
            f"The name of {shown(name)} cannot be part of a run's id.",
            f"It has at most {NAME_LIMIT} letters, digits, `_`, `.` and `-`, and begins with a letter or digit. "
            f"Rename the file, for example to {plain}{path.suffix}",
        )
    return path


def read_values(path: Path) -> dict[str, Any]:
    """Read the values of a recipe or profile that is written in today's names, by dotted key.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, or a value not of its type.
    """
    return {key: read_value(key, written) for key, written in read_yaml(path).items()}


@cache
def base_values() -> dict[str, Any]:
    """Return the default of every key, by dotted key, from ``configs/base.yaml``."""
    return read_values(configs_folder() / "base.yaml")
