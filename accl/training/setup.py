"""From a configuration to the `TrainingContext` that steps work with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from accl.config import Config
from accl.data.architectures import RANDOM, architecture
from accl.data.cache import Cache, cache_folder
from accl.data.fit import check_length, check_tasks
from accl.data.prepared import PreparedData, prepare
from accl.data.questions import Question
from accl.data.sampler import TaskSampler
from accl.data.splits import Splits
from accl.data.tokenizer import Tokenizer, load_tokenizer, trained_tokenizer
from accl.data.tokens import Assembler, TokenBlob, tokenise
from accl.data.trivial_baselines import trivial_baselines
from accl.method.contrastive import MemoryBank
from accl.method.model import ContrastiveCurriculumModel
from accl.training.blueprint import load_by_blueprint
from accl.training.context import Notice, TrainingContext
from accl.training.curriculum import CurriculumState
from accl.training.device import Placement, exclusive_randomness, place
from accl.training.encoder import Encoder, load_encoder, resolve_model_folder
from accl.training.optim import warmup_steps
from accl.training.provenance import DataProvenance, ModelProvenance, Provenance, digest

# Vocabulary of a tokenizer trained for an encoder from scratch: with so many of DeBERTa-v3's 128,100 rows, MMLU is
# about as long as under DeBERTa-v3's own tokenizer. BERT and those that share its vocabulary have room for 30,522.
SCRATCH_VOCABULARY = {"tiny": 8192, "deberta-v3-base": 32768, "roberta-base": 32768}
OTHER_SCRATCH_VOCABULARY = 30_000
# Rows that share a length on the CPU: enough for its matrix products, few enough to be alike.
CPU_CHUNK_ROWS = 16


@dataclass(frozen=True)
class TokenisedData:
    """The questions that a configuration names, and their tokens; nothing changes them.

    Attributes:
        warnings: of the cache. baselines: accuracy of each trivial rule by ``split/rule``.
    """

    data: PreparedData
    tokenizer: Tokenizer
    blob: TokenBlob
    baselines: dict[str, float]
    warnings: tuple[str, ...]


# What runs of one process have loaded, by all that it depends on.
LoadedData = dict[tuple[str | int, ...], TokenisedData]


def build_context(config: Config, phase: Callable[[str], None], loaded: LoadedData | None = None) -> TrainingContext:
    """Load questions and encoder, and put the parts of a run together.

    Args:
        phase: called with a few words before each slow part.
        loaded: questions that other runs of the process have loaded, to which these are added.

    Raises:
        DataError, HubError, ConfigError, DeviceError: a user can mend these, and the message says how.
    """
    placement = place(config.train.device, config.train.precision)
    notices = [Notice("warning", "device", warning) for warning in placement.warnings]
    cache = Cache(cache_folder())
    phase("loading questions")
    tokenised = _load_data(config, cache, phase, {} if loaded is None else loaded)
    data, tokenizer, blob = tokenised.data, tokenised.tokenizer, tokenised.blob
    notices += [Notice("warning", "cache", warning) for warning in tokenised.warnings]
    # On a GPU a few long chunks are worse than some padding; on a CPU every padded token costs.
    chunk_rows = CPU_CHUNK_ROWS if placement.device.type == "cpu" else None
    assembler = Assembler(blob, tokenizer, config.model.head, config.data.max_length, chunk_rows)
    phase("loading the encoder")
    tasks = len(data.corpus.subjects)
    with exclusive_randomness():  # new weights are drawn from torch's default generator
        torch.manual_seed(config.train.seed)
        encoder = _load_encoder(config, tokenizer.vocab_size, cache if _may_skip_layers(config, placement) else None)
        model = ContrastiveCurriculumModel(
            encoder.module,
            hidden=encoder.hidden_size,
            tasks=tasks,
            choices=blob.choices,
            contrastive_dim=config.model.contrastive_dim,
            head=config.model.head,
            task_embedding=config.model.task_embedding,
        )
    model.to(placement.device)

    train = data.positions["train"]
    steps_per_epoch = config.train.steps_per_epoch(len(train))
    total_steps = config.train.total_steps(len(train))
    curriculum = _curriculum(config, data, steps_per_epoch, encoder.hidden_size, placement)
    start = config.memory_bank.start_step
    notices += _notices(config, data, encoder, curriculum, total_steps)
    return TrainingContext(
        config=config,
        subjects=data.corpus.subjects,
        questions=data.questions,
        positions=data.positions,
        baselines=tokenised.baselines,
        blob=blob,
        assembler=assembler,
        sampler=make_sampler(config, blob, data.positions, tasks, steps_per_epoch),
        placement=placement,
        model=model,
        bank=_memory_bank(config, tasks, placement),
        bank_start=warmup_steps(config.optim, total_steps) if start is None else start,
        curriculum=curriculum,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        provenance=_provenance(config, data, blob, encoder, model, curriculum, tokenizer, placement),
        notices=notices,
    )


def _load_data(config: Config, cache: Cache, phase: Callable[[str], None], loaded: LoadedData) -> TokenisedData:
    source, model = config.data, config.model
    named = (source.source, source.path, source.revision, source.protocol, source.split_seed)
    key = (*named, model.name, model.revision)
    data = loaded[key].data if key in loaded else prepare(*named, cache)
    check_tasks(data.train_sizes, config.loss.contrastive_weight, config.curriculum.policy)
    if key not in loaded:
        phase("tokenising")
        tokenizer = make_tokenizer(config, data.splits.train, cache)
        blob = tokenise(data.questions, data.corpus.task_index, tokenizer, cache)
        loaded[key] = TokenisedData(data, tokenizer, blob, _baselines(data.splits), tuple(cache.warnings))
    return loaded[key]


def make_sampler(
    config: Config, blob: TokenBlob, positions: dict[str, NDArray[np.int64]], tasks: int, steps_per_epoch: int
) -> TaskSampler:
    """Return the sampler of a configuration over the training questions in ``positions``."""
    train = positions["train"]
    auxiliary = config.sampler.auxiliary_questions
    return TaskSampler(
        [train[blob.task[train] == t] for t in range(tasks)],
        batch_size=config.train.batch_size,
        questions_per_task=config.sampler.questions_per_task,
        seed=config.train.seed,
        choices=blob.choices,
        permute_options=config.data.permute_options,
        auxiliary=positions["auxiliary"],
        auxiliary_questions=config.train.batch_size if auxiliary is None else auxiliary,
        max_repeats=config.curriculum.max_repeats,
        steps_per_epoch=steps_per_epoch,
    )


def _baselines(splits: Splits) -> dict[str, float]:
    return {
        f"{name}/{rule}": accuracy
        for name in ("validation", "test")
        for rule, accuracy in trivial_baselines(splits.train, splits.named()[name]).items()
    }


def make_tokenizer(config: Config, train: list[Question], cache: Cache) -> Tokenizer:
    """Return the encoder's own tokenizer, or one trained on the training questions."""
    if config.model.name.startswith(RANDOM):
        texts = [part for q in train for part in (q.text, *q.options)]
        size = SCRATCH_VOCABULARY.get(config.model.name.removeprefix(RANDOM), OTHER_SCRATCH_VOCABULARY)
        return trained_tokenizer(texts, size, cache, architecture(config.model.name)["pad_token_id"])
    # The tokenizers library would otherwise warn of forks, and use every core of a shared machine.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    return load_tokenizer(resolve_model_folder(config.model.name, config.model.revision))


