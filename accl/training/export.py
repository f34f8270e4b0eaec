"""The model of a run as a folder that plain transformers loads, with the heads beside it and a model card.

::

    DIR/
      config.json, model.safetensors          the encoder: AutoModel.from_pretrained(DIR)
      tokenizer.json, tokenizer_config.json   its tokenizer: AutoTokenizer.from_pretrained(DIR)
      heads.safetensors, heads.json           the heads, and what they are
      README.md                               the model card (`accl.training.card`)
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from accl.data.questions import Question, letter
from accl.errors import RunError
from accl.store.questions import Question as Answered
from accl.store.questions import read_questions
from accl.store.rundir import RunDir
from accl.training.card import write_card
from accl.training.plain_tokenizer import plain_tokenizer
from accl.training.tensorfile import write_tensors
from accl.training.trained import TrainedModel, Which, load_trained

FORMAT = 1
HEADS, HEADS_JSON = "heads.safetensors", "heads.json"
SAMPLE = 500  # questions, those that were not truncated, whose ids are compared with those of training
_ENCODER = "encoder."


def export(run: RunDir, folder: Path, which: Which, phase: Callable[[str], None]) -> dict[str, Any]:
    """Write the model of a run to a new folder.

    Args:
        folder: does not exist, or is empty. which: checkpoint. phase: called with a few words before each slow part.

    Returns:
        the step of the weights, the files by name with their sizes, and how many questions of a sample get the ids
        that training gave them.

    Raises:
        RunError: the folder cannot be written, or is not empty.
        AcclError: as `load_trained`.
    """
    trained = load_trained(run, which, phase)
    phase("writing")
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir()
        checked = _write(trained, partial)
        os.rename(partial, folder)  # over an empty folder, and over no other
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(f"{folder} cannot be written ({error.strerror}).", "Choose a new folder.") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return {"step": trained.step, "files": files, **checked}


def _write(trained: TrainedModel, folder: Path) -> dict[str, int]:
    encoder: Any = trained.model.encoder
    encoder.save_pretrained(str(folder))
    tokenizer = plain_tokenizer(trained.tokenizer, trained.config.data.max_length)
    tokenizer.save_pretrained(str(folder))
    heads = {name: t for name, t in trained.model.state_dict().items() if not name.startswith(_ENCODER)}
    write_tensors(folder / HEADS, heads)
    (folder / HEADS_JSON).write_text(json.dumps(_described(trained, heads), indent=2) + "\n", encoding="utf-8")
    checked = _check_ids(trained, tokenizer)
    write_card(trained, folder / "README.md", checked)
    return checked


def _described(trained: TrainedModel, heads: dict[str, Tensor]) -> dict[str, Any]:
    """Say what the heads are, so that they can be used without accl."""
    model, config = trained.model, trained.config
    return {
        "format": FORMAT,
        "head": model.head,
        "options": None if model.head == "per_option" else model.choices,
        "hidden_size": model.contrastive_head.in_features,
        "contrastive_dim": config.model.contrastive_dim,
        "max_length": config.data.max_length,
        "task_embedding": config.model.task_embedding,
        "tasks": [task.name for task in trained.tasks],
        "pooling": "mean of last_hidden_state over the tokens of attention_mask",
        "tensors": {
            name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
            for name, tensor in sorted(heads.items())
        },
    }


def input_texts(head: str, text: str, options: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of texts that the encoder reads for a question: one pair, or one for each option."""
    if head == "per_option":
        return [(text, option) for option in options]
    return [(text, " ".join(f"{letter(index)}. {option}" for index, option in enumerate(options)))]


def _check_ids(trained: TrainedModel, tokenizer: Any) -> dict[str, int]:
    """Count the questions of a sample for which the plain tokenizer gives the ids that training gave the encoder."""
    asked = _sample(trained.run)
    if not asked:
        return {"sampled": 0, "equal": 0}
    names = [task.name for task in trained.tasks]
    questions = [Question(q.id, names[q.task], q.text, tuple(q.options), q.answer) for q in asked]
    assembler = trained.assemble(questions)
    fit = np.flatnonzero(assembler.lengths(np.arange(len(questions))) < trained.config.data.max_length)
    equal = 0
    for index in fit:
        question = questions[index]
        pairs = input_texts(trained.model.head, question.text, question.options)
        ids = tokenizer([first for first, _ in pairs], [second for _, second in pairs])["input_ids"]
        start, length, _ = assembler.segments(np.array([index]))
        rows = [
            [int(i) for at, n in zip(starts, lengths, strict=True) for i in assembler.tokens[at : at + n]]
            for starts, lengths in zip(start.tolist(), length.tolist(), strict=True)
        ]
        equal += rows == ids
    return {"sampled": len(fit), "equal": equal}


def _sample(run: RunDir) -> list[Answered]:
    """Return some of the questions whose texts the run has recorded; none where it has none."""
    for split in ("validation", "test"):
        try:
            questions = read_questions(run, split)
        except RunError:
            continue
        return questions[:: max(1, len(questions) // SAMPLE)][:SAMPLE]
    return []
