"""``python -m accl.bench.sentence_peer``: the worker that times sentence-transformers' SentenceTransformerTrainer.

Encoder, heads, questions and batch size are accl's, all else its defaults: batches are random, not of like length, and
padded to their longest row. Like its SoftmaxLoss, the loss has the classifier on the embeddings of the model, which
pools by its own module. Questions are tokenised beforehand, though its collator would tokenise texts within the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from transformers import TrainerCallback

from accl.bench.peer import Item, arguments, collate, questions, run
from accl.bench.protocol import Candidate
from accl.bench.schedule import Schedule
from accl.bench.worker import serve
from accl.method.model import ContrastiveCurriculumModel

Features = dict[str, Tensor]


class EncoderModule(nn.Module):
    """First module of a SentenceTransformer: the encoder as transformers runs it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Features) -> Features:
        """Add ``token_embeddings``, N x L x D, to features with ``input_ids`` and ``attention_mask``, both N x L."""
        output = self.encoder(input_ids=features["input_ids"], attention_mask=features["attention_mask"])
        return {**features, "token_embeddings": output.last_hidden_state}


class AnswerLoss(nn.Module):
    """Cross-entropy of the answers, with accl's classification head on the embeddings of a SentenceTransformer."""

    def __init__(self, model: nn.Module, head: ContrastiveCurriculumModel) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, features: Sequence[Features], labels_B2: Tensor) -> Tensor:
        """Return the loss of B questions.

        Args:
            features: one element, whose N rows are the options of a question next to each other where it has a row
                each. labels_B2: answer and task.
        """
        embeddings_ND = self.model(features[0])["sentence_embedding"]
        logits_BC = self.head.classify(embeddings_ND, labels_B2[:, 1])
        return F.cross_entropy(logits_BC.float(), labels_B2[:, 0])


@dataclass
class Collator:
    """Collator of tokenised questions in place of the trainer's own, which would tokenise texts."""

    pad_id: int
    valid_label_columns: Sequence[str] = ("labels",)

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Pad rows to the longest; names are those from which the trainer tells features and labels."""
        padded = collate(items, self.pad_id)
        return {
            "label": torch.stack([padded["labels"], padded["task"]], 1),
            "text_input_ids": padded["input_ids"],
            "text_attention_mask": padded["attention_mask"],
        }


def make_model(model: ContrastiveCurriculumModel) -> tuple[Any, AnswerLoss]:
    """Return accl's encoder as a SentenceTransformer, and its loss."""
    encoder: Any = model.encoder
    pooling = Pooling(encoder.config.hidden_size, pooling_mode="mean")
    device = str(next(model.parameters()).device)
    wrapped = SentenceTransformer(modules=[EncoderModule(encoder), pooling], device=device)
    return wrapped, AnswerLoss(wrapped, model)


def make_trainer(_candidate: Candidate, schedule: Schedule, callback: TrainerCallback, folder: str) -> Any:
    """Return sentence-transformers' trainer."""
    context = schedule.context
    items = [
        {**item, "rows": [row.tolist() for row in item["rows"]], "input_ids": item["input_ids"].tolist()}
        for item in questions(context.assembler, schedule.draws())
    ]
    model, loss = make_model(context.model)
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(output_dir=folder, **arguments(schedule)),
        train_dataset=Dataset.from_list(items).with_format("numpy"),
        loss=loss,
        data_collator=Collator(context.assembler.pad_id),
        callbacks=[callback],
    )


if __name__ == "__main__":
    serve(partial(run, make=make_trainer))
