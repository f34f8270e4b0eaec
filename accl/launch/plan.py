"""An experiment before it runs: its configurations, its name, and what has to be done for each member.

Everything here is computed from values that are handed in, so that the same command always means the same experiment:
`accl.launch.experiment` looks at the folder of the runs and makes what is missing.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from accl.choices import parse_whole_number
from accl.config import Config, Resolved, flat
from accl.config.recipes import base_values
from accl.config.renamed import translate_key
from accl.config.values import FIELDS, unknown_key
from accl.errors import ConfigError
from accl.store.experiment import NAME_LIMIT
from accl.store.rundir import RunDir
from accl.store.state import State
from accl.yamlfile import shown

MOST_MEMBERS = 1000
MOST_SEEDS = 100  # that a single number counts
SEED = "train.seed"
TEST = "eval.test"
HASH_DIGITS = 6
PART_LIMIT = (NAME_LIMIT - HASH_DIGITS) // 3 - 1  # characters of each other part of a name

Base = Callable[[Sequence[str]], Resolved]  # resolves a recipe, or the configuration of a run, with overrides


class Action(StrEnum):
    """Things that may have to be done for a member of an experiment."""

    TRAIN = "train"
    RESUME = "resume"
    WAIT = "wait"
    KEEP = "keep"


@dataclass(frozen=True)
class Axis:
    """A key of a grid and the texts of its values, in the order in which they were typed."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Existing:
    """A run that belongs to an experiment already, as far as a plan needs it.

    Attributes:
        fraction: share of its steps that are done, from 0 to 1.
    """

    run: RunDir
    config: Config
    state: State
    fraction: float = 0.0


@dataclass(frozen=True)
class Member:
    """A configuration of an experiment with what has to be done for it.

    Attributes:
        run: the run that it has already; None for one that is still to be made.
        left: share of its steps that are still to be done.
    """

    config: Config
    action: Action
    run: RunDir | None = None
    left: float = 1.0


def read_axes(texts: Sequence[str]) -> tuple[list[Axis], list[str]]:
    """Take ``key=value,value`` items apart, old names translated.

    Returns:
        the axes, and a sentence on each key that was renamed.

    Raises:
        ConfigError: an item is of another form, a key is unknown or the seed, or a key or a value comes twice.
    """
    axes: list[Axis] = []
    notes: list[str] = []
    for text in texts:
        key, equals, listed = text.partition("=")
        key, renamed = translate_key(key.strip())
        notes += renamed
        values = tuple(value.strip() for value in listed.split(","))
        if not equals or not key or not all(values):
            example = "For example: --grid loss.contrastive_weight=0.03,0.1,0.3"
            raise ConfigError(f"--grid {shown(text)} is not key=value,value.", example)
        if key == SEED:
            raise ConfigError("The seed is no key of a grid: an arm is all seeds of a setting.", "Use: --seeds 1,2,3")
        if key not in FIELDS:
            raise unknown_key(key, "--grid")
        if key in (axis.key for axis in axes):
            raise ConfigError(f"--grid {key} is given twice.", f"Write all its values at once: --grid {key}=A,B")
        axes.append(Axis(key, values))
    return axes, notes


