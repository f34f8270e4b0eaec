"""Readers of local folders of questions, one for each layout that MMLU is distributed in.

- Hendrycks CSV: ``<split>/<subject>_<split>.csv`` without header; question, the options, a letter.
- Parquet, as on the Hub: ``all/<split>-*.parquet`` or ``<split>*.parquet``.
- A ``save_to_disk`` folder of the package ``datasets``.

No row is ever dropped: a malformed one raises a `DataError` that names the file and the row.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accl.data.questions import LETTERS, PARTS, Corpus, Question, order_subjects
from accl.data.subjects import subject_named
from accl.errors import DataError

AUXILIARY = "auxiliary_train"
COLUMNS = ("question", "subject", "choices", "answer")

_PART_OF = {"dev": "dev", "val": "validation", "validation": "validation", "test": "test", AUXILIARY: AUXILIARY}
_LAYOUTS = (
    "Looked for: test/<subject>_test.csv (also dev, val), all/test-*.parquet or test*.parquet (also dev, validation), "
    "and a datasets save_to_disk folder."
)


def read_folder(folder: Path) -> Corpus:
    """Read the questions of a local folder in any known layout.

    Raises:
        DataError: no such folder, no known layout in it, or a malformed file.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"The data folder {folder} {what}.", "Check data.path, or run with --profile demo.")
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _read_saved(folder)
    for parquet in (folder / "all", folder):
        if any(parquet.glob("*.parquet")):
            return read_parquet(parquet, f"folder {folder} (parquet)")
    if any(folder.glob("*/*.csv")):
        return _read_csv_folder(folder)
    raise DataError(f"No questions found in {folder}.", _LAYOUTS)


@dataclass
class _Builder:
    """Collects questions and checks them; all must have as many options as the first."""

    parts: defaultdict[str, list[Question]] = field(default_factory=lambda: defaultdict(list))
    options: int = 0
    rows: Counter[str] = field(default_factory=Counter)

    def add(self, part: str, task: str, group: str, text: str, options: Sequence[str], answer: int) -> str:
        """Add one question; returns the reason for which it was refused, or an empty string.

        Args:
            group: prefix of the id, which is numbered within it: ``test/anatomy`` gives ``test/anatomy/0`` and so on.
        """
        if not self.options:
            if not 2 <= len(options) <= len(LETTERS):
                return f"{len(options)} options instead of 2 to {len(LETTERS)}"
            self.options = len(options)
        if len(options) != self.options:
            return f"{len(options)} options, but the questions before it have {self.options}"
        if not 0 <= answer < self.options:
            return f"answer {answer} is outside 0..{self.options - 1}"
        # Auxiliary questions without a text are kept: they are never tested, and their options still teach.
        if part != AUXILIARY and not text.strip():
            return "the question is empty"
        self.parts[part].append(Question(f"{group}/{self.rows[group]}", task, text, tuple(options), answer))
        self.rows[group] += 1
        return ""

    def corpus(self, folder: Path, source: str, revision: str = "") -> Corpus:
        """Make the corpus of all questions added; raises `DataError` if none has a subject."""
        names = order_subjects([q.task for questions in self.parts.values() for q in questions if q.task])
        if not names:
            raise DataError(f"{folder} holds no question with a subject.", _LAYOUTS)
        parts = {part: self.parts[part] for part in PARTS if part in self.parts}
        return Corpus(tuple(subject_named(name) for name in names), parts, source, revision)


# Hendrycks CSV


def _read_csv_folder(folder: Path) -> Corpus:
    builder = _Builder()
    folder_of: dict[str, Path] = {}
    for split in sorted({path.parent for path in folder.glob("*/*.csv")}):
        part = _PART_OF.get(split.name)
        if part is None:
            hint = f"Splits are: {', '.join(_PART_OF)}; move others away."
            raise DataError(f"{split} holds CSV files but is no split.", hint)
        if part in folder_of:
            raise DataError(f"{folder} has both {folder_of[part].name}/ and {split.name}/.", "Keep one of the two.")
        folder_of[part] = split
    for part in (part for part in PARTS if part in folder_of):
        for path in sorted(folder_of[part].glob("*.csv")):
            _read_csv(path, part, builder)
    return builder.corpus(folder, f"folder {folder} (CSV)")


def _read_csv(path: Path, part: str, builder: _Builder) -> None:
    task = ""
    if part != AUXILIARY:
        task, _, suffix = path.stem.rpartition("_")
        if not task or _PART_OF.get(suffix) != part:
            wanted = f"<subject>_{path.parent.name}.csv"
            raise DataError(f"{path} is not named {wanted}.", "The subject is read from the file's name.")
    group = f"{part}/{task or path.stem}"
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    number = 0
    try:
        for row in reader:
            if not row:  # a blank line is no record
                continue
            number += 1
            if len(row) < 4 or (builder.options and len(row) != builder.options + 2):
                wanted = str(builder.options + 2) if builder.options else "at least 4"
                hint = "Columns are: the question, its options, the letter of the right one; quote commas."
                raise _malformed(path, number, f"{len(row)} columns instead of {wanted}", hint)
            letter = row[-1].strip()
            answer = LETTERS.find(letter) if len(letter) == 1 else -1
            if not 0 <= answer < len(row) - 2:
                hint = f"The last column is a letter from A to {LETTERS[len(row) - 3]}; the file has no header line."
                raise _malformed(path, number, f"the answer {letter[:20]!r} is no letter of an option", hint)
            if wrong := builder.add(part, task, group, row[0], row[1:-1], answer):
                raise _malformed(path, number, wrong)
    except csv.Error as error:
        raise _malformed(path, number + 1, f"not valid CSV ({error})", "Quote as RFC 4180 says.") from error


