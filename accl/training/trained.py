"""The model of a run with the weights of a checkpoint, for use after training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from accl.config import Config
from accl.data.architectures import RANDOM
from accl.data.cache import Cache, cache_folder
from accl.data.prepared import PreparedData, prepare
from accl.data.questions import Question
from accl.data.tokenizer import Tokenizer
from accl.data.tokens import Assembler, tokenise
from accl.errors import AbsentError, AcclError, DamagedError, DataError, RunError
from accl.method.model import ContrastiveCurriculumModel, ModelOutput
from accl.store.files import open_run_file
from accl.store.manifest import MODEL, folder_name
from accl.store.provenance import read_provenance
from accl.store.reader import TASKS, Task, query, read_tasks
from accl.store.rundir import RunDir
from accl.store.state import read_state
from accl.training import checkpoint
from accl.training.device import Placement, place, to_device
from accl.training.encoder import load_encoder
from accl.training.setup import CPU_CHUNK_ROWS, make_tokenizer

Which = Literal["best", "last"]

# The last matrix of the classification head: one row per option, or one for all (`per_option`).
_SCORES = "classifier.4.weight"


@dataclass
class TrainedModel:
    """The model of a run, in evaluation mode.

    Attributes:
        tasks: K tasks that it learnt, in index order.
        model: on the device of ``placement``.
        step: of its weights. which: whether validation chose them, or they are the last.
        folder: of the checkpoint.
        data: the questions that it learnt from; None where they are not to be had, and ``no_data`` says why.
    """

    run: RunDir
    config: Config
    tasks: tuple[Task, ...]
    tokenizer: Tokenizer
    model: ContrastiveCurriculumModel
    placement: Placement
    step: int
    which: Which
    folder: Path
    data: PreparedData | None
    no_data: str

    @property
    def task_index(self) -> dict[str, int]:
        """Indices of the tasks by name."""
        return {task.name: task.index for task in self.tasks}

    def assemble(self, questions: Sequence[Question], cache: Cache | None = None) -> Assembler:
        """Tokenise questions for this model; one of a task that it did not learn has none.

        Raises:
            DataError: they have another number of options than its head gives scores to.
        """
        blob = tokenise(questions, self.task_index, self.tokenizer, cache)
        if self.model.head == "single_sequence" and blob.choices != self.model.choices:
            what = f"The head of {self.run.id} scores {self.model.choices} options, and there are {blob.choices}."
            raise DataError(what, "With model.head=per_option a model scores any number of options.")
        self.model.choices = blob.choices
        chunk_rows = CPU_CHUNK_ROWS if self.placement.device.type == "cpu" else None
        return Assembler(blob, self.tokenizer, self.config.model.head, self.config.data.max_length, chunk_rows)

    @torch.no_grad()
    def forward(self, assembler: Assembler, questions: NDArray[np.int64]) -> ModelOutput:
        """Return the model's output for questions of an assembler, options in their own order."""
        batch = to_device(assembler.batch(questions), self.placement.device)
        with self.placement.autocasting():
            output: ModelOutput = self.model(batch.chunks, batch.inverse_perm_N, batch.labels.task_B)
        return output


def load_trained(run: RunDir, which: Which, phase: Callable[[str], None]) -> TrainedModel:
    """Load the model of a run with the weights that validation chose, or with the last ones, on a GPU if there is one.

    Args:
        phase: called with a few words before each slow part.

    Raises:
        AbsentError: there is no such checkpoint (yet).
        DamagedError: it is damaged.
        RunError: encoder or tokenizer are not what they were.
        ConfigError, DataError, HubError: the encoder, or the questions that a tokenizer was trained on, are not to be
            had.
    """
    config = run.load_config()
    folder, step = _find(run, which)
    [rows] = query(run.database, (TASKS, ()))
    tasks = tuple(read_tasks(rows))
    facts = read_provenance(run)
    phase("loading questions")
    data, no_data = _questions(config, facts.get("data", {}))
    if data is None and config.model.name.startswith(RANDOM):  # its tokenizer was trained on them
        raise DataError(no_data, "They are needed for the tokenizer, which was trained on them.")
    phase("loading the encoder")
    tokenizer = make_tokenizer(config, data.splits.train if data else [], Cache(cache_folder()))
    if facts.get("model", {}).get("tokenizer", tokenizer.fingerprint) != tokenizer.fingerprint:
        raise RunError(f"The tokenizer of {run.id} is not the one it was trained with.", "Restore the model's folder.")
    placement = place("cpu" if config.train.device == "cpu" else "auto", config.train.precision)
    encoder = load_encoder(config.model.name, config.model.revision, vocab_size=tokenizer.vocab_size)
    model = ContrastiveCurriculumModel(
        encoder.module,
        hidden=encoder.hidden_size,
        tasks=len(tasks),
        choices=_rows_of(folder / MODEL, _SCORES),
        contrastive_dim=config.model.contrastive_dim,
        head=config.model.head,
        task_embedding=config.model.task_embedding,
    )
    checkpoint.load_model(folder, model)
    model.to(placement.device).eval()
    return TrainedModel(run, config, tasks, tokenizer, model, placement, step, which, folder, data, no_data)


def _find(run: RunDir, which: Which) -> tuple[Path, int]:
    """Return the folder and the step of a checkpoint."""
    last = read_state(run).checkpoint_last
    if not last:
        raise AbsentError(f"{run.id} has no checkpoint yet.", f"See how far it is: accl show {run.typed}")
    progress = checkpoint.load_progress(run.checkpoints / last)
    if which == "last":
        return run.checkpoints / last, progress.step
    if not progress.best_step:
        hint = "Take the last weights: --checkpoint last"
        raise AbsentError(f"{run.id} has not been validated up to its last checkpoint.", hint)
    return run.checkpoints / folder_name(progress.best_step), progress.best_step


def _questions(config: Config, recorded: Mapping[str, Any]) -> tuple[PreparedData | None, str]:
    """Return the questions that a run learnt from, or why they are not to be had.

    Args:
        recorded: of the provenance; a relative data.path is relative to the folder that the run was started in.
    """
    source, folder = config.data, str(recorded.get("folder", ""))
    path = folder if source.source == "folder" and os.path.isdir(folder) else source.path
    try:
        data = prepare(source.source, path, source.revision, source.protocol, source.split_seed)
    except AcclError as error:
        return None, error.what
    if recorded.get("fingerprint", data.corpus.fingerprint) != data.corpus.fingerprint:
        return None, f"The questions in {path} are not those that the run learnt from."
    return data, ""


def _rows_of(path: Path, name: str) -> int:
    """Return the number of rows of a tensor in a checkpoint.

    Raises:
        DamagedError: there is no such tensor.
    """
    try:
        os.close(open_run_file(path))  # nothing but a file is opened
        with safe_open(path, "pt") as tensors:
            return int(tensors.get_slice(name).get_shape()[0])
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing.") from error
    except (SafetensorError, OSError, IndexError) as error:
        raise DamagedError(f"{path} is damaged: {error}.") from error