def read_seeds(text: str, counted: bool) -> tuple[int, ...]:
    """Read the seeds of an experiment: numbers between commas, of which the last may have one behind it.

    Args:
        counted: whether a number N without any comma means the seeds 1 to N, and not the seed N.

    Raises:
        ConfigError: it is no list of different whole numbers, or too many.
    """
    try:
        seeds = [parse_whole_number(part.strip()) for part in text.removesuffix(",").split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {shown(text)}: {error}.", "For example: --seeds 1,2,3") from error
    if counted and "," not in text:
        if not 1 <= seeds[0] <= MOST_SEEDS:
            what = f"--seeds {text} is a number of seeds, of which 1 to {MOST_SEEDS} are possible."
            raise ConfigError(what, f"The seed {text} alone is written with a comma: --seeds {text},")
        return tuple(range(1, seeds[0] + 1))
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise ConfigError(f"--seeds {text} has the seed {twice[0]} twice.", "Name each seed once.")
    return tuple(seeds)


def expand(
    bases: Sequence[Base], axes: Sequence[Axis], seeds: Sequence[int], overrides: Sequence[str]
) -> tuple[list[Config], list[str]]:
    """Return the configurations of an experiment: every base with every combination of the grid and every seed.

    Those of the first seed come first, so that what has been trained when an experiment is stopped can be compared.

    Returns:
        the configurations, and what there is to say about what was typed.

    Raises:
        ConfigError: a combination is refused by `accl.config.resolve`, two are the same, there are too many, or a key
            is given twice.
    """
    typed = {translate_key(item.partition("=")[0].strip())[0] for item in overrides if "=" in item}
    for key in typed & {SEED, *(axis.key for axis in axes)}:
        option = "--seeds" if key == SEED else "--grid"
        raise ConfigError(f"{key} is given by --set and by {option}.", "Remove one of the two.")
    cells = list(product(*([f"{axis.key}={value}" for value in axis.values] for axis in axes)))
    if (count := len(bases) * len(cells) * len(seeds)) > MOST_MEMBERS:
        what = f"This grid has {count:,} runs, and an experiment at most {MOST_MEMBERS:,}."
        raise ConfigError(what, "Give fewer values or seeds.")
    resolved = [base([*overrides, *cell, f"{SEED}={seed}"]) for seed in seeds for base in bases for cell in cells]
    configs: dict[str, Config] = {}
    for each in resolved:
        if (key := each.config.model_dump_json()) in configs:
            what = "Two combinations of the grid are the same configuration: "
            same = ", ".join(f"{axis.key}={','.join(axis.values)}" for axis in axes)
            raise ConfigError(f"{what}{same}.", "Name each value once.")
        configs[key] = each.config
    return list(configs.values()), list(dict.fromkeys(note for each in resolved for note in each.notes))


def experiment_name(command: str, configs: Sequence[Config]) -> str:
    """Name an experiment by command, recipe if there is one, profile, and a hash of everything but the seeds.

    It does not depend on the order of the configurations, and only values that differ from ``configs/base.yaml`` count,
    so that a key that accl learns later leaves the names as they are.
    """
    base = base_values()
    arms = {
        json.dumps(
            {key: value for key, value in flat(config).items() if key != SEED and base.get(key, ...) != value},
            sort_keys=True,
        )
        for config in configs
    }
    digest = hashlib.sha256("\n".join(sorted(arms)).encode()).hexdigest()[:HASH_DIGITS]
    recipes = list(dict.fromkeys(config.recipe for config in configs))
    parts = [command, *(recipes if len(recipes) == 1 else []), configs[0].profile]
    return "-".join([*(part[:PART_LIMIT] for part in parts), digest])


def assign(configs: Iterable[Config], existing: Sequence[Existing]) -> list[Member]:
    """Say what has to be done for each configuration, given the runs that the experiment has, the oldest first.

    A finished run is kept, one that trains or waits for its turn is waited for, any other is resumed, and what is
    missing is trained. Where several runs have a configuration, the one that is farthest counts; of those the newest.
    """
    rank = (Action.RESUME, Action.WAIT, Action.KEEP)
    by_config: dict[str, Existing] = {}
    for each in sorted(existing, key=lambda each: (rank.index(_action(each.state)), each.fraction)):
        by_config[each.config.model_dump_json()] = each
    members = []
    for config in configs:
        if (found := by_config.get(config.model_dump_json())) is None:
            members.append(Member(config, Action.TRAIN))
        else:
            left = 0.0 if found.state is State.FINISHED else 1 - found.fraction
            members.append(Member(config, _action(found.state), found.run, left))
    return members


def _action(state: State) -> Action:
    if state is State.FINISHED:
        return Action.KEEP
    return Action.WAIT if state.active else Action.RESUME


def makespan(seconds: Sequence[float], places: int) -> float:
    """Return the time until all have ended that start in this order, as many at a time as there are places."""
    ends = [0.0] * max(1, places)
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)
