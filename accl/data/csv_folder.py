"""Reader of Hendrycks CSV: ``<split>/<subject>_<split>.csv`` without header; question, the options, a letter.

Fields are quoted as RFC 4180 says. What other programs would guess at (a quote inside a field, a quote that is never
closed, columns that stand elsewhere) is refused, because a wrong guess makes wrong questions.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from accl.data.builder import AUXILIARY, MOST_QUESTION_CHARACTERS, MOST_QUESTIONS, PART_OF, CorpusBuilder, Place
from accl.data.files import named, read_bytes, visible
from accl.data.questions import LETTERS, PARTS, Corpus
from accl.errors import DataError

_COLUMNS = "Columns are: the question, its options, the letter of the right one; quote commas."
_SAVE = "Save the file as UTF-8."
_OPTION = {letter: index for index, letter in enumerate(LETTERS)}
# Possessive, so that no text takes more than one pass.
_FIELD = r'(?:"(?:[^"]++|"")*+"|[^",\r\n]*+)'
_RECORD = re.compile(rf"{_FIELD}(?:,{_FIELD})*+[\r\n]*")
_ROW_END = re.compile(r",[A-Z] *[\r\n]")
_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\0\0\xfe\xff": "UTF-32"}

csv.field_size_limit(MOST_QUESTION_CHARACTERS)


def splits_of(folder: Path) -> list[Path]:
    """Return the folders in a data folder that hold CSV files."""
    # What may not be read and is not named as a split (lost+found) is none of ours.
    places = [place for place in visible(folder) if place.name in PART_OF or os.access(place, os.R_OK)]
    return [place for place in places if named(place, ".csv")]


def read_csv_folder(folder: Path) -> Corpus:
    """Read all splits of a folder.

    Raises:
        DataError: a folder or file of a wrong name, or a malformed file.
    """
    builder = CorpusBuilder(unit="columns", others=2, hint=_COLUMNS)
    folder_of: dict[str, Path] = {}
    for split in splits_of(folder):
        part = PART_OF.get(split.name)
        if part is None:
            hint = f"Splits are: {', '.join(PART_OF)}; move others away."
            raise DataError(f"{split} holds CSV files but is no split.", hint)
        if part in folder_of:
            raise DataError(f"{folder} has both {folder_of[part].name}/ and {split.name}/.", "Keep one of the two.")
        folder_of[part] = split
    for part in (part for part in PARTS if part in folder_of):
        for path in named(folder_of[part], ".csv"):
            _add_file(path, part, builder)
    return builder.corpus(folder, f"folder {folder} (CSV)")


def _add_file(path: Path, part: str, builder: CorpusBuilder) -> None:
    task = ""
    if part != AUXILIARY:
        task, _, suffix = path.stem.rpartition("_")
        if not task.strip() or PART_OF.get(suffix) != part:
            wanted = f"<subject>_{path.parent.name}.csv"
            raise DataError(f"{path} is not named {wanted}.", "The subject is read from the file's name.")
    group = f"{part}/{task or path.stem}"
    rows = _parse(path)
    if not rows:
        raise DataError(f"{path} holds no question.", "Fill it, or move it away.")
    _check_first_column(path, rows, task)
    for number, cells in enumerate(rows, 1):
        if len(cells) < 4:
            raise Place(path, number).refuse(f"{len(cells)} columns instead of at least 4", _COLUMNS)
        answer = _OPTION.get(cells[-1].strip(), -1)
        if not 0 <= answer < len(cells) - 2:
            what = f"the answer {cells[-1].strip()[:20]!r} is no letter of an option, in column {len(cells)}"
            raise Place(path, number).refuse(what, _why_no_letter(rows, number))
        builder.add(Place(path, number), part, task, group, cells[0], cells[1:-1], answer)


def _parse(path: Path) -> list[list[str]]:
    """Return the records of a file; blank lines are none."""
    lines = _read_lines(path)
    reader = csv.reader(lines, strict=True)
    rows: list[list[str]] = []
    begun = 0
    try:
        for cells in reader:
            end = reader.line_num
            if cells:
                rows.append(cells)
                if len(rows) > MOST_QUESTIONS:
                    what = f"more rows than the {MOST_QUESTIONS:,} that are read"
                    raise Place(path, len(rows)).refuse(what, "Take fewer questions.")
                if end > begun + 1 or '"' in lines[begun]:
                    _check_quotes(Place(path, len(rows)), "\0".join(cells), lines[begun:end])
            begun = end
    except csv.Error as error:
        what = f"not valid CSV in line {begun + 1} ({error})"
        hint = "Quote as RFC 4180 says; a quote that is never closed takes in all that follows."
        raise Place(path, len(rows) + 1).refuse(what, hint) from error
    return rows


def _check_quotes(place: Place, joined: str, lines: Sequence[str]) -> None:
    """Check the quotes of a record of some lines, the fields of which are joined by NUL, against RFC 4180.

    Raises:
        DataError: a quote within a field that is not quoted, or one that was left open and closed some rows later: a
            line inside a field then ends as a row does.
    """
    if '"' in joined and not _RECORD.fullmatch("".join(lines)):
        hint = 'Quote the field and double the quotes in it: "He said ""no"", twice?"'
        raise place.refuse("a quote inside a field that is not quoted", hint)
    if len(lines) > 1 and (end := _ROW_END.search(joined)):
        column = joined.count("\0", 0, end.start()) + 1
        what = f"column {column} takes in what looks like the end of this row and the rows after it"
        raise place.refuse(what, "A quote is not closed.")


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a file as csv counts them, with their ends."""
    raw = read_bytes(path)
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if raw.startswith(mark):
            raise DataError(f"{path}, line 1: {encoding} instead of UTF-8.", _SAVE)
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8.", _SAVE) from error
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise DataError(f"{path}, line {line}: a NUL character, as in UTF-16.", _SAVE)
    # Not io.StringIO, which takes four bytes for every character.
    return list(io.TextIOWrapper(io.BytesIO(raw), "utf-8-sig", newline=""))


# Columns that stand elsewhere


def _check_first_column(path: Path, rows: Sequence[Sequence[str]], task: str) -> None:
    """Refuse a column before the question: the subject, or an index."""
    if task and all(cells[0].strip() in (task, task.replace("_", " ")) for cells in rows):
        raise Place(path, 1).refuse("column 1 holds the subject instead of the question", _COLUMNS)
    if len(rows) > 2 and all(cells[0].isdecimal() for cells in rows) and len({cells[0] for cells in rows}) == len(rows):
        raise Place(path, 1).refuse("column 1 holds another number in every row: an index, no question", _COLUMNS)


def _why_no_letter(rows: Sequence[Sequence[str]], number: int) -> str:
    """Return where the letters stand instead, where it is plain to see, or what is expected."""
    width = Counter(map(len, rows)).most_common(1)[0][0]
    others = [[_OPTION.get(cell.strip(), -1) for cell in cells] for cells in rows[1:] if len(cells) == width]
    letters = [column for column in range(width) if others and all(0 <= row[column] < width - 2 for row in others)]
    if number == 1 and (not others or width - 1 in letters):
        return "If it is a header line, remove it: the files have none."
    if letters and width - 1 not in letters:
        return f"The letters stand in column {letters[-1] + 1}. {_COLUMNS}"
    return f"The last column is a letter from A to {LETTERS[max(len(rows[number - 1]) - 3, 0)]}."
