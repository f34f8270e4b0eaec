"""Checkpoints: everything a run needs to go on exactly, in safetensors and JSON; no pickle is written or read.

::

    checkpoints/step-00001200/
      model.safetensors       weights by name; the encoder's under `encoder.`, with their Hugging Face names
      optimizer.safetensors   AdamW's moments, memory bank and confusion; dropped when only the weights are kept
      state.json              step, sampler, curriculum, clock, best score so far
      manifest.json           size and SHA-256 of the others; written last (see `accl.store.manifest`)

Files are the same whichever backend trained. An embedding whose unused rows have no moments is stored by its used rows
alone, with their indices under ``rows.<parameter>``. Nothing is put into a model before all of a checkpoint was found
to be what was written and to fit. Checkpoints of accl 0.1 have no manifest; only that they fit is known of them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from accl.errors import DamagedError
from accl.store import manifest
from accl.store.files import open_run_file, read_text
from accl.store.manifest import MANIFEST, MODEL, OPTIMIZER, PROGRESS, folder_name
from accl.training.optim import MOMENTS
from accl.training.tensorfile import write_synced, write_tensors

# Of state.json; the first one, without this number, had no manifest beside it.
FORMAT = 2

# The tensors of each file, by name.
Files = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Progress:
    """The part of a checkpoint that is not tensors.

    Attributes:
        step: optimizer steps done.
        sampler: `TaskSampler.state`.
        weights: task weights p_K in force.
        seconds, training_seconds: clocks of the run: all work, and training steps alone.
        best_score, best_step: of the validation so far; -1 and 0 before the first one.
        run: id of the run that it is of; empty in checkpoints of accl 0.1.
        validated: False when a stop cut off the validation of this step, which is to be done again.
    """

    step: int
    sampler: list[int]
    weights: list[float]
    seconds: float
    training_seconds: float
    best_score: float
    best_step: int
    run: str = ""
    validated: bool = True


@dataclass(frozen=True)
class Target:
    """The parts of a run that a checkpoint is put into.

    Attributes:
        buffers: modules whose buffers are kept, by name.
        used_rows: token ids that the run's questions contain: the rows that moments stand for in checkpoints that do
            not say so themselves (of accl 0.1 before ``rows.<parameter>``).
        sampler: length of `TaskSampler.state`. tasks: number of tasks K.
        run: id of the run; empty when it is not known.
    """

    model: nn.Module
    buffers: Mapping[str, nn.Module]
    used_rows: Tensor
    sampler: int
    tasks: int
    run: str = ""


def files_of(model: nn.Module, optimizer_state: Mapping[str, Tensor], buffers: Mapping[str, nn.Module]) -> Files:
    """Return the tensors of a whole checkpoint.

    Args:
        optimizer_state: from a backend's ``optimizer_state``. buffers: modules whose buffers are kept, by name.
    """
    return {MODEL: model.state_dict(), OPTIMIZER: {**_named(buffers), **optimizer_state}}


def save(root: Path, progress: Progress, files: Files, before_rename: Callable[[], None] = lambda: None) -> str:
    """Write the checkpoint of ``progress.step`` under a temporary name, sync it to disk and rename it.

    A kill at any moment leaves the checkpoints of other steps as they were.

    Args:
        before_rename: what must be done before the checkpoint can be found.

    Returns:
        the name of its folder.

    Raises:
        OSError: it cannot be written, as on a full disk; nothing of it is left.
    """
    name = folder_name(progress.step)
    partial = root / f".{name}.partial"
    root.mkdir(exist_ok=True)
    manifest.remove_partials(root)
    partial.mkdir()
    try:
        _write(partial, progress, files)
        before_rename()
        manifest.set_aside(root / name)
        os.replace(partial, root / name)
    except BaseException:
        manifest.remove_partials(root)
        raise
    manifest.sync(root)
    return name


def _write(folder: Path, progress: Progress, files: Files) -> None:
    if any(tensor.is_cuda for tensors in files.values() for tensor in tensors.values()):
        torch.cuda.current_stream().synchronize()  # the threads below copy on streams of their own
    with ThreadPoolExecutor(len(files)) as pool:
        written = pool.map(lambda item: write_tensors(folder / item[0], item[1]), files.items())
        entries = dict(zip(files, written, strict=True))
    state = json.dumps({"format": FORMAT, **asdict(progress)}).encode()
    entries[PROGRESS] = write_synced(folder / PROGRESS, [state])
    write_synced(folder / MANIFEST, [manifest.render(progress.step, entries)])
    manifest.sync(folder)


def candidates(root: Path, last: str) -> list[Path]:
    """Return the checkpoints that a run might go on from, newest first.

    Args:
        last: name of the last one that the run knows of, which is listed even if it is gone; may be empty.
    """
    found = {folder.name for folder in manifest.step_folders(root) if (folder / OPTIMIZER).exists()}
    return [root / name for name in sorted(found | ({last} if last else set()), reverse=True)]


def load_progress(folder: Path) -> Progress:
    """Read the scalars of a checkpoint.

    Raises:
        DamagedError: there are none, or some are not what they should be.
    """
    path = folder / PROGRESS
    try:
        content = json.loads(read_text(path))
        number = content.pop("format", 1)
        progress = Progress(**content)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing.") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: it is no state of a checkpoint.") from error
    if number != 1 and not os.path.lexists(folder / MANIFEST):
        raise DamagedError(f"{folder / MANIFEST} is missing.")
    if wrong := _wrong(progress, folder.name):
        raise DamagedError(f"{path} is damaged: {wrong} is not what it should be.")
    return progress


def verify_model(folder: Path) -> None:
    """Make sure that the weights of a checkpoint are what was written, as far as that can be known.

    Raises:
        DamagedError: they are not.
    """
    if not manifest.verify(folder, (MODEL, PROGRESS)):
        load_progress(folder)


def load_model(folder: Path, model: nn.Module) -> None:
    """Put the weights of a checkpoint into the model.

    Raises:
        DamagedError: they are damaged or of another model, and the model is as it was.
    """
    verify_model(folder)
    tensors = _read(folder / MODEL)
    _check(folder / MODEL, tensors, model.state_dict())
    model.load_state_dict(tensors)


def load(folder: Path, target: Target) -> tuple[Progress, dict[str, Tensor]]:
    """Put weights and buffers back.

    Returns:
        the scalars, and the optimizer's state by name, with a row for each row of its parameter.

    Raises:
        DamagedError: a file is missing, damaged or does not fit the run; nothing was put anywhere.
    """
    manifest.verify(folder)
    progress = load_progress(folder)
    if target.run and progress.run and progress.run != target.run:
        raise DamagedError(f"{folder} is of another run: {progress.run}.")
    for name, values, length in (
        ("sampler", progress.sampler, target.sampler),
        ("weights", progress.weights, target.tasks),
    ):
        if len(values) != length:
            raise DamagedError(f"{folder / PROGRESS} does not fit: {name} has {len(values)} numbers, not {length}.")
    weights, others = _read(folder / MODEL), _read(folder / OPTIMIZER)
    buffers = {name: value for name, value in others.items() if name.startswith("buffer.")}
    _check(folder / MODEL, weights, target.model.state_dict())
    _check(folder / OPTIMIZER, buffers, _named(target.buffers))
    moments = {name: value for name, value in others.items() if name not in buffers}
    state = _expand(folder / OPTIMIZER, moments, dict(target.model.named_parameters()), target.used_rows)
    target.model.load_state_dict(weights)
    for key, module in target.buffers.items():
        prefix = f"buffer.{key}."
        module.load_state_dict({n.removeprefix(prefix): t for n, t in buffers.items() if n.startswith(prefix)})
    return progress, state


def prune(root: Path, last: str) -> list[Path]:
    """Keep ``last`` and the whole checkpoint before it, and the weights that validation had chosen by then.

    Of the other checkpoints what is ours is removed, as `manifest.remove` says.

    Returns:
        links that stand where a checkpoint or all of them should, and are left as they are.
    """
    if root.is_symlink():
        return [root]
    folders = manifest.step_folders(root)
    ours = [folder for folder in folders if folder.name <= last and manifest.is_ours(folder)]
    whole = [folder for folder in ours if (folder / OPTIMIZER).exists()][:2]
    best = set()
    for folder in whole:
        with suppress(DamagedError):  # then nothing can go on from it either
            best.add(folder_name(load_progress(folder).best_step))
    for folder in folders:
        if folder not in whole:
            manifest.remove(folder, (OPTIMIZER,) if folder.name in best else manifest.FILES)
    return [folder for folder in folders if folder.is_symlink()]


def _named(buffers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {f"buffer.{key}.{leaf}": t for key, module in buffers.items() for leaf, t in module.state_dict().items()}


def _wrong(progress: Progress, name: str) -> str:
    """Return the name of a field whose value is impossible; empty when there is none."""

    def number(value: object) -> bool:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]

    def numbers(values: object, kinds: tuple[type, ...]) -> bool:
        return isinstance(values, list) and all(type(v) in kinds and number(v) and v >= 0 for v in values)

    step = progress.step if type(progress.step) is int else -1
    right = {
        "step": folder_name(step) == name,
        "sampler": numbers(progress.sampler, (int,)),
        "weights": numbers(progress.weights, (int, float)) and sum(progress.weights) > 0,
        "seconds": number(progress.seconds) and progress.seconds >= 0,
        "training_seconds": number(progress.training_seconds) and progress.training_seconds >= 0,
        "best_score": number(progress.best_score),
        "best_step": type(progress.best_step) is int and 0 <= progress.best_step <= step,
        "run": isinstance(progress.run, str),
        "validated": isinstance(progress.validated, bool),
    }
    return next((field.name for field in fields(progress) if not right[field.name]), "")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        os.close(open_run_file(path))
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing.") from error
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} is damaged: {error}.") from error
    return tensors


def _check(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Hold names, shapes and types of tensors against those that they replace."""
    for name in sorted(tensors.keys() ^ expected.keys()):
        raise DamagedError(f"{path} does not fit: {name} is {'not in it' if name in expected else 'unknown'}.")
    for name, tensor in tensors.items():
        found, wanted = _shape(tensor), _shape(expected[name])
        if found != wanted:
            raise DamagedError(f"{path} does not fit: {name} is {found}, not {wanted}.")


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _expand(
    path: Path, moments: Mapping[str, Tensor], parameters: Mapping[str, Tensor], used_rows: Tensor
) -> dict[str, Tensor]:
    """Check AdamW's moments, and give those of some rows of a parameter a row for each."""
    known = {f"{kind}.{name}" for name in parameters for kind in MOMENTS}
    state: dict[str, Tensor] = {}
    for key, value in moments.items():
        kind, _, name = key.partition(".")
        if kind == "rows" and name in parameters:
            continue
        if key not in known:
            raise DamagedError(f"{path} does not fit: {key} is unknown.")
        shape = torch.Size() if kind == "step" else parameters[name].shape
        rows = moments.get(f"rows.{name}", used_rows)
        if value.shape != shape and value.dim() and value.shape[1:] == shape[1:]:
            if rows.shape != value.shape[:1] or rows.dtype != torch.int64 or not _are_rows(rows, shape[0]):
                raise DamagedError(f"{path} does not fit the data of this run: {key} has {len(value)} rows.")
            value = torch.zeros(shape, dtype=value.dtype).index_copy_(0, rows, value)
        if value.shape != shape or value.dtype != torch.float32:
            raise DamagedError(f"{path} does not fit: {key} is {_shape(value)}, not float32{list(shape)}.")
        state[key] = value
    # A parameter that takes no part in the loss has no moments; one that has some has all.
    named = {key.partition(".")[2] for key in state}
    for key in sorted({f"{kind}.{name}" for name in named for kind in MOMENTS} - state.keys()):
        raise DamagedError(f"{path} does not fit: {key} is not in it.")
    if not state:
        raise DamagedError(f"{path} does not fit: it has no moments of the optimizer.")
    return state


def _are_rows(rows: Tensor, count: int) -> bool:
    return bool(((rows >= 0) & (rows < count)).all()) and len(rows.unique()) == len(rows)
