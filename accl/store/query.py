"""The query language that filters runs and questions, on the command line and in the app.

::

    query      = any                              nothing at all matches everything
    any        = all ("OR" all)*
    all        = term ("AND"? term)*              terms side by side must all hold
    term       = ("NOT" | "-") term | "(" any ")" | comparison | flag | word
    comparison = key (":" | "=" | "!=" | "<" | "<=" | ">" | ">=") value ("," value)*
    word, value = anything without blanks | '"' anything '"', with "" for a quote in it

    full s42 state:finished cfg.optim.lr>=1e-4 (val>30% OR age<2d) -tag:old,"does not count"

A **word** is a part of what the vocabulary's words are (of a run state, recipe, profile, seed and id). A **flag** is a
word that is a key (``wrong``); in quotes it is an ordinary word. Case never matters, but of ``NOT``, ``AND``, ``OR``.

A **comparison** asks the subject for the value of its key. With text ``:`` means that the query's value is a part of
it, ``=`` that it is the whole and ``!=`` that it is not; with numbers ``:`` and ``=`` are the same. Of several values
with ``:`` and ``=`` one must fit, with ``!=`` none may. What is not known, such as a value of a configuration that
cannot be read, fits no comparison, ``!=`` included, and so fits the negation of each. Round brackets within a word or
a value belong to it: ``cfg.loss.negatives=hardest(16)``. Blanks may stand around all signs but ``:``.

A key takes what its `Kind` says: numbers are strict, decimal and finite, ``30%`` is 0.3, a time has a unit. ``cfg.KEY``
is a value of the configuration by its dotted key, as text or as a number; ``null``, ``true`` and ``false`` are text.
The last parts of a dotted key, with or without ``cfg.``, mean that key where they are those of no other and no key by
themselves: ``lr`` is ``cfg.optim.lr``, but ``seed`` is not ``cfg.train.seed``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from accl.choices import parse_number, parse_whole_number
from accl.errors import QueryError
from accl.store.vocabulary import CONFIG, KINDS, QUESTIONS, RUNS, WORDS, Key, Kind, Subject, Vocabulary
from accl.text import printable
from accl.yamlfile import shown

LENGTH_LIMIT = 4096  # characters
DEPTH_LIMIT = 50  # open brackets and negations

_NUMERIC: dict[str, Callable[[float, float], bool]] = {
    ":": operator.eq,
    "=": operator.eq,
    "!=": operator.eq,  # of none
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_COMPARISON = re.compile(r"([^\W\d][\w./-]*)(?:(:)|\s*([<>!]=|[<>=])\s*)")
_KEYWORD = re.compile(r"(NOT|AND|OR)(?=[\s()]|$)")
_SIGNS = tuple(":<>=!,")
_FLAGS = {key.name for key in (*RUNS.keys, *QUESTIONS.keys) if key.kind == "flag"}


@dataclass(frozen=True)
class Word:
    """A part of the subject's words; a flag when it is the name of one and not quoted."""

    word: str
    flag: bool = False

    def __str__(self) -> str:
        return self.word if self.flag else _written(self.word)

    def holds(self, subject: Subject) -> bool:
        if self.flag:
            return bool(subject.get(self.word))
        return self.word.casefold() in str(subject.get(WORDS) or "").casefold()


@dataclass(frozen=True)
class Comparison:
    """A comparison; ``numbers`` are the values as numbers, each None where it is none."""

    key: str
    sign: str
    values: tuple[str, ...]
    numbers: tuple[float | None, ...]
    pair: bool = False

    def __str__(self) -> str:
        return f"{self.key}{self.sign}{','.join(_written(value, ',') for value in self.values)}"

    def holds(self, subject: Subject) -> bool:
        found = subject.get(self.key)
        if found is None:
            return False
        if isinstance(found, (int, float)):
            compare = _NUMERIC[self.sign]
            fits = any(number is not None and compare(found, number) for number in self.numbers)
        else:
            texts = [text.casefold() for text in ((found,) if isinstance(found, str) else found)]
            values = [value.casefold() for value in self.values]
            if self.pair:
                fits = any(
                    len(texts) == 2 and all(map(self._fits, texts, order)) for order in (values, reversed(values))
                )
            else:
                fits = any(self._fits(text, value) for text in texts for value in values)
        return fits != (self.sign == "!=")

    def _fits(self, text: str, value: str) -> bool:
        return value in text if self.sign == ":" else self.sign in ("=", "!=") and value == text


