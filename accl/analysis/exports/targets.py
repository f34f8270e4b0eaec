"""The programs that runs are exported to, by name. What an export needs beside accl is imported when it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from accl.errors import AcclError, first_line

if TYPE_CHECKING:
    from accl.analysis.exports.material import Material


class Target(StrEnum):
    """Values of ``--to``."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    LM_EVAL = "lm-eval"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True)
class Exporter:
    """How runs are written for a target.

    Attributes:
        module: of `accl.analysis.exports`, whose ``write`` writes one run; empty where all runs share files.
        needs: the library that writes, which is also the name of accl's extra; empty for none.
        counts: what the number that ``write`` returns counts.
        then: what to type next; ``{folder}`` stands for the folder.
    """

    module: str = ""
    needs: str = ""
    counts: str = ""
    then: str = ""


EXPORTERS = {
    Target.TENSORBOARD: Exporter("tensorboard", "tensorboard", "events", "tensorboard --logdir {folder}"),
    Target.WANDB: Exporter("wandb", "wandb", "steps", "wandb sync {folder}/wandb/offline-run-*"),
    Target.LM_EVAL: Exporter("lm_eval", "", "answers"),
    Target.CSV: Exporter(),
    Target.PARQUET: Exporter(),
}


def check_target(target: Target) -> None:
    """Make sure that what an export needs is installed.

    Raises:
        AcclError: it is not.
    """
    needs = EXPORTERS[target].needs
    if needs and find_spec(needs) is None:
        raise AcclError(f"--to {target} needs {needs}, which is not installed.", f"pip install 'accl[{needs}]'")


def write_run(target: Target, material: Material, folder: Path) -> int:
    """Write one run for a target that has a module, and return the number of what it counts.

    Raises:
        AbsentError: the run lacks what the target is about.
        AcclError: the library that writes cannot be used.
        OSError: the folder cannot be written.
    """
    write: Callable[[Material, Path], int]
    write = import_module(f"accl.analysis.exports.{EXPORTERS[target].module}").write
    try:
        return write(material, folder)
    except ImportError as error:
        needs = EXPORTERS[target].needs
        what = f"{needs} cannot be imported: {first_line(error)}."
        raise AcclError(what, f"pip install --upgrade 'accl[{needs}]'") from error


def write_together(target: Target, materials: Sequence[Material], folder: Path) -> dict[str, int]:
    """Write several runs for a target whose files they share, and return the number of rows by table.

    Raises:
        RunError: the folder cannot be written.
    """
    from accl.analysis.exports.tables import write_tables

    return write_tables(materials, folder, target.value)
