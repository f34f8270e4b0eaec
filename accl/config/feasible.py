"""Checks of what a configuration alone can tell of whether its run can work.

It is asked of new runs only: an old one that failed because of it stays readable.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from accl.config.schema import Config
from accl.config.weights import read_weights
from accl.errors import ConfigError


def check_feasible(config: Config) -> None:
    """Refuse a configuration whose run could only fail.

    Raises:
        ConfigError: values that do not fit each other, or task weights that are none.
    """
    data, train = config.data, config.train
    if not data.path.strip() and data.source != "synthetic":
        raise ConfigError(f"data.path is empty, and data.source={data.source} needs one.", "Add: --set data.path=DIR")
    if (train.backend == "cudagraph" and train.device == "cpu") or (train.backend == "cpu" and train.device == "cuda"):
        what = f"train.backend={train.backend} does not run on train.device={train.device}."
        raise ConfigError(what, "Try: --set train.backend=auto")
    if train.backend in ("packed", "cudagraph") and train.device != "cpu" and train.deterministic:
        what = f"train.backend={train.backend} is not deterministic on a GPU, and train.deterministic=true."
        raise ConfigError(what, "Try: --set train.backend=reference")
    if config.alerts.command is not None:
        _check_command(config.alerts.command)
    if config.curriculum.weights_file is not None:
        read_weights(Path(config.curriculum.weights_file))


def _check_command(command: str) -> None:
    try:
        program = next(iter(shlex.split(command)), "")
    except ValueError as error:
        raise ConfigError(f"alerts.command cannot be understood ({error}).", "Quote it as in a shell.") from error
    if not program or shutil.which(program) is None:
        what = f"There is no program {program!r}, which alerts.command would run."
        raise ConfigError(what, "Give the path of an executable file, or null.")