@dataclass(frozen=True)
class Not:
    """The negation of a node."""

    node: Node

    def __str__(self) -> str:
        return f"-({self.node})" if isinstance(self.node, (AllOf, AnyOf)) else f"-{self.node}"

    def holds(self, subject: Subject) -> bool:
        return not self.node.holds(subject)


@dataclass(frozen=True)
class AllOf:
    """Nodes that must all hold."""

    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return " ".join(f"({node})" if isinstance(node, AnyOf) else str(node) for node in self.nodes)

    def holds(self, subject: Subject) -> bool:
        return all(node.holds(subject) for node in self.nodes)


@dataclass(frozen=True)
class AnyOf:
    """Nodes of which one must hold."""

    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return " OR ".join(map(str, self.nodes))

    def holds(self, subject: Subject) -> bool:
        return any(node.holds(subject) for node in self.nodes)


Node = Word | Comparison | Not | AllOf | AnyOf


@dataclass(frozen=True)
class Query:
    """A parsed query."""

    node: Node

    @property
    def text(self) -> str:
        """The query as it would be typed, with no more brackets and quotes than needed; it parses to an equal query."""
        return str(self.node)

    def matches(self, subject: Subject) -> bool:
        """Return whether the query holds for a subject."""
        return self.node.holds(subject)

    def values_of(self, key: str) -> list[str]:
        """Return the values that a key is compared with, anywhere in the query."""
        return _values_of(self.node, key)


EVERYTHING = Query(AllOf(()))


def _values_of(node: Node, key: str) -> list[str]:
    match node:
        case Comparison():
            return list(node.values) if node.key == key else []
        case Not():
            return _values_of(node.node, key)
        case AllOf() | AnyOf():
            return [value for part in node.nodes for value in _values_of(part, key)]
    return []


def parse(text: str, vocabulary: Vocabulary = RUNS) -> Query:
    """Parse a query.

    Raises:
        QueryError: it is none, is too long, or uses a key that the vocabulary does not have.
    """
    if len(text) > LENGTH_LIMIT:
        raise QueryError(f"The query has more than {LENGTH_LIMIT:,} characters", LENGTH_LIMIT)
    for index, character in enumerate(text):
        if printable(character) != character:
            raise QueryError(f"The query has the control character U+{ord(character):04X}", index)
    return Query(_Parser(text, vocabulary).parse()) if text.strip() else EVERYTHING


