"""The configuration keys by which the runs of a list can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accl.analysis.grouping import SEED
from accl.store.config_values import all_values, default_values
from accl.store.summary import Summary

Values = Mapping[str, str | float]
_KNOWN = ("recipe", "profile", "train.seed")  # which every list of runs shows by themselves


@dataclass(frozen=True)
class Differing:
    """Keys whose values are not the same in all runs, in the order of the configuration.

    Attributes:
        within: keys that differ between runs of one recipe and one profile, such as the axes of a sweep.
        between: keys that differ only between recipes or profiles.
        values: the configuration of each run by dotted key; empty where it cannot be read.
    """

    within: tuple[str, ...]
    between: tuple[str, ...]
    values: tuple[Values, ...]


def differing(summaries: Sequence[Summary]) -> Differing:
    """Return the keys that differ between runs, the seed apart."""
    parsed: dict[str, Values] = {}  # most runs of a list share their text with others, once the seed is taken out
    values: list[Values] = []
    arms: dict[tuple[str, str], dict[str, Values]] = {}
    for summary in summaries:
        text = SEED.sub("", summary.config)
        if text not in parsed:
            parsed[text] = all_values(text)
        values.append(parsed[text])
        if summary.setup is not None and parsed[text]:
            arms.setdefault((summary.setup.recipe, summary.setup.profile), {})[text] = parsed[text]
    within = {key for configurations in arms.values() for key in _differing(list(configurations.values()))}
    every = _differing([configuration for configurations in arms.values() for configuration in configurations.values()])
    return Differing(
        tuple(key for key in every if key in within), tuple(key for key in every if key not in within), tuple(values)
    )


def _differing(configurations: Sequence[Values]) -> list[str]:
    keys = [key for key in default_values() if key not in _KNOWN]  # a file from elsewhere may have any others
    return [key for key in keys if len({values.get(key) for values in configurations}) > 1]
