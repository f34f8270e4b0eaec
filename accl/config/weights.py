"""Task weights of the policy ``fixed``, from the file that curriculum.weights_file names."""

from __future__ import annotations

import math
from pathlib import Path

from accl.config.recipes import read_yaml
from accl.errors import ConfigError


def read_weights(path: Path) -> dict[str, float]:
    """Read task weights from a YAML file of ``task: weight``; they need not sum to 1.

    Raises:
        ConfigError: the file cannot be read, a weight is not a finite number of at least 0, or all are 0.
    """
    weights = read_yaml(path)
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ConfigError(f"{path} has weights that are not numbers of at least 0: {name}: {value}.")
    if not any(weights.values()):
        raise ConfigError(f"{path} gives every task the weight 0.", "Give at least one task a weight above 0.")
    return weights
