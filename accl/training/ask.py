"""A run's model on one question: the probabilities of its options, and what it stands near to.

Nearness is the cosine of two embeddings: of the contrastive head where the run has trained it, else of the pooled
encoder features. A task stands where the mean of its training questions does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from accl.data.cache import Cache, cache_folder
from accl.data.prepared import PreparedData
from accl.data.questions import Question
from accl.errors import ConfigError, DamagedError
from accl.method.model import ModelOutput
from accl.store import manifest
from accl.store.rundir import RunDir
from accl.text import printable
from accl.training.evaluate import outputs
from accl.training.testing import EVALUATION_BATCHES
from accl.training.trained import TrainedModel, Which, load_trained

NEAREST = 5
NONE = "none"


@dataclass(frozen=True)
class Landmarks:
    """Training questions and tasks that a question may stand near to.

    Attributes:
        questions: M training questions that have a task. z_ME: their unit embeddings.
        task_M: index of the task of each.
        mean_KE: unit embeddings of the tasks, zero for one without questions.
    """

    questions: Sequence[Question]
    z_ME: Tensor
    task_M: NDArray[np.int64]
    mean_KE: Tensor


def ask(
    run: RunDir,
    text: str,
    options: Sequence[str],
    task: str,
    which: Which,
    near: bool,
    phase: Callable[[str], None],
) -> dict[str, Any]:
    """Answer a question.

    Args:
        task: that the head is told, where it sees one: a name, `NONE`, or empty for the nearest task.
        which: checkpoint. near: whether to look for the nearest tasks and training questions.
        phase: called with a few words before each slow part.

    Returns:
        probabilities of the options, the task that the head was told and why, nearest ``tasks`` and ``questions`` with
        their cosines, nearest first, and what was compared.

    Raises:
        ConfigError: the run did not learn a task of that name.
        AcclError: as `load_trained`, or the options do not fit the head.
    """
    trained = load_trained(run, which, phase)
    cache = Cache(cache_folder())
    names = [each.name for each in trained.tasks]
    if task not in ("", NONE, *names):
        raise ConfigError(f"{run.id} did not learn a task named {task!r}.", f"Its tasks: {printable(', '.join(names))}")
    landmarks = None
    if near and trained.data is not None:
        landmarks = _landmarks(trained, trained.data, cache, phase)
    phase("answering")
    assembler = trained.assemble([Question("asked", "", text, tuple(options), 0)])
    one = np.zeros(1, np.int64)
    output = trained.forward(assembler, one)
    z_E = _pick(trained)(output)[0][0]
    tasks, questions = _nearest(landmarks, z_E, names) if landmarks else ([], [])
    told, why = task, "as asked for"
    if not trained.config.model.task_embedding:
        told, why = NONE, "the head of this run sees no task"
    elif not task:
        told = tasks[0]["task"] if tasks else NONE
        unknown = "the nearest one is not known" if near else "the nearest one was not looked for; --task names one"
        why = "the nearest one" if tasks else unknown
    index = trained.task_index.get(told, -1)
    with torch.no_grad(), trained.placement.autocasting():
        logits_BC = trained.model.classify(output.pooled_ND, torch.tensor([index], device=output.pooled_ND.device))
    truncated = int(assembler.lengths(one)[0]) >= trained.config.data.max_length
    return {
        "step": trained.step,
        "probabilities": logits_BC[0].double().softmax(-1).tolist(),
        "task": told,
        "why": why,
        "tasks": tasks,
        "questions": questions,
        "space": _space(trained),
        "truncated": trained.config.data.max_length if truncated else None,
        "no_neighbours": trained.no_data if near else "",
        "warnings": cache.warnings,
    }


def _space(trained: TrainedModel) -> str:
    """Return what embeddings are compared: ``contrastive`` or ``features``."""
    return "contrastive" if trained.config.loss.contrastive_weight > 0 else "features"


def _pick(trained: TrainedModel) -> Callable[[ModelOutput], tuple[Tensor]]:
    if _space(trained) == "contrastive":
        return lambda output: (output.z_BE.float(),)
    return lambda output: (F.normalize(output.features_BD.float(), dim=-1),)


def _landmarks(trained: TrainedModel, data: PreparedData, cache: Cache, phase: Callable[[str], None]) -> Landmarks:
    questions = data.splits.train
    z_ME = torch.from_numpy(
        cache.load_or_make(
            f"embeddings-{_key(trained, questions)}",
            make=lambda: _embed(trained, questions, phase),
            encode=lambda z: z.tobytes(),
            decode=lambda content: np.frombuffer(content, np.float32).reshape(len(questions), -1).copy(),
        )
    )
    task_M = np.array([trained.task_index[q.task] for q in questions], np.int64)
    sum_KE = torch.zeros(len(trained.tasks), z_ME.shape[1]).index_add_(0, torch.from_numpy(task_M), z_ME)
    return Landmarks(questions, z_ME, task_M, F.normalize(sum_KE, dim=-1))


def _embed(trained: TrainedModel, questions: Sequence[Question], phase: Callable[[str], None]) -> NDArray[np.float32]:
    assembler = trained.assemble(questions)
    [z_ME] = outputs(
        lambda positions: trained.forward(assembler, positions),
        assembler,
        np.arange(len(questions)),
        _pick(trained),
        batch_size=EVALUATION_BATCHES * trained.config.train.batch_size,
        progress=lambda done: phase(f"embedding training questions, {done:,} of {len(questions):,}"),
    )
    return np.asarray(z_ME.cpu().numpy())


def _key(trained: TrainedModel, questions: Sequence[Question]) -> str:
    """Name what embeddings are made from: weights, tokenizer, questions, and how they are read."""
    digest = hashlib.blake2b(digest_size=12)
    try:
        weights = manifest.read(trained.folder)[manifest.MODEL].sha256
    except (FileNotFoundError, DamagedError):  # of an earlier version, which kept no checksums
        with open(trained.folder / manifest.MODEL, "rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
    config, device = trained.config, trained.placement
    facts = (weights, trained.tokenizer.fingerprint, config.model.head, config.data.max_length, _space(trained))
    digest.update(repr((*facts, device.device.type, str(device.autocast))).encode())
    for q in questions:
        digest.update("\x1f".join((q.task, q.text, *q.options, "\x1e")).encode())
    return digest.hexdigest()


def _nearest(landmarks: Landmarks, z_E: Tensor, names: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return the nearest tasks and the nearest training questions, each with its cosine."""
    z_E = z_E.float().cpu()
    task_K, question_M = landmarks.mean_KE @ z_E, landmarks.z_ME @ z_E
    task_K[landmarks.mean_KE.norm(dim=-1) == 0] = -torch.inf  # no training questions
    known = int(torch.isfinite(task_K).sum())
    tasks = [
        {"task": names[t], "cosine": value}
        for value, t in zip(*(part.tolist() for part in task_K.topk(min(NEAREST, known))), strict=True)
    ]
    top = question_M.topk(min(NEAREST, len(question_M)))
    questions = []
    for value, at in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        q = landmarks.questions[at]
        texts = {"id": q.id, "task": q.task, "text": q.text, "options": list(q.options)}
        questions.append({**texts, "answer": q.answer, "cosine": value})
    return tasks, questions
