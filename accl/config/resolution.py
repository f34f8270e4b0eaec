"""Layers of values, resolved into one validated `Config` that knows where each value came from.

Layers, later over earlier: ``configs/base.yaml``, the profile (scale and data), the recipe (what makes the arm), and
``--set key=value``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from accl.config.feasible import check_feasible
from accl.config.idle import idle_notes
from accl.config.recipes import base_values, find_file, is_name
from accl.config.renamed import translate, translate_recipe
from accl.config.schema import Config
from accl.config.shipped import DEFAULT_PROFILE
from accl.config.tree import flatten, nest
from accl.config.values import read_text, read_value, refusal
from accl.errors import ConfigError
from accl.text import without_credentials
from accl.yamlfile import Written, parse_yaml, read_yaml, shown

# Sections that the first runs did not have: of any other, a file that lacks it has lost a part.
LATER_SECTIONS = {"alerts"}


@dataclass(frozen=True)
class Resolved:
    """A configuration.

    Attributes:
        origin: the layer that every value came from, by dotted key.
        notes: sentences on old names and on keys that are set twice, to be shown to whoever wrote them.
    """

    config: Config
    origin: dict[str, str]
    notes: tuple[str, ...] = ()


def resolve(recipe: str, profile: str | None = None, overrides: Sequence[str] = ()) -> Resolved:
    """Layer base, profile, recipe and ``key=value`` overrides, and validate the result.

    Args:
        recipe: a shipped name, or the path of a YAML file, whose stem becomes the name; the ``config.yaml`` of a run is
            taken as `resolve_like` does.
        profile: a shipped name or a path likewise; `DEFAULT_PROFILE`, or that of the run, when None.

    Raises:
        ConfigError: unknown name or key (the nearest one is named), wrong type, values that do not fit, or with which a
            run could only fail; or a profile beside a configuration that has one.
    """
    recipe, notes = translate_recipe(recipe)
    recipe_path = find_file("recipes", recipe)
    of_recipe = read_yaml(recipe_path)
    if "recipe" in of_recipe or "profile" in of_recipe:
        if profile is not None:
            what = f"{recipe_path} is the whole configuration of a run, its profile included."
            raise ConfigError(what, "Leave --profile out; --set KEY=VALUE changes single values.")
        return _resolve_like(of_recipe, str(recipe_path), overrides)
    profile_path = find_file("profiles", profile or DEFAULT_PROFILE)
    layers = [
        (f"profile {profile_path.stem}", read_yaml(profile_path)),
        (f"recipe {recipe_path.stem}", of_recipe),
    ]
    names = {"recipe": recipe_path.stem, "profile": profile_path.stem}
    return _resolve(names, base_values(), layers, overrides, notes)


def resolve_like(text: str, path: Path, overrides: Sequence[str] = ()) -> Resolved:
    """Change single values of the whole configuration of a run, for a new run.

    Old names are translated, and keys that accl has learnt since get their defaults, as in `load`.

    Args:
        text: the ``config.yaml``. path: where it is from, for messages and as the origin of its values.

    Raises:
        ConfigError: as `load` and `resolve`; or the name of its recipe or profile cannot be part of an id.
    """
    return _resolve_like(parse_yaml(text, path), str(path), overrides)


def _resolve_like(written: Mapping[str, Written], where: str, overrides: Sequence[str]) -> Resolved:
    names: dict[str, str] = {}
    notes: list[str] = []
    for kind in ("recipe", "profile"):
        name = written[kind].text if kind in written else ""
        if kind == "recipe":
            name, notes = translate_recipe(name)
        if not is_name(name):  # the folder may be from anywhere
            what = f"{where} names no {kind} that can be part of a run's id: {shown(name)}."
            raise ConfigError(what, "Is it the config.yaml of a run, and whole?")
        names[kind] = name
    values = {key: value for key, value in written.items() if key not in names}
    sections = {key.partition(".")[0] for key in values} | LATER_SECTIONS
    base = {key: value for key, value in base_values().items() if key.partition(".")[0] in sections}
    return _resolve(names, base, [(where, values)], overrides, notes)


def _resolve(
    names: Mapping[str, str],
    base: Mapping[str, Any],
    files: Sequence[tuple[str, Mapping[str, Written]]],
    overrides: Sequence[str],
    notes: Sequence[str],
) -> Resolved:
    """Lay files, each with its name, and overrides over base values."""
    typed, repeated = _read_overrides(overrides)
    notes = [*notes, *repeated]
    values = dict(base)
    origin = dict.fromkeys(values, "base")
    written: dict[str, Written] = {}
    for name, layer in (*files, ("--set", typed)):
        translated, renamed = translate(layer)
        notes += [f"{note[:-1]} ({name})." for note in renamed]
        written |= translated
        for key, value in translated.items():
            if without_credentials(value.text) != value.text:
                what = f"{key} ({name}) holds a password or token, which everyone who reads the run would see."
                raise ConfigError(what, "Leave it out: HF_TOKEN holds a token for the Hub, ~/.netrc a password.")
            values[key], origin[key] = read_value(key, value), name
    config = _validate({**names, **nest(values)}, written, "the configuration")
    check_feasible(config)
    return Resolved(config, origin, (*notes, *idle_notes(config, typed)))


def load(path: Path) -> Config:
    """Read the configuration of a run from its ``config.yaml``.

    Old names are translated. A key that accl has learnt since the run was made gets its value of
    ``configs/base.yaml``: new keys are added so that their default changes nothing.

    Raises:
        ConfigError: the file is missing, is no YAML, or does not validate.
    """
    return _read_config(read_yaml(path), str(path))


def parse(text: str, path: Path) -> Config:
    """Read the configuration of a run from YAML text, as `load` does; ``path`` is where it is from, for messages."""
    return _read_config(parse_yaml(text, path), str(path))


def _read_config(values_written: Mapping[str, Written], where: str) -> Config:
    written, _ = translate(values_written)
    names = {key: read_text(key, written.pop(key)) for key in ("recipe", "profile") if key in written}
    sections = {key.partition(".")[0] for key in written} | LATER_SECTIONS
    values = {key: value for key, value in base_values().items() if key.partition(".")[0] in sections}
    values |= {key: read_value(key, value) for key, value in written.items()}
    return _validate(names | nest(values), written, where)


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


def _read_overrides(items: Iterable[str]) -> tuple[dict[str, Written], list[str]]:
    """Take ``key=value`` items apart; a data.path without a data.source implies the source ``folder``.

    Returns:
        the values by key, and a sentence on each key that is set more than once: the last one counts.
    """
    values: dict[str, Written] = {}
    repeated = []
    for item in items:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {shown(item)} is not key=value.", "For example: --set train.batch_size=32")
        if key in values:
            repeated.append(key)
        values[key] = Written(text, "typed", "--set")
    if "data.path" in values and "data.source" not in values:
        values["data.source"] = Written("folder", "typed", "--set data.path")
    return values, [
        f"{key} is set more than once: {shown(values[key].text)} counts." for key in dict.fromkeys(repeated)
    ]


def _validate(tree: Mapping[str, Any], written: Mapping[str, Written], where: str) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if not key:
            raise ConfigError(f"{message}.", "Change one of them with --set key=value.") from error
        if first["type"] == "missing":
            raise ConfigError(f"{key} is missing from {where}.") from error
        if first["type"] == "value_error":  # of a registry, which says what it takes
            raise ConfigError(
                f"{key}={shown(written[key].text)} ({written[key].where}): {message}.",
                f"See: accl config explain {key}",
            ) from error
        raise refusal(key, written[key]) from error
