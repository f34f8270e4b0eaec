"""Checkpoints: everything a run needs to go on exactly, in safetensors and JSON; no pickle is written or read.

::

    checkpoints/step-00001200/
      model.safetensors       weights by name; the encoder's under `encoder.`, with their Hugging Face names
      optimizer.safetensors   AdamW's moments, memory bank and confusion; dropped when only `best` needs the folder
      state.json              step, sampler, curriculum, clock, best score so far
"""

from __future__ import annotations

import json
import os
import shutil
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
        best_score, best_step: of the validation so far; -1 before the first one.
    """

    step: int
    sampler: list[int]
    weights: list[float]
    seconds: float
    training_seconds: float
    best_score: float
    best_step: int


def folder_name(step: int) -> str:
    """Name of the folder of a step's checkpoint; names sort by step."""
    return f"step-{step:08d}"


def save(
    root: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    buffers: Mapping[str, nn.Module],
) -> str:
    """Write the checkpoint of ``progress.step`` aside, sync it to disk and rename it. Returns its folder name."""
    name = folder_name(progress.step)
    aside = root / f".{name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(_plain(model.state_dict()), aside / "model.safetensors")
    tensors = {f"buffer.{key}.{leaf}": t for key, module in buffers.items() for leaf, t in module.state_dict().items()}
    for parameter_name, parameter in model.named_parameters():
        for leaf, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{leaf}.{parameter_name}"] = torch.as_tensor(value)
    save_file(_plain(tensors), aside / "optimizer.safetensors")
    (aside / "state.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    for path in (*aside.iterdir(), aside):
        _sync(path)
    target = root / name
    if target.exists():  # of an earlier life of this run, beyond the step it was resumed from
        shutil.rmtree(target)
    os.replace(aside, target)
    _sync(root)
    return name


def load_progress(folder: Path) -> Progress:
    """The scalars of a checkpoint.

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
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, buffers: Mapping[str, nn.Module]
) -> Progress:
    """Put everything back; returns the scalars.

    Raises:
        RunError: the checkpoint is incomplete (only `best` may lack the optimizer), or holds the moments of a word
            embedding with other rows.
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
    for name, parameter in model.named_parameters():
        state = {
            leaf: tensors[f"{leaf}.{name}"] for leaf in ("step", "exp_avg", "exp_avg_sq") if f"{leaf}.{name}" in tensors
        }
        if any(value.dim() and value.shape != parameter.shape for value in state.values()):
            # Its moments are of the word embedding's used rows, or of all.
            raise RunError(
                f"{folder} was made with another train.backend: {name} has {len(parameter)} rows here, and not there.",
                "Set train.backend in the run's config.yaml to what it began with (reference, in old runs).",
            )
        if parameter in optimizer.state:  # an optimizer that has its places already
            for leaf, value in state.items():
                optimizer.state[parameter][leaf].copy_(value)
        elif state:
            # AdamW's step counter stays where the fused kernel keeps it: beside its parameter.
            optimizer.state[parameter] = {leaf: value.to(parameter.device) for leaf, value in state.items()}
    return progress


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
    """safetensors wants dense tensors that share no memory."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
