"""Parquet and save_to_disk files are read by the types that they declare, or refused by file and column."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from data_folders import COLUMNS, accounted, arrow_folder, parquet_folder, questions, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

WRITERS = pytest.mark.parametrize("write", [parquet_folder, arrow_folder])

TEXTS = [
    pa.array(COLUMNS["question"], pa.large_string()),
    pa.array(COLUMNS["question"], pa.string()).dictionary_encode(),
]
LISTS = [
    pa.array(COLUMNS["choices"], pa.list_(pa.string(), 4)),
    pa.array(COLUMNS["choices"], pa.large_list(pa.large_string())),
]


@WRITERS
def test_every_way_to_store_text_lists_and_indices_is_read(
    tmp_path: Path, write: Callable[[Path, pa.Table], Path]
) -> None:
    write(tmp_path / "plain", pa.table(COLUMNS))
    expected = questions(tmp_path / "plain")
    assert expected[1] == ("virology", "What is 2+2?", ("1", "2", "3", "4"), 3)
    stored = [{"question": text} for text in TEXTS] + [{"choices": choices} for choices in LISTS]
    stored += [{"answer": pa.array([1, 3], kind)} for kind in (pa.int8(), pa.uint16(), pa.int64(), pa.uint64())]
    stored.append({"further": pa.array([{"a": [1.5]}] * 2)})
    for number, columns in enumerate(stored):
        write(tmp_path / str(number), pa.table(COLUMNS | columns))
        assert questions(tmp_path / str(number)) == expected


@WRITERS
@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("subject", pa.array([0, 1]), "column subject is BIGINT instead of text or classes with names."),
        ("subject", pa.array([["anatomy"], ["a"]]), "column subject is VARCHAR[] instead of text"),
        ("subject", pa.array([b"anatomy", b"a"]), "column subject is BLOB instead of text"),
        ("subject", pa.array(["anatomy", None]), "row 2: the subject is empty."),
        ("subject", pa.array(["anatomy", " "]), "row 2: the subject is empty."),
        ("question", pa.array([1, 2]), "column question is BIGINT instead of text."),
        ("question", pa.array(["a", None]), "row 2: column question has a missing value (null)."),
        ("question", pa.array(["a", "b\0"]), "row 2: a NUL character"),
        ("choices", pa.array(["1,2,3,4"] * 2), "column choices is VARCHAR instead of a list of text."),
        ("choices", pa.array([[1, 2, 3, 4]] * 2), "column choices is BIGINT[] instead of a list of text."),
        ("choices", pa.array([[["1"], ["2"]]] * 2), "column choices is VARCHAR[][] instead of a list of text."),
        ("choices", pa.array([{"text": ["1", "2"]}] * 2), "column choices is STRUCT("),
        ("choices", pa.array([["1", "2", "3", "4"], ["1", None, "3", "4"]]), "row 2: column choices has a missing"),
        ("choices", pa.array([["1", "2", "3", "4"], None]), "row 2: column choices has a missing"),
        ("choices", pa.array([["1", "2", "3", "4"], ["1", "2", "3", ""]]), "row 2: option D is blank."),
        ("choices", pa.array([["1", "2", "3", "4"], []]), "row 2: 0 options instead of 2 to 26."),
        ("choices", pa.array([["1", "2", "3", "4"], ["1"] * 27]), "row 2: 27 options instead of 2 to 26."),
        ("choices", pa.array([["1", "2", "3", "4"], ["1"] * 5]), "row 2: 5 options instead of 4, which 1 of 2 rows"),
        ("answer", pa.array(["A", "B"]), "column answer is VARCHAR instead of an integer"),
        ("answer", pa.array([1.0, 3.0]), "column answer is DOUBLE instead of an integer"),
        ("answer", pa.array([True, False]), "column answer is BOOLEAN instead of an integer"),
        ("answer", pa.array([[1], [3]]), "column answer is BIGINT[] instead of an integer"),
        ("answer", pa.array([1, 2**63 - 1]), f"row 2: answer {2**63 - 1} is outside 0..3."),
        ("answer", pa.array([1, 2**64 - 1], pa.uint64()), f"row 2: answer {2**64 - 1} is outside 0..3."),
        ("answer", pa.array([1, -1]), "row 2: answer -1 is outside 0..3."),
        ("answer", pa.array([1, None]), "row 2: column answer has a missing value (null)."),
    ],
)  # fmt: skip
def test_a_column_of_another_type_and_a_value_out_of_range_are_refused(
    tmp_path: Path, write: Callable[[Path, pa.Table], Path], column: str, values: pa.Array, says: str
) -> None:
    path = write(tmp_path, pa.table(COLUMNS | {column: values}))
    text = refusal(tmp_path)
    assert text.startswith(str(path))
    assert says in text


@WRITERS
@pytest.mark.parametrize("column", ["question", "subject", "choices", "answer"])
@pytest.mark.parametrize("again", [str.capitalize, str.upper])
@pytest.mark.parametrize("place", [0, 4])
def test_two_columns_that_read_as_one_are_refused_by_name(
    tmp_path: Path, write: Callable[[Path, pa.Table], Path], column: str, again: Callable[[str], str], place: int
) -> None:
    table = pa.table(COLUMNS)
    path = write(tmp_path, table.add_column(place, again(column), table[column]))
    names = f"{column}, {again(column)}" if place else f"{again(column)}, {column}"
    assert refusal(tmp_path) == f"{path} has 2 columns that read as {column}: {names}. Keep one of them."


@WRITERS
def test_a_column_that_comes_twice_is_refused_by_name(tmp_path: Path, write: Callable[[Path, pa.Table], Path]) -> None:
    table = pa.table(COLUMNS)
    path = write(tmp_path, table.append_column("answer", table["answer"]))
    text = refusal(tmp_path)
    assert text.startswith(str(path))
    assert "answer" in text.removeprefix(str(path))


@WRITERS
def test_parts_of_a_column_are_no_columns(tmp_path: Path, write: Callable[[Path, pa.Table], Path]) -> None:
    parts = pa.array([{"answer": 0, "more": [{"question": "", "answer": 1}]}] * 2)
    write(tmp_path, pa.table({"parts": parts, **COLUMNS, "others": parts}))
    assert len(questions(tmp_path)) == 2


@pytest.mark.parametrize("layout", ["parquet", "save_to_disk"])
def test_the_names_of_classes_are_used(tmp_path: Path, layout: str) -> None:
    from datasets import ClassLabel, Dataset, Features, List, Split, Value

    def write(name: str, subjects: list[str], letters: list[str]) -> Path:
        kinds = {"subject": ClassLabel(names=subjects), "answer": ClassLabel(names=letters)}
        features = Features({"question": Value("string"), "choices": List(Value("string")), **kinds})
        data = Dataset.from_dict(COLUMNS | {"subject": [0, 1], "answer": [1, 3]}, features=features, split=Split.TEST)
        (tmp_path / name).mkdir()
        if layout == "parquet":
            data.to_parquet(str(tmp_path / name / "test.parquet"))
        else:
            data.save_to_disk(str(tmp_path / name))
        return tmp_path / name

    plain = write("plain", ["virology", "anatomy"], ["A", "B", "C", "D"])
    assert [(row[0], row[3]) for row in questions(plain)] == [("virology", 1), ("anatomy", 3)]
    assert [row[3] for row in questions(write("turned", ["a", "b"], ["D", "C", "B", "A"]))] == [2, 0]
    assert "column answer has the classes 'yes', 'no', 'x', 'y' instead of letters" in refusal(
        write("words", ["a", "b"], ["yes", "no", "x", "y"])
    )


def test_texts_that_are_not_utf8_are_refused_by_file_and_column(tmp_path: Path) -> None:
    def undecodable() -> pa.Array:
        offsets = pa.py_buffer(b"".join(number.to_bytes(4, "little") for number in (0, 1, 2)))
        return pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff")])

    path = parquet_folder(tmp_path / "parquet", pa.table(COLUMNS | {"question": undecodable()}))
    text = refusal(tmp_path / "parquet")
    assert text.startswith(str(path))
    assert "is not valid UTF8" in text
    path = arrow_folder(tmp_path / "arrow", pa.table(COLUMNS | {"question": undecodable()}))
    assert refusal(tmp_path / "arrow").startswith(f"{path} cannot be read")


def test_a_missing_shard_and_a_file_cut_off_are_refused(tmp_path: Path) -> None:
    one = parquet_folder(tmp_path / "shards", pa.table(COLUMNS))
    one.rename(one.with_name("test-00000-of-00003.parquet"))
    assert "lacks test-00001-of-00003.parquet" in refusal(tmp_path / "shards")
    path = arrow_folder(tmp_path / "arrow", pa.table(COLUMNS))
    os.truncate(path, path.stat().st_size - 8)  # without its end mark, yet a valid stream
    assert refusal(tmp_path / "arrow").startswith(f"{path} is cut off")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "is not what save_to_disk writes"),
        ('{"_split": "test"}', "has no _data_files"),
        ('{"_split": "test", "_data_files": [{"filename": "../x.arrow"}]}', "which is no file beside it"),
        ('{"_split": "test", "_data_files": [7]}', "which is no file beside it"),
        ('{"_split": "extra", "_data_files": [{}]}', "split 'extra' has no known name"),
    ],
)
def test_a_damaged_description_of_a_saved_folder_is_refused(tmp_path: Path, state: str, says: str) -> None:
    arrow_folder(tmp_path, pa.table(COLUMNS))
    (tmp_path / "state.json").write_text(state)
    assert says in refusal(tmp_path)


# --- any bytes


@WRITERS
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_mutated_file_is_read_whole_or_refused(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path, pa.Table], Path], seed: int
) -> None:
    folder, rng = tmp_path_factory.mktemp("mutated"), random.Random(seed)
    path = write(folder, pa.table(COLUMNS))
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(content))
        change = rng.randrange(4)
        if change == 0:
            content[at] = rng.randrange(256)
        elif change == 1:
            content[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif change == 2:
            del content[at : at + rng.randrange(1, 40)]
        else:
            content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    accounted(folder, 2)
