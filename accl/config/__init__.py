"""Recipes, profiles and overrides, resolved into one validated `Config`.

What is exported is imported when it is first used: the schema takes longer to import than a list of runs takes, and a
list needs but the names of keys.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accl.config.resolution import Resolved, difference, dump, flat, load, parse, resolve, resolve_like
    from accl.config.schema import Config, Curriculum, Loss, Optim
    from accl.config.shipped import DEFAULT_PROFILE, available, configs_folder

_HOMES = {
    "resolution": ("Resolved", "difference", "dump", "flat", "load", "parse", "resolve", "resolve_like"),
    "schema": ("Config", "Curriculum", "Loss", "Optim"),
    "shipped": ("DEFAULT_PROFILE", "available", "configs_folder"),
}

__all__ = [
    "DEFAULT_PROFILE",
    "Config",
    "Curriculum",
    "Loss",
    "Optim",
    "Resolved",
    "available",
    "configs_folder",
    "difference",
    "dump",
    "flat",
    "load",
    "parse",
    "resolve",
    "resolve_like",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