def _may_skip_layers(config: Config, placement: Placement) -> bool:
    """Return whether a backend may compute the steps that reads the encoder's parameters and never calls it."""
    return placement.device.type == "cuda" and config.train.backend in ("auto", "packed")


def _load_encoder(config: Config, vocab_size: int, blueprints: Cache | None) -> Encoder:
    """Load the encoder, by its blueprint where there may be one; see `accl.training.blueprint`."""
    name, revision = config.model.name, config.model.revision
    load = partial(load_encoder, name, revision, vocab_size=vocab_size)
    if blueprints is None or name.startswith(RANDOM):
        encoder = load()
    else:
        encoder = load_by_blueprint(resolve_model_folder(name, revision), name, blueprints, load)
    check_length(config.data.max_length, encoder.max_length)
    return encoder


def _curriculum(
    config: Config, data: PreparedData, steps_per_epoch: int, features: int, placement: Placement
) -> CurriculumState:
    per_task = config.sampler.questions_per_task
    return CurriculumState(
        config.curriculum,
        data.task_names,
        data.train_sizes,
        steps_per_epoch,
        features,
        None if per_task is None else config.train.batch_size // per_task,
        placement.device,
    )


def _memory_bank(config: Config, tasks: int, placement: Placement) -> MemoryBank | None:
    if config.memory_bank.size == 0 or config.loss.contrastive_weight == 0:
        return None
    return MemoryBank(tasks, config.memory_bank.size, config.model.contrastive_dim).to(placement.device)


def _notices(
    config: Config, data: PreparedData, encoder: Encoder, curriculum: CurriculumState, total_steps: int
) -> list[Notice]:
    notices = [Notice("warning", "data", warning) for warning in data.warnings(config.sampler.questions_per_task)]
    if config.model.head == "single_sequence":
        prior = "model.head=single_sequence learns mostly which letter is frequent: compare with the floors"
        notices.append(Notice("info", "head", prior))
    if not encoder.pretrained:
        notices.append(Notice("warning", "model", f"{encoder.description}: random weights, nothing pretrained"))
    inactive = curriculum.inactive_reason(total_steps)
    if inactive is not None:
        policy = config.curriculum.policy
        notices.append(Notice("warning", "curriculum", f"curriculum.policy={policy} never acts: {inactive}"))
    return notices


def _provenance(
    config: Config,
    data: PreparedData,
    blob: TokenBlob,
    encoder: Encoder,
    model: ContrastiveCurriculumModel,
    curriculum: CurriculumState,
    tokenizer: Tokenizer,
    placement: Placement,
) -> Provenance:
    corpus = data.corpus
    local = config.data.source == "folder"
    shapes = [f"{name}{list(value.shape)}".encode() for name, value in model.state_dict().items()]
    return Provenance(
        data=DataProvenance(
            source=corpus.source,
            folder=str(Path(config.data.path).expanduser().resolve()) if local else "",
            revision=corpus.revision,
            fingerprint=corpus.fingerprint,
            parts={name: len(part) for name, part in corpus.parts.items()},
            splits={name: len(part) for name, part in data.positions.items()},
            tasks=len(corpus.subjects),
            tokens=digest(*(a.tobytes() for a in (blob.ids, blob.offsets, blob.task, blob.answer))),
        ),
        model=ModelProvenance(
            name=config.model.name,
            revision=config.model.revision,
            description=encoder.description,
            pretrained=encoder.pretrained,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            shapes=digest(*shapes),
            encoder=encoder.settings,
            tokenizer=tokenizer.fingerprint,
        ),
        curriculum={"fixed_weights": curriculum.fixed_weights},
        device=placement.describe(),
    )
