"""Runs grouped into arms by their configurations, before anything is known of their results."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from accl.store.config_values import all_values

Values = Mapping[str, str | float]

SEED = re.compile(r"^  seed: .*\n?", re.MULTILINE)
# Keys that make no arm: its name, what is no part of the experiment, and what is done when nothing is learnt any more.
UNTOLD = ("recipe", "alerts.command", "eval.test")
_NUMBER = re.compile(r"((?<==)[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")  # a value in a label
SHOWN_KEYS = 2  # in the label of an arm


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seed.

    Attributes:
        label: the recipe, with the keys that differ where a recipe has several configurations.
        members: indices of the runs, by seed.
        values: the configuration by dotted key, without the seed.
    """

    label: str
    recipe: str
    members: tuple[int, ...]
    values: Values


def group_runs(runs: Sequence[tuple[str, int, str]]) -> list[Arm]:
    """Group runs, each given as recipe, seed and text of its ``config.yaml``, in the order of their first ones."""
    texts: dict[tuple[str, str], list[int]] = {}
    for index, (recipe, _, config) in enumerate(runs):
        texts.setdefault((recipe, SEED.sub("", config)), []).append(index)
    # The same values may be written in several ways; a text without any is a configuration of its own.
    merged: dict[object, tuple[str, Values, list[int]]] = {}
    for (recipe, config), indices in texts.items():
        values = {key: value for key, value in all_values(config).items() if key not in UNTOLD}
        _, _, members = merged.setdefault((recipe, frozenset(values.items()) or config), (recipe, values, []))
        members += indices
    arms = [
        Arm(recipe, recipe, tuple(sorted(members, key=lambda i: runs[i][1])), values)
        for recipe, values, members in merged.values()
    ]
    for shorten in (True, False):  # the last part of a key, or where that does not tell them apart, all of it
        counts = Counter(arm.label for arm in arms)
        arms = [replace(arm, label=_label(arm, arms, shorten)) if counts[arm.label] > 1 else arm for arm in arms]
    counts = Counter(arm.label for arm in arms)
    return [replace(a, label=f"{a.label} #{i + 1}") if counts[a.label] > 1 else a for i, a in enumerate(arms)]


def _label(arm: Arm, arms: Sequence[Arm], shorten: bool) -> str:
    keys = differing_keys([other for other in arms if other.recipe == arm.recipe])
    shown = [f"{key.rpartition('.')[2] if shorten else key}={_shown(arm.values.get(key, '?'))}" for key in keys]
    return " ".join([arm.recipe, *(shown[:SHOWN_KEYS] if shorten else shown)])


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.12g}"


def differing_keys(arms: Sequence[Arm]) -> list[str]:
    """Return the keys whose values are not the same in all arms."""
    keys = dict.fromkeys(key for arm in arms for key in arm.values)
    return [key for key in keys if len({arm.values.get(key) for arm in arms}) > 1]


def in_order(arms: Sequence[Arm], created: Sequence[float]) -> list[Arm]:
    """Return arms by the numbers in their labels, but first the one to compare with: ``baseline``, or the oldest.

    The runs of an experiment are made within a second, so that their age tells nothing of the others.

    Args:
        created: time at which each run was made, by the indices in `Arm.members`.
    """
    if not arms:
        return []
    arms = sorted(arms, key=lambda arm: _natural(arm.label))
    labels = [arm.label for arm in arms]
    first = "baseline" if "baseline" in labels else min(arms, key=lambda a: min(created[i] for i in a.members)).label
    return sorted(arms, key=lambda arm: arm.label != first)


def _natural(label: str) -> list[tuple[float, str]]:
    parts = _NUMBER.split(label)  # text, number, text, number ...
    return [(float(part), "") if i % 2 else (math.inf, part) for i, part in enumerate(parts)]
