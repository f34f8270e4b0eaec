"""Protocols: which questions train, which choose the checkpoint, and which test.

``pooled``: all labelled questions together, split anew 80/10/10, stratified by task, with equal texts kept on one
side. Its numbers are not leaderboard MMLU. ``official``: train on dev + validation, test on test; data with a split
``train``, which MMLU has not, trains on train + dev and chooses the checkpoint on validation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from accl.data.questions import Corpus, Question
from accl.errors import DataError

# Shares of validation and test under `pooled`; the rest trains.
HELD_OUT = (("validation", 0.1), ("test", 0.1))


@dataclass(frozen=True)
class Splits:
    """Questions by use. The ``auxiliary`` ones have no subject and join cross-entropy alone."""

    train: list[Question]
    validation: list[Question]
    test: list[Question]
    auxiliary: list[Question]

    def named(self) -> dict[str, list[Question]]:
        """Return the splits whose questions all have a task, by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @cached_property
    def leaked(self) -> int:
        """Number of validation and test questions that are equal to a training question."""
        known = {q.text_hash for q in self.train}
        return sum(q.text_hash in known for q in (*self.validation, *self.test))


def split(corpus: Corpus, protocol: str, seed: int) -> Splits:
    """Split a corpus; equal corpora, protocols and seeds give equal splits.

    ``official`` chooses the checkpoint on one in ten of each task's dev + validation questions, which do not train, and
    on no test question. With a split ``train`` it chooses on all of validation, and without a validation on one in ten
    of train + dev. Its auxiliary questions are those of ``auxiliary_train``.

    Raises:
        DataError: the corpus lacks what the protocol needs.
    """
    labelled = {part: corpus.parts.get(part, []) for part in ("train", "dev", "validation", "test")}
    if protocol == "official":
        learning, validation = labelled["train"] + labelled["dev"], labelled["validation"]
        if not labelled["test"] or not (learning or validation):
            raise DataError(
                f"Protocol official needs train, dev or validation, and test; {corpus.source} has {_listing(corpus)}.",
                "Add the missing folder, or use --set data.protocol=pooled.",
            )
        if labelled["train"] and validation:
            parts = {"train": learning, "validation": validation}
        else:
            parts = _by_group(learning + validation, HELD_OUT[:1], seed)
        auxiliary = list(corpus.parts.get("auxiliary_train", []))
        return Splits(parts["train"], parts["validation"], labelled["test"], auxiliary)
    pool = [q for part in ("test", "validation", "dev", "train") for q in labelled[part]]
    if not pool:
        raise DataError(f"{corpus.source} has no labelled questions, only {_listing(corpus)}.", "Check data.path.")
    return Splits(**_by_group(pool, HELD_OUT, seed), auxiliary=[])


def _by_group(questions: list[Question], held_out: Sequence[tuple[str, float]], seed: int) -> dict[str, list[Question]]:
    """Split by task; equal questions go together, to the split of the first task that assigns them."""
    by_task: dict[str, list[Question]] = defaultdict(list)
    groups: dict[str, list[Question]] = defaultdict(list)
    for q in questions:
        by_task[q.task].append(q)
        groups[q.text_hash].append(q)
    home: dict[str, str] = {}
    for index, task in enumerate(sorted(by_task)):
        members = by_task[task]
        hashes = list(dict.fromkeys(q.text_hash for q in members))
        np.random.default_rng([seed, index]).shuffle(hashes)
        for name, share in held_out:
            wanted = round(share * len(members))
            # Questions that other tasks have already assigned count towards this task's share.
            filled = sum(home.get(q.text_hash) == name for q in members)
            for text_hash in hashes:
                if filled >= wanted:
                    break
                if text_hash not in home:
                    home[text_hash] = name
                    filled += sum(q.task == task for q in groups[text_hash])
        for text_hash in hashes:
            home.setdefault(text_hash, "train")
    result: dict[str, list[Question]] = {"train": [], **{name: [] for name, _ in held_out}}
    for q in questions:
        result[home[q.text_hash]].append(q)
    return result


def _listing(corpus: Corpus) -> str:
    return ", ".join(f"{part} ({len(questions)})" for part, questions in corpus.parts.items() if questions) or "nothing"
