"""CSV files that would be read as something else than was meant: each is refused by file and row."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pytest
from data_folders import accounted, csv_folder, good, questions, refusal
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("content", "says"),
    [
        # the number of options is never set by one odd row
        ("Which, then, is it?,a,b,c,d,A\n" + good(3), "row 1: 8 columns instead of 6, which 4 of 5 rows have."),
        ("Which, then, is it?,a,b,c,d,A\n" + good(1), "row 1: 8 columns instead of 6"),
        (good(3) + "q,a,b,c,d,e,A\n", "row 4: 7 columns instead of 6"),
        # quotes
        ('He said "no", twice?,1,2,3,4,B\n', "row 1: a quote inside a field that is not quoted. Quote the field"),
        (good(1) + 'a 5" pipe,1,2,3,4,B\n', "row 2: a quote inside a field"),
        (good(1) + 'q, "1",2,3,4,B\n', "row 2: a quote inside a field"),
        (good(1) + '"What is 1?,1,2,3,4,B\n' + good(2), "row 2: not valid CSV in line 2 (unexpected end of data)."),
        (good(1) + 'q,1,2,3,"4,B\n' + good(2) + 'q,1,2,3,4",B\n', "row 2: column 5 takes in what looks like the end"),
        (good(1) + 'q,1,2,3,"4,B\n' + 'q,1,2,3,4",B\n', "row 2: column 5 takes in"),
        (good(1) + f"{'x' * (2**20 + 1)},1,2,3,4,B\n", "row 2: not valid CSV in line 2 (field larger than field limit"),
        (good(1) + f"{'x' * 2**19},{'x' * 2**19},2,3,4,B\n", "row 2: the question and its options have more than"),
        # columns that stand elsewhere
        ("question,A,B,C,D,answer\n" + good(2), "row 1: the answer 'answer' is no letter of an option, in column 6."),
        ("".join(f"A,q{i},1,2,3,4\n" for i in range(3)), "row 1: the answer '4' is no letter of an option"),
        ("".join(f"q{i},1,2,3,4,A,why\n" for i in range(3)), "The letters stand in column 6."),
        ("".join(f"{i},q{i},1,2,3,4,A\n" for i in range(3)), "column 1 holds another number in every row: an"),
        ("".join(f"{i * 7},q{i},1,2,3,4,A\n" for i in range(3)), "an index, no question"),
        ("".join(f"anatomy,q{i},1,2,3,4,A\n" for i in range(2)), "row 1: column 1 holds the subject"),
        (good(1) + "q,1,2,3,4,2\n", "row 2: the answer '2' is no letter of an option, in column 6. The last column"),
        (good(1) + "q,1,2,3,4,a\n", "row 2: the answer 'a' is no letter"),
        # blanks
        (good(1) + "q,,2,,4,B\n", "row 2: option A, C is blank. Give every option a text."),
        (good(1) + "q,1,2,3, ,B\n", "row 2: option D is blank. If anatomy has questions of fewer options"),
        (good(1) + ",,,,,\n", "row 2: the answer '' is no letter"),
        # encodings
        (good(1).encode("utf-16"), "line 1: UTF-16 instead of UTF-8."),
        (good(1).encode("utf-16-le"), "line 1: a NUL character, as in UTF-16."),
        (good(1).encode() + b"q,1,2,3,\0,A\n", "line 2: a NUL character"),
        (good(1).encode() + "é,1,2,3,4,A\n".encode("latin-1"), "line 2: byte 0xe9 is not UTF-8."),
        ("", "holds no question."),
        ("\ufeff\n\r\n", "holds no question."),
    ],
)  # fmt: skip
def test_a_csv_file_that_would_be_read_as_something_else_is_refused(
    tmp_path: Path, content: str | bytes, says: str
) -> None:
    path = csv_folder(tmp_path, content)
    csv_folder(tmp_path, good(1), "virology_test.csv")
    text = refusal(tmp_path)
    assert text.startswith(str(path))
    assert says in text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_and_line_ends_do_not_matter(tmp_path: Path, end: str) -> None:
    text = "\ufeff" + good(2) + '"a ""quoted"" one,\nin two lines",x" "y,2,3,4,B\n'.replace('x" "y', "x y")
    csv_folder(tmp_path, text.replace("\n", end))
    found = questions(tmp_path)
    assert found[0][1] == "What is 0?"
    assert found[2][1:] == (f'a "quoted" one,{end}in two lines', ("x y", "2", "3", "4"), 1)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    csv_folder(tmp_path, good(1), os.fsdecode(b"caf\xe9_test.csv"))
    assert "is not UTF-8. Rename the file." in refusal(tmp_path)


# --- any bytes

SPICE = [b'"', b",", b"\n", b"\r\n", b"\0", b"\xff", b'",', b'"",', b",A\n", b"x", "é\u2028".encode()]


@settings(max_examples=100, deadline=None)
@given(content=st.lists(st.one_of(st.sampled_from(SPICE), st.binary(max_size=8)), max_size=40).map(b"".join))
def test_any_bytes_are_read_whole_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    csv_folder(folder, good(1).encode() + content)
    if corpus := accounted(folder):
        # Every letter, digit and sign of the file is in a question: nothing was dropped.
        texts = "".join(part for q in corpus.parts["test"] for part in (q.text, *q.options, "ABCDEFGH"[q.answer]))
        assert Counter(filter(str.isalnum, texts)) == Counter(filter(str.isalnum, good(1) + content.decode()))


cell = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(st.one_of(cell, st.sampled_from("ABCD")), min_size=1, max_size=8), max_size=6))
def test_any_cells_are_read_whole_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    folder = tmp_path_factory.mktemp("cells")
    path = folder / "test" / "anatomy_test.csv"
    path.parent.mkdir()
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    if corpus := accounted(folder, len(rows)):
        found = [[q.text, *q.options, "ABCDEFGH"[q.answer]] for q in corpus.parts["test"]]
        assert [row[:-1] for row in found] == [row[:-1] for row in rows]
