"""Recipe and profile files: where they lie, and how they are read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from accl.errors import ConfigError

DEFAULT_PROFILE = "paper"
Kind = Literal["recipes", "profiles"]

# libyaml's loader, where PyYAML was built with it, is seven times as fast, which a folder of many runs feels.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def configs_folder() -> Path:
    """Return the folder of recipes and profiles: inside the installed package, or beside it in a checkout.

    Raises:
        ConfigError: it is not there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "base.yaml").is_file():
            return folder
    raise ConfigError("accl's own configs/ folder is missing.", "Reinstall accl.")


def available(kind: Kind) -> list[str]:
    """List the names of the recipes or profiles that come with accl."""
    return sorted(path.stem for path in (configs_folder() / kind).glob("*.yaml"))


def find_file(kind: Kind, name: str) -> Path:
    """Find the file of a recipe or profile by its shipped name, or by its path.

    Raises:
        ConfigError: there is no such file; the nearest name is suggested.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"There is no file {name}.", f"Shipped {kind}: {', '.join(available(kind))}.")
        return path
    path = configs_folder() / kind / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        known = available(kind)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        there = f"There are: {', '.join(known)}; or give the path of a YAML file."
        raise ConfigError(f"Unknown {kind[:-1]} {name!r}.", hint + there)
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of ``section:`` entries; an empty file has none.

    Raises:
        ConfigError: the file cannot be read, is not valid YAML, or is no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `section:` entries, not a {type(content).__name__}.")
    return content or {}


@cache
def base_values() -> dict[str, Any]:
    """Return the default of every key, by dotted key, from ``configs/base.yaml``."""
    return flatten(read_yaml(configs_folder() / "base.yaml"))


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
