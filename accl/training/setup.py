"""From a configuration to everything that a loop needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from accl.config import Config
from accl.data.hub import cache_folder
from accl.data.questions import Question
from accl.data.sampler import TaskSampler
from accl.data.sources import load_corpus
from accl.data.splits import Splits, split
from accl.data.subjects import Subject
from accl.data.tokenizer import Tokenizer, load_tokenizer, trained_tokenizer
from accl.data.tokens import Assembler, TokenBlob, tokenise
from accl.data.trivial_baselines import trivial_baselines
from accl.errors import ConfigError, DataError
from accl.kernels.triton.vocabulary import CompactEmbedding
from accl.method.contrastive import MemoryBank
from accl.method.model import ContrastiveCurriculumModel
from accl.training.curriculum import CurriculumState
from accl.training.device import Placement, place
from accl.training.encoder import load_encoder, resolve_model_folder
from accl.training.optim import warmup_steps

# Tokens that a tokenizer trained for an encoder from scratch may have, if the encoder has room for them: so many of
# DeBERTa-v3's 128,100 give MMLU about the length it has under DeBERTa-v3's own tokenizer.
SCRATCH_VOCABULARY = {"tiny": 8192, "deberta-v3-base": 32768, "roberta-base": 32768}
# Rows that share a length on the CPU: enough for its matrix products, few enough to be alike.
CPU_CHUNK_ROWS = 16


@dataclass
class Workbench:
    """What a run works with. ``positions``: split name -> positions of its questions among all tokenised ones."""

    config: Config
    subjects: tuple[Subject, ...]
    questions: list[Question]
    positions: dict[str, NDArray[np.int64]]
    floors: dict[str, float]
    blob: TokenBlob
    assembler: Assembler
    sampler: TaskSampler
    placement: Placement
    model: ContrastiveCurriculumModel
    bank: MemoryBank | None
    bank_start: int
    curriculum: CurriculumState
    steps_per_epoch: int
    total_steps: int
    facts: dict[str, Any]
    notes: list[tuple[str, str, str]]

    @property
    def tasks(self) -> int:
        """K."""
        return len(self.subjects)


def build(config: Config, phase: Callable[[str], None]) -> Workbench:
    """Load questions and encoder, and put the parts together. ``phase`` is told what is going on.

    Raises:
        DataError, HubError, ConfigError, DeviceError: what a user can mend, with how.
    """
    placement = place(config.train.device, config.train.precision)
    notes = [("warning", "device", note) for note in placement.notes]

    phase("loading questions")
    data = config.data
    corpus = load_corpus(data.source, data.path, data.revision)
    splits = split(corpus, data.protocol, data.split_seed)
    for name, part in splits.named().items():
        if not part:
            raise DataError(f"The {name} split is empty.", "Give more questions, or another data.protocol.")
    if splits.leaked:
        notes.append(
            ("warning", "data", f"{splits.leaked} evaluated questions stand word for word in train (the source's own)")
        )

    questions = [q for part in splits.named().values() for q in part] + splits.auxiliary
    positions = _positions(splits)
    measured = {
        f"{name}/{kind}": value
        for name in ("validation", "test")
        for kind, value in trivial_baselines(splits.train, splits.named()[name]).items()
    }

    phase("tokenising")
    tokenizer = _tokenizer(config, splits.train)
    blob = tokenise(questions, corpus.task_index, tokenizer, cache_folder())
    # On a GPU a few long chunks are worse than some padding; on a CPU every padded token costs.
    chunk_rows = CPU_CHUNK_ROWS if placement.device.type == "cpu" else None
    assembler = Assembler(blob, tokenizer, config.model.head, data.max_length, chunk_rows)
    if config.model.head == "single_sequence":
        notes.append(
            (
                "info",
                "head",
                "model.head=single_sequence learns mostly which letter is frequent: compare with the floors",
            )
        )

    phase("loading the encoder")
    torch.manual_seed(config.train.seed)
    encoder = load_encoder(config.model.name, config.model.revision, vocab_size=tokenizer.vocab_size)
    if encoder.max_length is not None and data.max_length > encoder.max_length:
        raise ConfigError(
            f"data.max_length={data.max_length} is more than the {encoder.max_length} tokens that the encoder reads.",
            f"Try: --set data.max_length={encoder.max_length}",
        )
    if not encoder.pretrained:
        notes.append(("warning", "model", f"{encoder.description}: random weights, nothing pretrained"))
    parameters = sum(p.numel() for p in encoder.module.parameters())
    if config.train.backend != "reference":
        module: Any = encoder.module
        used = torch.from_numpy(assembler.used_tokens())
        module.set_input_embeddings(CompactEmbedding(module.get_input_embeddings(), used))
    model = ContrastiveCurriculumModel(
        encoder.module,
        hidden=encoder.hidden_size,
        tasks=len(corpus.subjects),
        choices=blob.choices,
        contrastive_dim=config.model.contrastive_dim,
        head=config.model.head,
        task_embedding=config.model.task_embedding,
    ).to(placement.device)

    train = positions["train"]
    steps_per_epoch = -(-len(train) // config.train.batch_size)
    total_steps = config.train.max_steps or max(1, round(config.train.epochs * steps_per_epoch))
    per_task = config.sampler.questions_per_task
    curriculum = CurriculumState(
        config.curriculum,
        [subject.name for subject in corpus.subjects],
        np.bincount(blob.task[train], minlength=len(corpus.subjects)),
        steps_per_epoch,
        encoder.hidden_size,
        None if per_task is None else config.train.batch_size // per_task,
        placement.device,
    )
    idle = curriculum.inactive_reason(total_steps)
    if idle is not None:
        notes.append(("warning", "curriculum", f"curriculum.policy={config.curriculum.policy} never acts: {idle}"))
    use_bank = config.memory_bank.size > 0 and config.loss.contrastive_weight > 0
    start = config.memory_bank.start_step
    return Workbench(
        config=config,
        subjects=corpus.subjects,
        questions=questions,
        positions=positions,
        floors=measured,
        blob=blob,
        assembler=assembler,
        sampler=make_sampler(config, blob, positions, len(corpus.subjects), steps_per_epoch),
        placement=placement,
        model=model,
        bank=MemoryBank(len(corpus.subjects), config.memory_bank.size, config.model.contrastive_dim).to(
            placement.device
        )
        if use_bank
        else None,
        bank_start=warmup_steps(config.optim, total_steps) if start is None else start,
        curriculum=curriculum,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        facts={
            "data": {
                "source": corpus.source,
                "revision": corpus.revision,
                "fingerprint": corpus.fingerprint,
                "parts": {name: len(part) for name, part in corpus.parts.items()},
                "splits": {name: len(part) for name, part in positions.items()},
            },
            "model": {
                "name": config.model.name,
                "revision": config.model.revision,
                "description": encoder.description,
                "pretrained": encoder.pretrained,
                "parameters": parameters
                + sum(p.numel() for n, p in model.named_parameters() if not n.startswith("encoder.")),
                "tokenizer": tokenizer.fingerprint,
            },
            "device": placement.describe(),
        },
        notes=notes,
    )


def _positions(splits: Splits) -> dict[str, NDArray[np.int64]]:
    positions, start = {}, 0
    for name, part in (*splits.named().items(), ("auxiliary", splits.auxiliary)):
        positions[name] = np.arange(start, start + len(part))
        start += len(part)
    return positions


def _tokenizer(config: Config, train: list[Question]) -> Tokenizer:
    """The encoder's own tokenizer, or one trained on the training questions."""
    if config.model.name.startswith("random:"):
        texts = [part for q in train for part in (q.text, *q.options)]
        # An unknown architecture is refused where the encoder is made, with the names that there are.
        size = SCRATCH_VOCABULARY.get(config.model.name.removeprefix("random:"), min(SCRATCH_VOCABULARY.values()))
        return trained_tokenizer(texts, size, cache_folder())
    # The tokenizers library would otherwise warn of forks, and use every core of a shared machine.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    return load_tokenizer(resolve_model_folder(config.model.name, config.model.revision))


def make_sampler(
    config: Config, blob: TokenBlob, positions: dict[str, NDArray[np.int64]], tasks: int, steps_per_epoch: int
) -> TaskSampler:
    """The sampler of a configuration, over the training questions in ``positions``."""
    train = positions["train"]
    pools = [train[blob.task[train] == t] for t in range(tasks)]
    wanted = config.sampler.auxiliary_questions
    return TaskSampler(
        pools,
        batch_size=config.train.batch_size,
        questions_per_task=config.sampler.questions_per_task,
        seed=config.train.seed,
        choices=blob.choices,
        permute_options=config.data.permute_options,
        auxiliary=positions["auxiliary"],
        auxiliary_questions=config.train.batch_size if wanted is None else wanted,
        max_repeats=config.curriculum.max_repeats,
        steps_per_epoch=steps_per_epoch,
    )
