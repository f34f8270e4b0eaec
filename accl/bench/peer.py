"""``python -m accl.bench.peer``: the worker that times transformers' own Trainer.

Model, questions and batch size are accl's, all else the Trainer's defaults. It trains the cross-entropy alone, which is
what the `baseline` recipe trains. It gets what its users would give it: tokenised questions, batches of like length,
padding to the longest of a batch, bf16 on a GPU, the fused optimizer.
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
from torch._dynamo.callback import on_compile_end, on_compile_start
from torch._dynamo.utils import counters
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from accl.bench.device import WindowTimer, free_cached_memory
from accl.bench.protocol import WINDOW, Candidate, Ready
from accl.bench.schedule import Schedule, describe, prepare
from accl.bench.work import lengths_of, rows_of, shape_of
from accl.bench.worker import Parent, serve
from accl.config import Config
from accl.data.sampler import Draw
from accl.data.tokens import Assembler
from accl.method.model import ContrastiveCurriculumModel, mean_pool

Item = dict[str, Any]

# More than any comparison has windows: the parent says when to end.
MAX_EPOCHS = 10_000


class PeerModel(nn.Module):
    """Wrap accl's model in the Trainer's interface: named inputs to a loss, without the contrastive embeddings.

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
        # The encoder as transformers runs it, whatever accl runs in its stead.
        hidden_NLD = self.model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits_BC = self.model.classify(mean_pool(hidden_NLD, attention_mask), task)
        return {"loss": F.cross_entropy(logits_BC.float(), labels), "logits": logits_BC}


class Questions(Dataset[Item]):
    """The questions of some draws as token ids, made beforehand, as a tokenised data set is.

    accl, in contrast, cuts its inputs from the token blob while it is timed. ``input_ids`` is a question's longest
    row: the Trainer groups by it.
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
    """Collator of questions, whose rows are padded to the longest one."""

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
    """Counter of torch's compilations in this process from `watch` on, and of the seconds they took."""

    number: int = 0
    seconds: float = 0.0
    _began: float = field(default=0.0, repr=False)

    def watch(self) -> None:
        """Begin to count."""
        on_compile_start(self._start)
        on_compile_end(self._end)

    def _start(self, _: object) -> None:
        self._began = time.monotonic()

    def _end(self, _: object) -> None:
        self.number += 1
        self.seconds += time.monotonic() - self._began


class WindowCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Callback that has the Trainer run an epoch, which is one window, each time the parent asks for one.

    Whole epochs warm it up: at least one, and until one has passed without any compilation.
    """

    def __init__(
        self, candidate: Candidate, parent: Parent, schedule: Schedule, draws: list[Draw], compilations: Compilations
    ) -> None:
        self._candidate, self._parent, self._context, self._draws = candidate, parent, schedule.context, draws
        self._compilations = compilations
        self._device = self._context.placement.device
        self._shape = shape_of(self._context)
        self._lengths_N = lengths_of(self._context.assembler, draws)
        self._ready = False
        self._warmup_began = time.monotonic()
        self._compiled_before = 0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._compiled_before = self._compilations.number
        self._timer = WindowTimer(self._device)

    def on_epoch_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        ended = self._timer.stop()
        compiled = self._compilations.number - self._compiled_before
        if self._ready:
            self._parent.send(self._timer.window(self._shape, self._draws, self._lengths_N, compiled))
            free_cached_memory(self._device)
        elif state.global_step >= self._candidate.warmup and not compiled:
            self._ready = True
            self._parent.send(Ready(self._description(), state.global_step, ended - self._warmup_began))
        else:
            seconds = self._compilations.seconds
            self._parent.say(f"{state.global_step} steps, {self._compilations.number} compilations in {seconds:.1f} s")
            return
        if self._parent.command() != WINDOW:
            control.should_training_stop = True

    def _description(self) -> dict[str, Any]:
        description = describe(self._context, self._shape)
        if self._candidate.compile:
            description["compilations"] = self._compilations.number
            description["compile_seconds"] = self._compilations.seconds
            description["graph_breaks"] = sum(counters["graph_break"].values())
        return description


def run(candidate: Candidate, parent: Parent) -> None:
    """Prepare the Trainer, and let it train in turns."""
    schedule = prepare(candidate, parent)
    context, draws = schedule.context, schedule.draws()
    compilations = Compilations()
    if candidate.compile:
        compilations.watch()
    batch_size, autocast = len(draws[0].questions), context.placement.autocast
    with tempfile.TemporaryDirectory(prefix="accl-bench-") as folder:
        trainer = Trainer(
            model=PeerModel(context.model),
            args=arguments(candidate.config, folder, batch_size, autocast, candidate.compile),
            train_dataset=Questions(context.assembler, draws),
            data_collator=Collator(context.assembler.pad_id),
            callbacks=[WindowCallback(candidate, parent, schedule, draws, compilations)],
        )
        parent.say("compiling and warming up" if candidate.compile else "warming up")
        trainer.train()


def arguments(
    config: Config, folder: str, batch_size: int, autocast: torch.dtype | None, compiled: bool
) -> TrainingArguments:
    """The Trainer's defaults, except for what makes its work accl's, and without the files it would write."""
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch_size,
        num_train_epochs=MAX_EPOCHS,
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


if __name__ == "__main__":
    serve(run)
