"""Reading YAML: the one function through which every file of ours and of a user's goes.

A file holds ``key: value`` lines in nested sections. It is read event by event, and what YAML can do beyond that is
refused as soon as it is met, in the line where it stands: anchors and aliases (a few bytes that mean gigabytes), tags,
lists, deep nesting (which overflows the stack of libyaml's loader), repeated keys and further documents. Values stay
the text that was written; `accl.config.values` reads them by the declared type of their key.
"""

from __future__ import annotations

import codecs
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from accl.errors import ConfigError
from accl.files import open_regular
from accl.text import printable

SIZE_LIMIT = 2**20  # bytes; a configuration has 3,000, and a megabyte of lines is refused or read within a second
DEPTH_LIMIT = 8  # open sections; accl's own files need two

# libyaml's parser, where PyYAML was built with it, is ten times as fast, which a folder of many runs feels.
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Characters that no line of text has: controls, line separators that only YAML knows, surrogates.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

# UTF-32 first: its mark begins as that of UTF-16 does.
_BOMS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SHAPE = "A configuration holds sections of `key: value`."


@dataclass(frozen=True)
class Written:
    """A value as somebody wrote it.

    Attributes:
        style: ``plain`` or ``quoted`` in a file, ``typed`` on a command line, where quotes belong to the text.
        where: file and line, or ``--set``.
    """

    text: str
    style: Literal["plain", "quoted", "typed"]
    where: str


def shown(text: str) -> str:
    """Quote what somebody wrote for a message: in one line, cut where it is long."""
    return repr(printable(text if len(text) <= 60 else f"{text[:59]}…"))


def read_yaml(path: Path) -> dict[str, Written]:
    """Read a YAML file of ``section:`` entries, as `parse_yaml` does.

    Raises:
        ConfigError: there is no such file, it is no regular one, is too long, is not UTF-8, or cannot be parsed.
    """
    return parse_yaml(_decode(_read(path), path), path)


def parse_yaml(text: str, path: Path) -> dict[str, Written]:
    """Return the values of a YAML text by dotted key, in order; an empty text has none.

    Args:
        path: where the text is from, for messages.

    Raises:
        ConfigError: the text is not valid YAML, or is more than nested sections of ``key: value``.
    """
    if found := CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(f"{path}, line {line}: the control character U+{ord(found[0]):04X} is no text.")
    try:
        return _values(yaml.parse(text, _PARSER), path)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place, what = (f", line {mark.line + 1},", problem) if mark else ("", " ".join(str(error).split()))
        raise ConfigError(f"{path}{place} is not valid YAML: {what}.") from error


def _values(events: Iterable[yaml.Event], path: Path) -> dict[str, Written]:
    values: dict[str, Written] = {}
    lines: dict[str, int] = {}
    sections: list[str] = []  # those that are open, each with a dot at its end
    key = ""  # that whose value comes next
    documents = 0
    for event in events:
        line = event.start_mark.line + 1  # type: ignore[union-attr]  # every event of a parser has a mark
        where = f"{path}, line {line}"
        if getattr(event, "anchor", None) is not None:
            raise ConfigError(f"{where}: anchors and aliases are not accepted.", "Write the value out.")
        if getattr(event, "tag", None) is not None:
            raise ConfigError(f"{where}: tags are not accepted.", "The key decides the type of its value.")
        if isinstance(event, yaml.SequenceStartEvent):
            raise ConfigError(f"{where}: a list is not accepted.", _SHAPE)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise ConfigError(f"{where}: a second document begins.", "Keep one document in a file.")
        elif isinstance(event, yaml.MappingStartEvent):
            if sections and not key:
                raise ConfigError(f"{where}: a key is no word.", _SHAPE)
            if len(sections) == DEPTH_LIMIT:
                raise ConfigError(f"{where}: sections are nested more than {DEPTH_LIMIT} deep.", _SHAPE)
            sections.append(f"{key}." if key else "")
            key = ""
        elif isinstance(event, yaml.MappingEndEvent):
            sections.pop()
        elif isinstance(event, yaml.ScalarEvent):
            if key:
                values[key] = Written(event.value, "quoted" if event.style else "plain", where)
                key = ""
            elif sections:
                key = sections[-1] + event.value
                if not event.value:
                    raise ConfigError(f"{where}: a key is empty.", _SHAPE)
                if key in lines:
                    what = f"{where}: {shown(key)} is written in line {lines[key]} already."
                    raise ConfigError(what, "Remove one of the two.")
                lines[key] = line
            elif event.value or event.style:
                raise ConfigError(f"{where}: there is text without a key.", _SHAPE)
    return values


def _read(path: Path) -> bytes:
    """Read a regular file, through links, without waiting for whoever might write into a pipe."""
    try:
        with open(open_regular(path, follow=True), "rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {path}.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
    if len(content) > SIZE_LIMIT:
        raise ConfigError(f"{path} has more than {SIZE_LIMIT:,} bytes.", "Is it a configuration of accl?")
    return content


def _decode(content: bytes, path: Path) -> str:
    def convert(encoding: str) -> str:
        return f"Convert it: iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > NEW.yaml"

    for mark, encoding in _BOMS:
        if content.startswith(mark):
            raise ConfigError(f"{path} is {encoding}, not UTF-8.", convert(encoding))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"{path}, line {line}: the byte 0x{content[error.start]:02X} is not UTF-8."
        raise ConfigError(what, convert("LATIN1") + "   if it is Latin-1") from error
