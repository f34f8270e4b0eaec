"""Data folders for tests, and what reading them says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from accl.data.questions import Corpus
from accl.data.sources import load_corpus
from accl.errors import DataError

GOOD = "What is {}?,one,two,three,four,A\n"


def csv_folder(folder: Path, content: str | bytes, name: str = "anatomy_test.csv") -> Path:
    path = folder / "test" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def good(count: int, word: str = "") -> str:
    return "".join(GOOD.format(f"{word}{number}") for number in range(count))


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_corpus("folder", str(folder))
    assert "\n" not in caught.value.what
    return str(caught.value)


def questions(folder: Path) -> list[tuple[Any, ...]]:
    return [(q.task, q.text, q.options, q.answer) for q in load_corpus("folder", str(folder)).parts["test"]]


def accounted(folder: Path, records: int | None = None) -> Corpus | None:
    """Read a folder: a corpus of all its records, or None for one that is refused by its file."""
    try:
        corpus = load_corpus("folder", str(folder))
    except DataError as error:
        said = error.what
    else:
        assert records is None or sum(map(len, corpus.parts.values())) == records
        return corpus
    assert said.startswith(str(folder))
    return None


COLUMNS: dict[str, Any] = {
    "question": ["What is 1+1?", "What is 2+2?"],
    "subject": ["anatomy", "virology"],
    "choices": [["1", "2", "3", "4"]] * 2,
    "answer": [1, 3],
}


def parquet_folder(folder: Path, table: pa.Table) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "test-00000-of-00001.parquet"
    with path.open("wb") as file:  # pyarrow takes some names for addresses
        pyarrow.parquet.write_table(table, file)
    return path


def arrow_folder(folder: Path, table: pa.Table) -> Path:
    """Write a table as ``save_to_disk`` does, which itself would not write every type."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "test"}')
    (folder / "dataset_info.json").write_text("{}")
    path = folder / "data-00000-of-00001.arrow"
    with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return path
