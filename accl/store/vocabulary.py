"""The keys that queries may use, for runs and for questions; `accl.store.query` has the language.

A subject of a query is asked for values by the names of these keys.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal, Protocol

from accl.config.synonyms import known_as
from accl.store.config_values import default_values

CONFIG = "cfg."
WORDS = "words"  # key by which a subject is asked for the text that words are parts of

Kind = Literal["text", "pair", "flag", "number", "share", "whole", "time", "value"]
KINDS: dict[Kind, str] = {
    "text": "text",
    "pair": "two texts, in any order",
    "flag": "nothing",
    "number": "a number, such as 1.5, 1e-4 or 30%",
    "share": "a share, such as 0.3 or 30%",
    "whole": "a whole number",
    "time": "a time with its unit, such as 90s, 5m, 2h, 3d or 1w",
    "value": "a number or text",
}
"""What a key takes, in words."""

Value = str | float | tuple[str, ...] | None
"""A value of a subject: text, a number (flags are 0 or 1), several texts, or None where it is not known."""


class Subject(Protocol):
    """Values by the names of a vocabulary's keys, and `WORDS`: a dictionary, or what reads a run only when asked."""

    def get(self, key: str, /) -> Value: ...


@dataclass(frozen=True)
class Key:
    """A key of a vocabulary; ``also`` is a second name for it."""

    name: str
    kind: Kind
    help: str
    also: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """The keys that queries of one sort of subjects may use; ``configured`` adds those of the configuration."""

    keys: tuple[Key, ...]
    configured: bool = False

    def find(self, name: str) -> Key | None:
        """Return the key of a name, of the configuration also by its last parts alone; None if not exactly one fits."""
        for key in self.keys:
            if name in (key.name, key.also):
                return key
        if not self.configured:
            return None
        values, dotted = default_values(), name.removeprefix(CONFIG)
        found = [dotted] if dotted in values else [key for key in values if key.endswith(f".{dotted}")]
        if len(found) != 1:
            return None
        return Key(CONFIG + found[0], "value" if isinstance(values[found[0]], str) else "number", "")

    def nearest(self, name: str) -> str:
        """Return the key that was most likely meant; empty if none is near."""
        names = {known: known for key in self.keys for known in (key.name, key.also) if known}
        if self.configured:
            if synonym := known_as(name):
                return CONFIG + synonym
            keys = [CONFIG + key for key in default_values()]
            # Perhaps all but the last part is missing: lr for cfg.optim.lr.
            names = {key.rpartition(".")[2]: key for key in keys} | {key: key for key in keys} | names
        for part in (name, name.rpartition(".")[2]):
            if near := difflib.get_close_matches(part, names, n=1):
                return names[near[0]]
        return ""


RUNS = Vocabulary(
    (
        Key("state", "text", "queued, starting, running, stalled, finished, failed, stopped or crashed"),
        Key("recipe", "text", "recipe"),
        Key("profile", "text", "profile"),
        Key("seed", "whole", "seed"),
        Key("id", "text", "id"),
        Key("name", "text", "the name that people gave it"),
        Key("tag", "text", "one of its tags"),
        Key("note", "text", "its note"),
        Key("experiment", "text", "name of its experiment"),
        Key("step", "whole", "optimizer steps done"),
        Key("progress", "share", "share of the steps that are done"),
        Key("age", "time", "time since it was made"),
        Key("loss", "number", "newest loss of training", "train/loss"),
        Key("val", "share", "newest validation accuracy", "validation/accuracy"),
        Key("test", "share", "test accuracy", "test/accuracy"),
    ),
    configured=True,
)
QUESTIONS = Vocabulary(
    (
        Key("wrong", "flag", "the predicted option is not the right one"),
        Key("right", "flag", "the predicted option is the right one"),
        Key("task", "text", "task of the question"),
        Key("category", "text", "category of its task"),
        Key("id", "text", "id of the question"),
        Key("p", "share", "probability of the predicted option"),
        Key("gold", "text", "letter of the right option"),
        Key("predicted", "text", "letter of the predicted option"),
        Key("flip", "text", "arm that answers otherwise: one right, one wrong"),
        Key("pair", "pair", "its task and the one that this is confused with"),
    )
)
