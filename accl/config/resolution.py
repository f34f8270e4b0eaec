"""Layers of values, resolved into one validated `Config` that knows where each value came from.

Layers, later over earlier: ``configs/base.yaml``, the profile (scale and data), the recipe (what makes the arm), and
``--set key=value``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from accl.config.recipes import DEFAULT_PROFILE, base_values, find_file, flatten, nest, read_yaml
from accl.config.renamed import translate, translate_recipe
from accl.config.schema import Config
from accl.errors import ConfigError


@dataclass(frozen=True)
class Resolved:
    """A configuration.

    Attributes:
        origin: the layer that every value came from, by dotted key.
        notes: sentences on old names that were translated, to be shown to whoever wrote them.
    """

    config: Config
    origin: dict[str, str]
    notes: tuple[str, ...] = ()


def resolve(recipe: str, profile: str = DEFAULT_PROFILE, overrides: Sequence[str] = ()) -> Resolved:
    """Layer base, profile, recipe and ``key=value`` overrides, and validate the result.

    Args:
        recipe, profile: a shipped name, or the path of a YAML file, whose stem becomes the name.

    Raises:
        ConfigError: unknown name or key (the nearest one is named), wrong type, values that do not fit.
    """
    recipe, notes = translate_recipe(recipe)
    profile_path, recipe_path = find_file("profiles", profile), find_file("recipes", recipe)
    layers: list[tuple[str, Mapping[str, Any]]] = [
        ("base", base_values()),
        (f"profile {profile_path.stem}", flatten(read_yaml(profile_path))),
        (f"recipe {recipe_path.stem}", flatten(read_yaml(recipe_path))),
        ("--set", _parse_overrides(overrides)),
    ]
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, layer in layers:
        translated, renamed = translate(layer)
        notes += [f"{note[:-1]} ({name})." for note in renamed]
        for key, value in translated.items():
            if key not in base_values():
                raise unknown_key(key, name)
            values[key], origin[key] = value, name
    tree = {"recipe": recipe_path.stem, "profile": profile_path.stem, **nest(values)}
    return Resolved(_validate(tree, origin), origin, tuple(notes))


def load(path: Path) -> Config:
    """Read the configuration of a run from its ``config.yaml``.

    Old names are translated. A key that accl has learnt since the run was made gets its value of
    ``configs/base.yaml``: new keys are added so that their default changes nothing.

    Raises:
        ConfigError: the file is missing, is no YAML, or does not validate.
    """
    return parse(read_yaml(path))


def parse(tree: Mapping[str, Any]) -> Config:
    """Validate the nested values of a run's configuration, as `load` does.

    Raises:
        ConfigError: they do not validate.
    """
    values, _ = translate(flatten(tree))
    sections = {key for key, value in tree.items() if isinstance(value, dict)}
    defaults = {key: value for key, value in base_values().items() if key.partition(".")[0] in sections}
    return _validate(nest(defaults | values), {})


def dump(config: Config) -> str:
    """Write the configuration as YAML, to be read back by `load`."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def flat(config: Config) -> dict[str, Any]:
    """Return every value by dotted key, in the order of the schema."""
    return flatten(config.model_dump())


def difference(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose values differ, with both values."""
    left, right = flat(a), flat(b)
    return {key: (left.get(key), right.get(key)) for key in left | right if left.get(key) != right.get(key)}


def unknown_key(key: str, where: str, near: Sequence[str] = ()) -> ConfigError:
    """Make the error for a key that there is not, which suggests ``near`` or the nearest key that there is."""
    known = list(base_values())
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if not near:  # perhaps only the section is missing: batch_size for train.batch_size
        leaves = {k.split(".", 1)[1]: k for k in known}
        near = [leaves[leaf] for leaf in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(leaves), n=1)]
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return ConfigError(f"Unknown key {key!r} ({where}).", f"{hint}All keys: accl config explain")


def _parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` items; a data.path without a data.source implies the source ``folder``."""
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
    """Read a value as YAML, so that 1e-3, true, null and text all work."""
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


def _validate(tree: Mapping[str, Any], origin: Mapping[str, str]) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if not key:
            raise ConfigError(f"{message}.", "Change one of them with --set key=value.") from error
        if first["type"] == "missing":
            raise ConfigError(f"{key} is missing from the configuration.") from error
        if first["type"] == "extra_forbidden":
            raise unknown_key(key, "configuration") from error
        where = f" ({origin[key]})" if key in origin else ""
        what = f"{key}={first['input']!r}{where}: {message[0].lower()}{message[1:]}."
        raise ConfigError(what, f"See: accl config explain {key}") from error
