"""Questions as they were read from a folder, kept for the next time: reading takes a text's checks and its hash.

What is kept is named by all that was read, byte for byte, and by the code that read it, so that a changed file is read
anew, and refused anew, and so is every file once the rules change.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from accl.data.cache import Cache
from accl.data.files import visible
from accl.data.questions import Corpus, Question
from accl.data.subjects import subject_named
from accl.errors import DataError
from accl.files import open_regular

# Folders of more files, bytes or levels are read each time.
MOST_FILES, MOST_BYTES, MOST_LEVELS = 4096, 2**29, 4
_CHUNK = 2**20
# Between fields; no question holds one.
_SEPARATOR = "\0"


class _UnkeptError(Exception):
    """A corpus that cannot be kept."""

    def __init__(self, corpus: Corpus) -> None:
        super().__init__()
        self.corpus = corpus


def load_kept(folder: Path, name: str, read: Callable[[], Corpus], kept: Cache) -> Corpus:
    """Return the corpus that ``read`` makes of a folder, from those that are kept if the same one was read before.

    Args:
        name: of the source, in words that the corpus may contain. kept: where read corpora are kept.

    Raises:
        DataError, HubError: as ``read``.
    """
    if (before := _digest(folder, name)) is None:
        return read()

    def make() -> Corpus:
        corpus = read()
        fields = [field for q in _questions(corpus) for field in (q.id, q.task, q.text, *q.options)]
        # A folder that changed meanwhile is not what was read.
        if any(_SEPARATOR in field for field in fields) or _digest(folder, name) != before:
            raise _UnkeptError(corpus)
        return corpus

    try:
        # Whoever may not read the folder may not read what was read there.
        return kept.load_or_make(f"questions-{before}", make, _encode, _decode, mode=0o600)
    except _UnkeptError as unkept:
        return unkept.corpus


def _digest(folder: Path, name: str) -> str | None:
    """Return 32 hex digits over the names and bytes of all files that a reader may see; None if there are too many."""
    digest = hashlib.blake2b(f"{_code()}\x1f{name}\x1f{folder}\x1f".encode(), digest_size=16)
    size = 0
    try:
        for number, path in enumerate(_files(folder, MOST_LEVELS)):
            with open(open_regular(path, follow=True), "rb") as file:
                digest.update(f"{path}\x1f{os.fstat(file.fileno()).st_size}\x1f".encode())
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    if size > MOST_BYTES:
                        return None
            if number >= MOST_FILES:
                return None
    except (OSError, ValueError, DataError):  # readers say what is wrong
        return None
    return digest.hexdigest()


@cache
def _code() -> str:
    """Return a hash of the modules by which questions are read, and of this one."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(folder: Path, levels: int) -> Iterator[Path]:
    """Yield the files below a folder, in order of their names.

    Raises:
        DataError: a folder cannot be listed, or is too deep.
    """
    if levels == 0:
        raise DataError(f"{folder} is too deep.")
    for path in visible(folder):
        if path.is_dir():
            yield from _files(path, levels - 1)
        else:
            yield path


def _questions(corpus: Corpus) -> Iterator[Question]:
    return (q for part in corpus.parts.values() for q in part)


def _encode(corpus: Corpus) -> bytes:
    """Write a corpus whose questions have one number of options, as all have that were read from a folder."""
    choices = len(next(_questions(corpus)).options)
    head = {
        "source": corpus.source,
        "revision": corpus.revision,
        "subjects": [subject.name for subject in corpus.subjects],
        "parts": {name: len(part) for name, part in corpus.parts.items()},
        "choices": choices,
    }
    fields = [json.dumps(head)]
    for q in _questions(corpus):
        fields += (q.id, q.task, q.text, *q.options, str(q.answer), q.text_hash)
    return _SEPARATOR.join(fields).encode("utf-8", "surrogatepass")


def _decode(content: bytes) -> Corpus:
    """Inverse of `_encode`; raises `ValueError` for other bytes."""
    text, *fields = content.decode("utf-8", "surrogatepass").split(_SEPARATOR)
    head = json.loads(text)
    try:
        return _corpus(head, fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("holds no questions") from error


def _corpus(head: dict[str, Any], fields: list[str]) -> Corpus:
    width, total = 5 + head["choices"], sum(head["parts"].values())
    if len(fields) != width * total:
        raise ValueError("does not hold as many questions as it says")
    ids, tasks, texts, *options, answers, hashes = (fields[column::width] for column in range(width))
    questions = list(map(Question, ids, tasks, texts, zip(*options, strict=True), map(int, answers)))
    for question, text_hash in zip(questions, hashes, strict=True):
        question.__dict__["text_hash"] = text_hash  # computed as this property is
    parts, begin = {}, 0
    for name, count in head["parts"].items():
        parts[name] = questions[begin : begin + count]
        begin += count
    return Corpus(tuple(map(subject_named, head["subjects"])), parts, head["source"], head["revision"])
