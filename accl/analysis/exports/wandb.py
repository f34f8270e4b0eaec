"""Offline runs of Weights & Biases, which `wandb sync` uploads when somebody wants that."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path
from typing import Any

from accl.analysis.exports.material import Material
from accl.errors import AcclError, first_line
from accl.text import printable

PROJECT = "accl"
_LONGEST_TAG = 64  # characters that it takes


def write(material: Material, folder: Path) -> int:
    """Write a run below ``folder``/wandb, and return the number of steps with values.

    Recipe, experiment, labels and configuration become job type, group, name, tags, notes and config; the time of each
    step is that of the run. Nothing is sent.

    Raises:
        ImportError: wandb is not installed.
        AcclError: wandb refuses the run, or its process does not start.
        OSError: the folder cannot be written.
    """
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # it would tell its makers of errors; read when it is imported
    import wandb

    summary = material.summary
    settings = wandb.Settings(
        console="off",
        silent=True,
        host="",
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    try:
        run = wandb.init(
            project=PROJECT,
            dir=str(folder),
            mode="offline",
            id=material.folder,
            name=printable(summary.labels.name or summary.run.id),
            group=printable(summary.experiment) or None,
            job_type=printable(summary.setup.recipe) if summary.setup else None,
            tags=[printable(tag)[:_LONGEST_TAG] for tag in summary.labels.tags],
            notes=printable(summary.labels.note) or None,
            config=material.config,
            settings=settings,
            reinit="create_new",
        )
    except wandb.Error as error:
        raise AcclError(f"wandb refuses {material.run.id}: {first_line(error)}.") from error
    count = 0
    try:
        for step, scalars in groupby(material.scalars, lambda scalar: scalar.step):
            values: dict[str, Any] = {}
            seconds = 0.0
            for scalar in scalars:
                values[scalar.name] = scalar.value
                seconds = max(seconds, scalar.seconds)
            run.log({**values, "_timestamp": material.started + seconds}, step=step)
            count += 1
    finally:
        run.finish()
    return count
