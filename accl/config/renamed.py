"""Old names of keys, values and recipes, which stay readable: in old runs, in a user's files and after ``--set``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from accl.errors import ConfigError
from accl.yamlfile import Written

KEYS = {"train.path": "train.backend", "curriculum.floor": "curriculum.epsilon"}
# By the new key.
VALUES = {
    "train.backend": {"fast": "packed", "graphed": "cudagraph", "rows": "cpu", "eager": "reference"},
    "curriculum.policy": {"seed_literal": "as_published"},
}
RECIPES = {"seed_literal": "as_published"}
REMOVED = {"sampler.tasks_per_batch": "it is train.batch_size / sampler.questions_per_task"}


def translate(values: Mapping[str, Written]) -> tuple[dict[str, Written], list[str]]:
    """Bring values by dotted key to today's names.

    Returns:
        the values by their new names, and a sentence on each that was renamed or is ignored.

    Raises:
        ConfigError: a key is there by its old and by its new name.
    """
    translated: dict[str, Written] = {}
    notes = []
    for key, written in values.items():
        if key in REMOVED:
            if written.text not in ("null", "~", ""):
                notes.append(f"{key} is no longer a key and is ignored: {REMOVED[key]}.")
            continue
        new_key = KEYS.get(key, key)
        if new_key in translated:
            both = f"{translated[new_key].where} and {written.where}"
            raise ConfigError(f"{new_key} is there by its old and by its new name ({both}).", "Remove one of the two.")
        text = VALUES.get(new_key, {}).get(written.text, written.text)
        if (new_key, text) != (key, written.text):
            notes.append(f"{key}={written.text} is now written {new_key}={text}.")
        translated[new_key] = replace(written, text=text)
    return translated, notes


def translate_key(key: str) -> tuple[str, list[str]]:
    """Bring a key to today's name, with a sentence if it was renamed.

    Raises:
        ConfigError: the key was removed.
    """
    if key in REMOVED:
        raise ConfigError(f"{key} is no longer a key: {REMOVED[key]}.", "All keys: accl config explain")
    new = KEYS.get(key, key)
    return new, [] if new == key else [f"{key} is now called {new}."]


def translate_recipe(name: str) -> tuple[str, list[str]]:
    """Bring the name of a recipe to today's, with a sentence if it was renamed."""
    new = RECIPES.get(name, name)
    return new, [] if new == name else [f"The recipe {name} is now called {new}."]
