"""The network: an encoder, task embeddings, a contrastive head and a classification head.

At the method's size (encoder of 768, K = 57, C = 4): task embeddings 57 x 768, contrastive head
768 -> 256, classification head 1536 -> 768 -> 4 on the pooled text joined with the task embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Head = Literal["single_sequence", "per_option"]


@dataclass(frozen=True)
class ModelOutput:
    """Output of one forward pass.

    Attributes:
        pooled_ND: mean of the encoder's hidden states of each sequence, the input of all heads.
        logits_BC: one score per option.
        features_BD: pooled encoder features of each question, before any head.
        z_BE: unit embeddings for the contrastive loss.
    """

    pooled_ND: Tensor
    logits_BC: Tensor
    features_BD: Tensor
    z_BE: Tensor


def mean_pool(hidden_NLD: Tensor, mask_NL: Tensor) -> Tensor:
    """Return the mean of the hidden states of real tokens, N x D."""
    mask_NL1 = mask_NL.unsqueeze(-1).to(hidden_NLD.dtype)
    return (hidden_NLD * mask_NL1).sum(1) / mask_NL1.sum(1).clamp(min=1)


class ContrastiveCurriculumModel(nn.Module):
    """Encoder of width ``hidden`` (D) with the three parts of the method on top.

    Args:
        encoder: maps ``input_ids`` and ``attention_mask`` (N x L) to an object with ``last_hidden_state`` (N x L x D).
        head: ``single_sequence`` reads question and all options as one sequence and gives C logits;
            ``per_option`` reads the question with one option at a time and gives each its score.
        task_embedding: whether the classification head sees the task.
        dropout: before and inside the classification head.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden: int,
        tasks: int,
        choices: int,
        contrastive_dim: int,
        head: Head,
        task_embedding: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.choices = encoder, head, choices
        # The last row is for questions without a task, and stays zero.
        self.task_embedding = nn.Embedding(tasks + 1, hidden, padding_idx=tasks) if task_embedding else None
        self.contrastive_head = nn.Linear(hidden, contrastive_dim)
        joined = 2 * hidden if task_embedding else hidden
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(joined, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, choices if head == "single_sequence" else 1),
        )
        if self.task_embedding is not None:
            # torch's N(0, 1) is kept, because it has the scale of the encoder's normalised features: at the usual
            # 0.02 the embedding has hardly any effect on the head.
            with torch.no_grad():
                self.task_embedding.weight[tasks].zero_()

    @property
    def sequences_per_question(self) -> int:
        return 1 if self.head == "single_sequence" else self.choices

    def forward(self, chunks: Sequence[tuple[Tensor, Tensor]], inverse_perm_N: Tensor, task_B: Tensor) -> ModelOutput:
        """Run encoder and heads on a batch of N sequences.

        N = B for ``single_sequence``, and B * C for ``per_option`` with the options of a question next to each other.

        Args:
            chunks: (ids, mask) of the sequences, n x L each: any number of chunks, in any order of sequences.
            inverse_perm_N: index, among the rows of all chunks together, of each sequence of the batch.
            task_B: task index of each question; below 0 for a question without task.
        """
        return self.heads(self.pooled(chunks, inverse_perm_N), task_B)

    def pooled(self, chunks: Sequence[tuple[Tensor, Tensor]], inverse_perm_N: Tensor) -> Tensor:
        """Apply `pool` to every sequence of a batch, N x D; arguments as for `forward`."""
        return torch.cat([self.pool(ids_NL, mask_NL) for ids_NL, mask_NL in chunks])[inverse_perm_N]

    def pool(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        """Return the mean of the encoder's last hidden states over real tokens, N x D."""
        return mean_pool(self.encoder(input_ids=ids_NL, attention_mask=mask_NL).last_hidden_state, mask_NL)

    def heads(self, pooled_ND: Tensor, task_B: Tensor) -> ModelOutput:
        """Run all heads on pooled features, however these were computed."""
        return ModelOutput(pooled_ND, self.classify(pooled_ND, task_B), *self.represent(pooled_ND))

    def classify(self, pooled_ND: Tensor, task_B: Tensor) -> Tensor:
        """Return one score per option, B x C."""
        joined_ND = pooled_ND
        if self.task_embedding is not None:
            table = self.task_embedding
            rows_B = torch.where(task_B >= 0, task_B, table.num_embeddings - 1)
            task_BD = table(rows_B).to(pooled_ND.dtype)
            task_ND = task_BD[:, None].expand(-1, self.sequences_per_question, -1).flatten(0, 1)
            joined_ND = torch.cat([pooled_ND, task_ND], dim=-1)
        logits_BC: Tensor = self.classifier(joined_ND).view(len(task_B), self.choices)
        return logits_BC

    def represent(self, pooled_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of each question, B x D, and its unit embedding for the contrastive loss, B x E."""
        features_BD = pooled_ND.view(-1, self.sequences_per_question, pooled_ND.shape[-1]).mean(1)
        return features_BD, F.normalize(self.contrastive_head(features_BD).float(), dim=-1)
