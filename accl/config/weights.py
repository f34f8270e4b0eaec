"""Task weights of the policy ``fixed``, from the file that curriculum.weights_file names."""

from __future__ import annotations

import math
from pathlib import Path

from accl.choices import parse_number
from accl.errors import ConfigError
from accl.yamlfile import Written, read_yaml, shown

_FORM = "Give curriculum.weights_file a YAML file of `task: weight`."


def read_weights(path: Path) -> dict[str, float]:
    """Read task weights from a YAML file of ``task: weight``; they need not sum to 1.

    Raises:
        ConfigError: the file cannot be read, a weight is not a finite number of at least 0, or all are 0.
    """
    try:
        lines = read_yaml(path)
    except ConfigError as error:
        raise ConfigError(f"curriculum.weights_file: {error.what}", error.hint or _FORM) from error
    weights = {task: _read_weight(task, written) for task, written in lines.items()}
    if not 0 < sum(weights.values()) < math.inf:
        raise ConfigError(f"The weights of {path} have no finite sum above 0.", "Give a task a weight above 0.")
    return weights


def _read_weight(task: str, written: Written) -> float:
    try:
        weight = parse_number(written.text) if written.style == "plain" else -1
    except ValueError:
        weight = -1
    if weight < 0:
        what = f"{shown(task)}={shown(written.text)} ({written.where}): expected number of at least 0."
        raise ConfigError(what, _FORM)
    return weight
