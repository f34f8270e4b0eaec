"""``python -m accl.bench.peer``: the worker that times transformers' own Trainer.

Model, questions and batch size are accl's, all else the Trainer's defaults. It trains the cross-entropy alone, which is
what the `baseline` recipe trains. It gets what its users would give it: tokenised questions, batches of like length,
padding to the longest of a batch, bf16 where the device computes it, the fused optimizer.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.callback import on_compile_end, on_compile_start
from torch._dynamo.utils import counters
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainerCallback, TrainingArguments

from accl.bench.device import WindowTimer, free_cached_memory, measure_rates
from accl.bench.protocol import RATES, Candidate, Work
from accl.bench.schedule import Schedule, prepare
from accl.bench.worker import commands, serve
from accl.data.sampler import Draw
from accl.data.tokens import Assembler
from accl.method.model import ContrastiveCurriculumModel, mean_pool
from accl.training.context import TrainingContext

Item = dict[str, Any]

# More than any comparison has windows: the comparison says when to end.
MAX_EPOCHS = 10_000


class PeerModel(nn.Module):
    """Model of accl with the Trainer's interface: named inputs to a loss, without the contrastive embeddings."""

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


def questions(assembler: Assembler, draws: Sequence[Draw]) -> list[Item]:
    """Return the questions of some draws as token ids, made beforehand, as a tokenised data set is.

    accl, in contrast, cuts its inputs from the token blob while it is timed. ``input_ids`` is a question's longest
    row: the Trainer groups by it.
    """
    items = []
    for draw in draws:
        batch = assembler.batch(draw.questions, draw.option_order)
        rows = [ids[: mask.sum()] for chunk in batch.chunks for ids, mask in zip(*chunk, strict=True)]
        order_BN = batch.inverse_perm.reshape(len(draw.questions), -1)
        for order, task, label in zip(order_BN, batch.task.tolist(), batch.answer.tolist(), strict=True):
            own = [rows[i] for i in order]
            items.append({"input_ids": max(own, key=len), "rows": own, "task": task, "labels": label})
    return items


def collate(items: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """Pad rows to the longest: ``input_ids`` and ``attention_mask``, N x L; ``task`` and ``labels``, B."""
    rows = [torch.from_numpy(row) for item in items for row in item["rows"]]
    ids_NL = pad_sequence(rows, batch_first=True, padding_value=pad_id)
    lengths_N = torch.tensor([len(row) for row in rows])
    return {
        "input_ids": ids_NL,
        "attention_mask": (torch.arange(ids_NL.shape[1]) < lengths_N[:, None]).long(),
        "task": torch.tensor([item["task"] for item in items]),
        "labels": torch.tensor([item["labels"] for item in items]),
    }


class Compilations:
    """Counter of torch's compilations in this process, and of the seconds they took."""

    def __init__(self) -> None:
        self.number, self.seconds, self._began = 0, 0.0, 0.0
        on_compile_start(self._start)
        on_compile_end(self._end)

    def _start(self, _: object) -> None:
        self._began = time.monotonic()

    def _end(self, _: object) -> None:
        self.number += 1
        self.seconds += time.monotonic() - self._began


class WindowCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Callback that has the Trainer run an epoch, which is one window, for each command.

    Whole epochs warm it up: at least one, and until one has passed without any compilation.
    """

    def __init__(self, candidate: Candidate, connection: Connection, schedule: Schedule, work: Work) -> None:
        self._candidate, self._connection, self._schedule, self._work = candidate, connection, schedule, work
        self._commands = commands(connection)
        self._device = schedule.context.placement.device
        self._compilations = Compilations()
        self._ready = False
        self._warmup_began = time.monotonic()
        self._compiled_before = 0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._compiled_before = self._compilations.number
        self._timer = WindowTimer(self._device)

    def on_epoch_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        window = self._timer.stop()
        send, compilations = self._connection.send, self._compilations
        compiled = compilations.number - self._compiled_before
        if self._ready:
            send(window(self._work, compiled))
            free_cached_memory(self._device)
        elif state.global_step >= self._candidate.warmup and not compiled:
            self._ready = True
            send(f"ready, {state.global_step} steps in {time.monotonic() - self._warmup_began:.1f} s")
            description = self._schedule.description()
            if self._candidate.compile:
                description["compilations"] = compilations.number
                description["compile_seconds"] = compilations.seconds
                description["graph_breaks"] = sum(counters["graph_break"].values())
            send(description)
        else:
            send(f"{state.global_step} steps, {compilations.number} compilations in {compilations.seconds:.1f} s")
            return
        for command in self._commands:
            if command != RATES:
                return
            send(measure_rates(self._schedule.context.placement))
        control.should_training_stop = True


def common_arguments(context: TrainingContext) -> dict[str, Any]:
    """Return a trainer's arguments that make its steps accl's; all others are its defaults."""
    config = context.config
    return {
        "learning_rate": config.optim.lr,
        "weight_decay": config.optim.weight_decay,
        "max_grad_norm": config.optim.max_grad_norm,
        "optim": "adamw_torch_fused",
        "bf16": context.placement.autocast == torch.bfloat16,
        "use_cpu": not torch.cuda.is_available() or config.train.device == "cpu",
        "seed": config.train.seed,
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def arguments(schedule: Schedule) -> dict[str, Any]:
    """Return a trainer's arguments for windows of a schedule, without files."""
    return common_arguments(schedule.context) | {
        "per_device_train_batch_size": len(schedule.draws()[0].questions),
        "num_train_epochs": MAX_EPOCHS,
        "save_strategy": "no",
    }


def make_trainer(candidate: Candidate, schedule: Schedule, callback: TrainerCallback, folder: str) -> Any:
    """Return transformers' Trainer."""
    return Trainer(
        model=PeerModel(schedule.context.model),
        args=TrainingArguments(
            output_dir=folder,
            train_sampling_strategy="group_by_length",
            torch_compile=candidate.compile,
            remove_unused_columns=False,  # the collator needs a question's rows, which are not the model's to see
            **arguments(schedule),
        ),
        train_dataset=questions(schedule.context.assembler, schedule.draws()),
        data_collator=partial(collate, pad_id=schedule.context.assembler.pad_id),
        callbacks=[callback],
    )


def run(
    candidate: Candidate,
    connection: Connection,
    make: Callable[[Candidate, Schedule, TrainerCallback, str], Any] = make_trainer,
) -> None:
    """Let a trainer train in turns.

    Args:
        make: makes the trainer, given the callback and a folder of its own.
    """
    schedule = prepare(candidate, connection.send)
    callback = WindowCallback(candidate, connection, schedule, schedule.work(schedule.draws()))
    with tempfile.TemporaryDirectory(prefix="accl-bench-") as folder:
        trainer = make(candidate, schedule, callback, folder)
        connection.send("compiling and warming up" if candidate.compile else "warming up")
        trainer.train()


if __name__ == "__main__":
    serve(run)