class _Parser:
    """A recursive descent through the grammar; ``at`` is the next character."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self.text, self.vocabulary, self.at = text, vocabulary, 0

    def parse(self) -> Node:
        node = self._any(0)
        if self.at < len(self.text):
            raise self._error("This ) closes nothing")
        return node

    def _any(self, depth: int) -> Node:
        nodes = [self._all(depth)]
        while self._take_keyword("OR"):
            nodes.append(self._all(depth))
        return _joined(AnyOf, nodes)

    def _all(self, depth: int) -> Node:
        nodes = [self._term(depth)]
        while self._take_keyword("AND") or not self._ends():
            nodes.append(self._term(depth))
        return _joined(AllOf, nodes)

    def _term(self, depth: int) -> Node:
        if depth > DEPTH_LIMIT:
            raise self._error(f"More than {DEPTH_LIMIT} brackets and negations are open")
        if self._take_keyword("NOT") or self._take("-"):
            return Not(self._term(depth + 1))
        if self._ends() or self._keyword():
            raise self._error("A condition is missing")
        start = self.at
        if self._take("("):
            node = self._any(depth + 1)
            if not self._take(")"):
                raise self._error("This ( is never closed", start)
        elif self.text[self.at] == '"':
            node = Word(self._literal())
        elif found := _COMPARISON.match(self.text, self.at):
            node = self._comparison(found)
        elif self.text.startswith(_SIGNS, self.at):
            raise self._error(f"No key stands before this {self.text[self.at]}")
        else:
            key = self.vocabulary.find(word := self._literal())
            node = Word(word, flag=key is not None and key.kind == "flag")
        if (after := self.text[self.at : self.at + 1]) not in ("", ")") and not after.isspace():
            raise self._error("A blank is missing")
        return node

    def _comparison(self, found: re.Match[str]) -> Comparison:
        name, sign = found[1], found[2] or found[3]
        if (key := self.vocabulary.find(name)) is None:
            near = self.vocabulary.nearest(name)
            hint = f"Did you mean {near!r}? " if near else ""
            raise self._error(f"There is no key {shown(name)}", hint=f'{hint}Words with signs need quotes, as "a:b".')
        self.at = found.end()
        values: list[str] = []
        numbers: list[float | None] = []
        while not values or self._take(",", skip=False):
            start = self.at
            values.append(self._literal(","))
            if not values[-1] and self.at == start:
                raise self._error(f"A value is missing after {found[0].strip()}")
            numbers.append(self._number(key, values[-1], start))
        if sign[0] in "<>":
            if key.kind in ("text", "pair"):
                raise self._error(f"{key.name} takes {KINDS[key.kind]}, and so : = or !=", found.end(1))
            if len(values) > 1 or numbers[0] is None:
                raise self._error(f"{sign} takes one number", found.end())
        if key.kind == "flag" or (key.kind == "pair" and len(values) != 2):
            raise self._error(f"{key.name} takes {KINDS[key.kind]}", found.start())
        return Comparison(key.name, sign, tuple(values), tuple(numbers), key.kind == "pair")

    def _number(self, key: Key, text: str, start: int) -> float | None:
        if key.kind in _READERS:
            number = _parsed(_READERS[key.kind], text)
            if number is None and not (key.name.startswith(CONFIG) and text.casefold() == "null"):
                raise self._error(f"{key.name} takes {KINDS[key.kind]}, not {shown(text)}", start)
            return number
        return _parsed(_number, text) if key.kind == "value" else None

    def _literal(self, stops: str = "") -> str:
        """Read a word or value, in quotes or without."""
        start = self.at
        if not self._take('"', skip=False):
            self.at = _bare_end(self.text, start, stops)
            return self.text[start : self.at]
        while (end := self.text.find('"', self.at)) >= 0:
            self.at = end + 1
            if not self._take('"', skip=False):
                return self.text[start + 1 : end].replace('""', '"')
        raise self._error('This " is never closed', start)

    def _ends(self) -> bool:
        """Skip blanks, and return whether nothing more comes that belongs to the terms side by side."""
        self._skip()
        return self.text[self.at : self.at + 1] in ("", ")") or self._keyword() == "OR"

    def _keyword(self) -> str:
        self._skip()
        found = _KEYWORD.match(self.text, self.at)
        return found[1] if found else ""

    def _take_keyword(self, keyword: str) -> bool:
        return self._keyword() == keyword and self._take(keyword)

    def _take(self, token: str, skip: bool = True) -> bool:
        if skip:
            self._skip()
        if found := self.text.startswith(token, self.at):
            self.at += len(token)
        return found

    def _skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _error(self, what: str, at: int | None = None, hint: str = "") -> QueryError:
        return QueryError(what, self.at if at is None else at, hint)


def _joined(kind: type[AllOf] | type[AnyOf], nodes: Sequence[Node]) -> Node:
    """Join nodes in one, with the parts of those of the same kind in their place."""
    parts = [part for node in nodes for part in (node.nodes if isinstance(node, kind) else (node,))]
    return parts[0] if len(parts) == 1 else kind(tuple(parts))


def _bare_end(text: str, start: int, stops: str) -> int:
    """Return the end of what is not in quotes: before a blank, a quote, a stop or a bracket that it did not open."""
    opened = 0
    for at in range(start, len(text)):
        character = text[at]
        if character.isspace() or character == '"' or (not opened and character in f"){stops}"):
            return at
        opened += (character == "(") - (character == ")")
    return len(text)


def _written(text: str, stops: str = "") -> str:
    """Write a word, or a value with ``stops``, with quotes where it would not be read back without."""
    not_bare = text.startswith(("-", "(", *_SIGNS)) or text in _FLAGS or _KEYWORD.match(text) or _COMPARISON.match(text)
    # A bracket that stays open here would take the next one that closes.
    if text and "(" not in text and _bare_end(text, 0, stops) == len(text) and (stops or not not_bare):
        return text
    return '"' + text.replace('"', '""') + '"'


def _parsed(read: Callable[[str], float], text: str) -> float | None:
    with suppress(ValueError):
        return read(text)
    return None


def _number(text: str) -> float:
    return parse_number(text[:-1]) / 100 if text.endswith("%") else parse_number(text)


def _share(text: str) -> float:
    if not 0 <= (share := _number(text)) <= 1:
        raise ValueError("a share is within 0 and 1")
    return share


def _time(text: str) -> float:
    if text[-1:] not in _UNITS:
        raise ValueError("a time has a unit")
    return parse_number(text[:-1]) * _UNITS[text[-1]]


_READERS: dict[Kind, Callable[[str], float]] = {
    "number": _number,
    "share": _share,
    "whole": parse_whole_number,
    "time": _time,
}