def _read_text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start]
        raise DataError(f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8.", "Save the file as UTF-8.") from error


def _malformed(path: Path, row: int, what: str, hint: str = "") -> DataError:
    return DataError(f"{path}, row {row}: {what}.", hint)


# Parquet


def read_parquet(folder: Path, source: str, revision: str = "") -> Corpus:
    """Read ``<split>*.parquet`` files with the columns question, subject, choices and answer.

    Raises:
        DataError: no such file, a column missing or of the wrong type, or a malformed row.
    """
    import duckdb

    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no parquet file.", _LAYOUTS)
    builder = _Builder()
    ordered = f"SELECT {', '.join(COLUMNS)} FROM read_parquet(?) ORDER BY file_row_number"
    with duckdb.connect(":memory:") as connection:
        for part, path in sorted(((_part_of_file(path), path) for path in files), key=lambda f: PARTS.index(f[0])):
            try:
                found = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
                _check_columns(path, {name: kind for name, kind, *_ in found})
                rows = connection.execute(ordered, [str(path)]).fetchall()
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise DataError(f"{path} cannot be read: {reason}", "Fetch or write the file again.") from error
            _add_rows(builder, path, part, rows)
    return builder.corpus(folder, source, revision)


def _part_of_file(path: Path) -> str:
    """Return the part that a file belongs to: ``test`` for ``test-00000-of-00001.parquet`` and ``test.parquet``."""
    letters = re.match(r"[^\W\d]*", path.stem)
    part = _PART_OF.get(letters[0].strip("_") if letters else "")
    if part is None:
        hint = f"Its name must start with one of: {', '.join(_PART_OF)}."
        raise DataError(f"{path} belongs to no known split.", hint)
    return part


def _check_columns(path: Path, types: dict[str, str]) -> None:
    missing = [name for name in COLUMNS if name not in types]
    if missing:
        hint = f"It has: {', '.join(types)}."
        if "train" in types:  # the Hub's config `auxiliary_train` nests its rows
            hint += " Use the files of the config `all`."
        raise DataError(f"{path} has no column {', '.join(missing)}.", hint)
    for name, wanted in (("choices", "VARCHAR[]"), ("question", "VARCHAR")):
        if types[name] != wanted:
            raise DataError(f"{path}: column {name} is {types[name]} instead of {wanted}.")
    if "INT" not in types["answer"]:
        hint = "It is the index of the right option, from 0."
        raise DataError(f"{path}: column answer is {types['answer']} instead of an integer.", hint)


def _add_rows(builder: _Builder, path: Path, part: str, rows: Iterable[Sequence[Any]]) -> None:
    """Add rows of (question, subject, choices, answer), in order."""
    for number, (text, subject, choices, answer) in enumerate(rows, start=1):
        # Auxiliary questions train cross-entropy alone, which needs no subject.
        task = "" if part == AUXILIARY else (subject or "").strip()
        if part != AUXILIARY and not task:
            raise _malformed(path, number, "the subject is empty", "Only auxiliary_train may have questions without.")
        if text is None or choices is None or answer is None or None in choices:
            raise _malformed(path, number, "a value is missing (null)")
        if not isinstance(answer, int):
            raise _malformed(path, number, f"the answer {answer!r} is no integer", "It is an index, from 0.")
        group = f"{part}/{task}" if task else part
        if wrong := builder.add(part, task, group, text, choices, answer):
            raise _malformed(path, number, wrong)


# datasets.save_to_disk


def _read_saved(folder: Path) -> Corpus:
    from datasets import Dataset, load_from_disk  # seconds to import, and needed by nothing else

    try:
        saved = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} cannot be read as a save_to_disk folder: {error}", "Save it again.") from error
    splits = {str(saved.split): saved} if isinstance(saved, Dataset) else {str(k): v for k, v in saved.items()}
    builder = _Builder()
    by_part: dict[str, Any] = {}
    for name, data in splits.items():
        part = _PART_OF.get(name)
        if part is None or part in by_part:
            what = "has no known name" if part is None else "is there twice"
            raise DataError(f"{folder}: split {name!r} {what}.", f"Splits are: {', '.join(_PART_OF)}.")
        by_part[part] = data
    for part, data in sorted(by_part.items(), key=lambda item: PARTS.index(item[0])):
        if missing := [name for name in COLUMNS if name not in data.column_names]:
            hint = f"It has: {', '.join(data.column_names)}."
            raise DataError(f"{folder}, split {part}: no column {', '.join(missing)}.", hint)
        columns = data.select_columns(list(COLUMNS))[:]
        _add_rows(builder, folder / part, part, zip(*(columns[name] for name in COLUMNS), strict=True))
    return builder.corpus(folder, f"folder {folder} (save_to_disk)")
