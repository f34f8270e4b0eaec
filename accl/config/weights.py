"""Task weights of the policy ``fixed``, from the file that curriculum.weights_file names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from accl.choices import parse_number
from accl.config.yamlfile import Written, read_yaml, shown
from accl.errors import ConfigError

_FORM = "Give curriculum.weights_file a YAML file of `task: weight`."


def read_weights(path: Path, tasks: Sequence[str] | None = None) -> dict[str, float]:
    """Read task weights from a YAML file of ``task: weight``; they need not sum to 1.

    Args:
        tasks: names of the tasks, where they are known; each has to have a weight, and the result is in their order.

    Raises:
        ConfigError: the file cannot be read, a weight is not a finite number of at least 0, all are 0, or the file does
            not fit the tasks.
    """
    try:
        lines = read_yaml(path)
    except ConfigError as error:
        raise ConfigError(f"curriculum.weights_file: {error.what}", error.hint or _FORM) from error
    weights = {task: _read_weight(task, written) for task, written in lines.items()}
    if not 0 < sum(weights.values()) < math.inf:
        raise ConfigError(f"The weights of {path} have no finite sum above 0.", "Give a task a weight above 0.")
    if tasks is None:
        return weights
    unknown = [task for task in weights if task not in tasks]
    missing = [task for task in tasks if task not in weights]
    if unknown or missing:
        parts = [f"{kind} {_listed(group)}" for kind, group in (("unknown", unknown), ("missing", missing)) if group]
        raise ConfigError(
            f"{path} does not fit the tasks: {'; '.join(parts)}.", "Give every task one weight; 0 is one."
        )
    return {task: weights[task] for task in tasks}


def _read_weight(task: str, written: Written) -> float:
    try:
        weight = parse_number(written.text) if written.style == "plain" else -1
    except ValueError:
        weight = -1
    if weight < 0:
        what = f"{shown(task)}={shown(written.text)} ({written.where}): expected number of at least 0."
        raise ConfigError(what, _FORM)
    return weight


def _listed(tasks: Sequence[str]) -> str:
    return ", ".join(tasks[:5]) + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "")
