"""Checkpoints: everything a run needs to go on exactly, in safetensors and JSON; no pickle is written or read.

::

    checkpoints/step-00001200/
      model.safetensors       weights by name; the encoder's under `encoder.`, with their Hugging Face names
      optimizer.safetensors   AdamW's moments, memory bank and confusion; dropped when only `best` needs the folder
      state.json              step, sampler, curriculum, clock, best score so far

Files are the same whichever backend trained. An embedding whose unused rows have no moments is stored by its used rows
alone, with their indices under ``rows.<parameter>``.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from accl.errors import RunError


@dataclass(frozen=True)
class Progress:
    """The part of a checkpoint that is not tensors.

    Attributes:
        step: optimizer steps done.
        sampler: `TaskSampler.state`.
        weights: task weights p_K in force.
        seconds, training_seconds: clocks of the run: all work, and training steps alone.
        best_score, best_step: of the validation so far; -1 and 0 before the first one.
    """

    step: int
    sampler: list[int]
    weights: list[float]
    seconds: float
    training_seconds: float
    best_score: float
    best_step: int


def folder_name(step: int) -> str:
    """Return the name of the folder of a step's checkpoint; names sort by step."""
    return f"step-{step:08d}"


def save(
    root: Path,
    progress: Progress,
    model: nn.Module,
    optimizer_state: Mapping[str, Tensor],
    buffers: Mapping[str, nn.Module],
) -> str:
    """Write the checkpoint of ``progress.step`` under a temporary name, sync it to disk and rename it.

    Args:
        optimizer_state: from a backend's ``optimizer_state``. buffers: modules whose buffers are kept, by name.

    Returns:
        the name of its folder.
    """
    name = folder_name(progress.step)
    partial = root / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_plain(model.state_dict()), partial / "model.safetensors")
    kept = {f"buffer.{key}.{leaf}": t for key, module in buffers.items() for leaf, t in module.state_dict().items()}
    save_file(_plain({**kept, **optimizer_state}), partial / "optimizer.safetensors")
    (partial / "state.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    mode = stat.S_IMODE((partial / "state.json").stat().st_mode)
    for path in partial.iterdir():
        path.chmod(mode)  # safetensors does not follow the umask: nobody else could read its files
    for path in (*partial.iterdir(), partial):
        _sync(path)
    target = root / name
    if target.exists():  # of an earlier life of this run, beyond the step it was resumed from
        shutil.rmtree(target)
    os.replace(partial, target)
    _sync(root)
    return name


def load_progress(folder: Path) -> Progress:
    """Read the scalars of a checkpoint.

    Raises:
        RunError: there is no complete checkpoint in the folder.
    """
    try:
        return Progress(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise RunError(f"{folder} is no complete checkpoint: {error}.", "Start a new run.") from error


def load_model(folder: Path, model: nn.Module) -> None:
    """Put the weights of a checkpoint into the model."""
    model.load_state_dict(load_file(folder / "model.safetensors"))


def load(
    folder: Path, model: nn.Module, buffers: Mapping[str, nn.Module], used_rows: Tensor
) -> tuple[Progress, dict[str, Tensor]]:
    """Put weights and buffers back.

    Args:
        used_rows: token ids that the run's questions contain: the rows that moments stand for in checkpoints that do
            not say so themselves (of accl 0.1 before ``rows.<parameter>``).

    Returns:
        the scalars, and the optimizer's state by name, with a row for each row of its parameter.

    Raises:
        RunError: the checkpoint is incomplete; only `best` may lack the optimizer.
    """
    progress = load_progress(folder)
    load_model(folder, model)
    path = folder / "optimizer.safetensors"
    if not path.is_file():
        raise RunError(f"{folder} has no optimizer state: a run cannot go on from it.", "Resume from `last`.")
    tensors = load_file(path)
    for key, module in buffers.items():
        prefix = f"buffer.{key}."
        module.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    state: dict[str, Tensor] = {}
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        if kind in ("buffer", "rows") or name not in parameters:
            continue
        shape = parameters[name].shape
        if value.dim() and value.shape != shape:
            rows = tensors.get(f"rows.{name}", used_rows)
            if len(rows) != len(value):
                raise RunError(f"{path} does not fit the data of this run: {key} has {len(value)} rows.")
            value = torch.zeros(shape).index_copy_(0, rows, value)
        state[key] = value
    return progress, state


def prune(root: Path, last: str, best: str) -> None:
    """Keep `last` whole and the weights of `best`; remove every other checkpoint."""
    for folder in root.iterdir():
        if folder.name == last:
            continue
        if folder.name == best:
            (folder / "optimizer.safetensors").unlink(missing_ok=True)
        else:
            shutil.rmtree(folder)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to dense host memory of their own, as safetensors wants them."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
