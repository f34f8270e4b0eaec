"""Labels of a run: what people call it, its tags and a note, in ``labels.json``; nothing of a run depends on them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from accl.errors import ConfigError, RunError
from accl.store.files import alone_in, writing
from accl.store.rundir import RunDir
from accl.text import printable

NAME_LIMIT = 100  # characters of a name or a tag
NOTE_LIMIT = 10_000


@dataclass(frozen=True)
class Labels:
    """Name, tags and note that people gave a run; ``tags`` are in the order in which they came."""

    name: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""


def as_labels(content: dict[str, Any]) -> Labels:
    """Return the labels in the content of a ``labels.json``, without whatever is no text in it."""
    tags = content.get("tags")
    texts = [_text(tag, NAME_LIMIT) for tag in tags] if isinstance(tags, list) else []
    return Labels(
        _text(content.get("name"), NAME_LIMIT),
        tuple(dict.fromkeys(filter(None, texts))),
        _text(content.get("note"), NOTE_LIMIT),
    )


def _text(value: Any, limit: int) -> str:
    return value[:limit] if isinstance(value, str) else ""


def load_labels(run: RunDir) -> Labels:
    """Return the labels of a run, of which there are none where there is no file.

    Raises:
        DamagedError: the file cannot be read, or holds something else.
    """
    return as_labels(run.read_json(run.labels))


def read_labels(run: RunDir) -> Labels:
    """Return the labels of a run; none when the file cannot be read."""
    with suppress(RunError, OSError):
        return load_labels(run)
    return Labels()


def edit_labels(
    run: RunDir,
    *,
    name: str | None = None,
    note: str | None = None,
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
) -> Labels:
    """Change what is given of the labels of a run, and return them as they are now.

    Raises:
        ConfigError: a name, a tag or the note is too long, or has characters that no terminal shows; a tag is empty or
            has a blank.
        BusyError: another process does not end to edit them.
        DamagedError: the file holds something else, which is not overwritten.
        RunError: the folder cannot be written.
    """
    with alone_in(run.path, f"The labels of {run.id} are being edited by another process."):
        return _edit(run, name, note, add, remove)


def _edit(run: RunDir, name: str | None, note: str | None, add: Iterable[str], remove: Iterable[str]) -> Labels:
    labels = load_labels(run)
    added, removed = [_checked_tag(tag) for tag in add], {tag.removeprefix("#") for tag in remove}
    labels = Labels(
        labels.name if name is None else _checked(name, NAME_LIMIT, "name"),
        tuple(tag for tag in dict.fromkeys((*labels.tags, *added)) if tag not in removed),
        labels.note if note is None else _checked(note, NOTE_LIMIT, "note"),
    )
    with writing(run.labels):
        run.write_json(run.labels, asdict(labels))
    return labels


def _checked(text: str, limit: int, what: str) -> str:
    text = text.strip()
    if len(text) > limit or printable(text) != text:
        shown = printable(text[:NAME_LIMIT])
        raise ConfigError(f"{shown!r} cannot be a {what}.", f"Give one line of at most {limit:,} characters.")
    return text


def _checked_tag(tag: str) -> str:
    tag = _checked(tag, NAME_LIMIT, "tag").removeprefix("#")
    if not tag or any(letter.isspace() for letter in tag):
        raise ConfigError(f"{tag!r} cannot be a tag.", "A tag is one word, such as: paper")
    return tag
