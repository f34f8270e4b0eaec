"""Recipes, profiles and overrides, resolved into one validated `Config`."""

from accl.config.recipes import DEFAULT_PROFILE, available, configs_folder
from accl.config.resolution import Resolved, difference, dump, flat, load, parse, resolve
from accl.config.schema import Config, Curriculum, Loss, Optim

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
]
