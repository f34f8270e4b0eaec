"""Transformers' own Trainer as a contestant: the same model, questions and batch size, its defaults otherwise.

It trains the cross-entropy alone, so what the `baseline` recipe trains. It is given what its users would give it:
tokenised questions, batches of like length, padding to the longest of a batch, bf16 on a GPU, the fused optimizer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from accl.bench.floor import synchronise
from accl.bench.ours import counted, facts_of, make_room, memory_used, prepare, reset_memory
from accl.bench.process import WINDOW, Entry, Parent, Ready
from accl.bench.work import lengths_of, rows_of, shape_of
from accl.config import Config
from accl.data.sampler import Draw
from accl.data.tokens import Assembler
from accl.method.model import ContrastiveCurriculumModel, mean_pool

Item = dict[str, Any]

# More than any race has; the parent says when to end.
ENDLESS_EPOCHS = 10_000


class PeerModel(nn.Module):
    """accl's model as the Trainer takes it: names to a loss, without the contrastive embeddings.

    Args:
        model: encoder and heads.
    """

    def __init__(self, model: ContrastiveCurriculumModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, task: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of B questions.

        Args:
            input_ids, attention_mask: N x L, the options of a question next to each other where it has a row each.
            task: B, -1 for none. labels: B.
        """
        model = self.model
        # The encoder as transformers runs it, whatever accl runs in its stead.
        hidden_NLD = model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        joined_ND = mean_pool(hidden_NLD, attention_mask)
        if model.task_embedding is not None:
            table = model.task_embedding
            task_BD = table(torch.where(task >= 0, task, table.num_embeddings - 1)).to(joined_ND.dtype)
            task_ND = task_BD.repeat_interleave(model.sequences_per_question, dim=0)
            joined_ND = torch.cat([joined_ND, task_ND], dim=-1)
        logits_BC = model.classifier(joined_ND).view(len(task), model.choices)
        return {"loss": F.cross_entropy(logits_BC.float(), labels), "logits": logits_BC}


class Questions(Dataset[Item]):
    """The questions of some draws, as token ids. ``input_ids`` is a question's longest row: the Trainer groups by it.

    Made beforehand, as a tokenised data set is: accl cuts its inputs from the token blob while it is timed.
    """

    def __init__(self, assembler: Assembler, draws: Sequence[Draw]) -> None:
        self._items: list[Item] = []
        for draw in draws:
            batch = assembler.batch(draw.questions, draw.option_order)
            rows = rows_of(batch)
            each = len(rows) // len(draw.questions)
            for i, (task, label) in enumerate(zip(batch.task, batch.answer, strict=True)):
                own = rows[each * i : each * (i + 1)]
                self._items.append(
                    {"input_ids": max(own, key=len), "rows": own, "task": int(task), "labels": int(label)}
                )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]


@dataclass(frozen=True)
class Collator:
    """Pads the rows of some questions to their longest."""

    pad_id: int

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, N x L; ``task`` and ``labels``, B."""
        rows: list[NDArray[np.int64]] = [row for item in items for row in item["rows"]]
        ids_NL = np.full((len(rows), max(map(len, rows))), self.pad_id, np.int64)
        mask_NL = np.zeros_like(ids_NL)
        for i, row in enumerate(rows):
            ids_NL[i, : len(row)] = row
            mask_NL[i, : len(row)] = 1
        return {
            "input_ids": torch.from_numpy(ids_NL),
            "attention_mask": torch.from_numpy(mask_NL),
            "task": torch.tensor([item["task"] for item in items]),
            "labels": torch.tensor([item["labels"] for item in items]),
        }


@dataclass
class Compilations:
    """Counts torch's compilations in this process, and the seconds they took."""

    number: int = 0
    seconds: float = 0.0
    _began: float = field(default=0.0, repr=False)

    def watch(self) -> None:
        """Begin to count."""
        from torch._dynamo.callback import on_compile_end, on_compile_start

        on_compile_start(self._start)
        on_compile_end(self._end)

    def _start(self, _: object) -> None:
        self._began = time.monotonic()

    def _end(self, _: object) -> None:
        self.number += 1
        self.seconds += time.monotonic() - self._began


class TakesTurns(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Lets the Trainer run an epoch, which is one window, each time the parent asks for one.

    Whole epochs warm it up: at least one, and until one has passed without any compilation.
    """

    def __init__(self, entry: Entry, parent: Parent, bench: Any, draws: list[Draw], compilations: Compilations) -> None:
        self._entry, self._parent, self._bench, self._draws = entry, parent, bench, draws
        self._compilations = compilations
        self._device = bench.placement.device
        self._shape = shape_of(bench)
        self._lengths_N = lengths_of(bench.assembler, draws)
        self._ready = False
        self._warmup_began = time.monotonic()
        self._began, self._compiled_before = 0.0, 0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._compiled_before = self._compilations.number
        reset_memory(self._device)
        self._began = time.monotonic()

    def on_epoch_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        synchronise(self._device)
        ended = time.monotonic()
        compiled = self._compilations.number - self._compiled_before
        if self._ready:
            window = counted(
                self._shape,
                self._began,
                ended,
                memory_used(self._device),
                self._draws,
                self._lengths_N,
                compilations=compiled,
            )
            self._parent.send(window)
            make_room(self._device)
        elif state.global_step >= self._entry.warmup and not compiled:
            self._ready = True
            self._parent.send(Ready(self._facts(), state.global_step, ended - self._warmup_began))
        else:
            seconds = self._compilations.seconds
            self._parent.say(f"{state.global_step} steps, {self._compilations.number} compilations in {seconds:.1f} s")
            return
        if self._parent.command() != WINDOW:
            control.should_training_stop = True

    def _facts(self) -> dict[str, Any]:
        facts = facts_of(self._bench, self._shape)
        if self._entry.compile:
            from torch._dynamo.utils import counters

            breaks = sum(counters["graph_break"].values())
            compiled = {"compilations": self._compilations.number, "compile_seconds": self._compilations.seconds}
            facts |= compiled | {"graph_breaks": breaks}
        return facts


def run(entry: Entry, parent: Parent) -> None:
    """The process of a peer as a contestant."""
    bench, course = prepare(entry, parent)
    draws = course.draws()
    compilations = Compilations()
    if entry.compile:
        compilations.watch()
    questions = Questions(bench.assembler, draws)
    with tempfile.TemporaryDirectory(prefix="accl-bench-") as folder:
        trainer = Trainer(
            model=PeerModel(bench.model),
            args=arguments(entry.config, folder, len(draws[0].questions), bench.placement.autocast, entry.compile),
            train_dataset=questions,
            data_collator=Collator(bench.assembler.pad_id),
            callbacks=[TakesTurns(entry, parent, bench, draws, compilations)],
        )
        parent.say("compiling and warming up" if entry.compile else "warming up")
        trainer.train()


def arguments(
    config: Config, folder: str, batch_size: int, autocast: torch.dtype | None, compiled: bool
) -> TrainingArguments:
    """The Trainer's defaults, but for what makes it the same work as accl's, and for what it would write."""
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch_size,
        num_train_epochs=ENDLESS_EPOCHS,
        learning_rate=config.optim.lr,
        weight_decay=config.optim.weight_decay,
        max_grad_norm=config.optim.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=autocast == torch.bfloat16,
        use_cpu=not torch.cuda.is_available() or config.train.device == "cpu",
        train_sampling_strategy="group_by_length",
        torch_compile=compiled,
        seed=config.train.seed,
        remove_unused_columns=False,  # the collator needs a question's rows, which are not the model's to see
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
