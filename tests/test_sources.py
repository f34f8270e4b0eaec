"""Questions from every layout of a local folder, and what malformed ones say."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accl.data.questions import Corpus
from accl.data.sources import load_corpus
from accl.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
MMLU = Path(os.environ.get("ACCL_MMLU", ROOT.parent / "shared" / "mmlu"))

Row = tuple[str, str, list[str], int]

ROWS: dict[str, list[Row]] = {
    "test": [
        ("Where is the heart?", "anatomy", ["chest", "foot", "hand", "head"], 0),
        ('Say "1, 2"\nand 3', "anatomy", ["a,b", "c", "d", "e"], 3),
        ("What is a star?", "astronomy", ["a sun", "a moon", "a rock", "a gas"], 0),
    ],
    "dev": [("Which is red?", "virology", ["Mars", "Moon", "Sun", "Io"], 0)],
    "validation": [("What flows?", "anatomy", ["blood", "bone", "skin", "hair"], 0)],
    "auxiliary_train": [("What is 1 + 1?", "", ["1", "2", "3", "4"], 1)],
}


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def as_csv(folder: Path, rows: dict[str, list[Row]]) -> None:
    short = {"validation": "val"}
    for part, questions in rows.items():
        split = short.get(part, part)
        for subject in {subject for _, subject, _, _ in questions}:
            lines = [[q, *options, "ABCD"[a]] for q, s, options, a in questions if s == subject]
            name = f"{subject}_{split}.csv" if subject else "science.csv"
            write_csv(folder / split / name, lines)


def as_parquet(folder: Path, rows: dict[str, list[Row]], columns: str = "question, subject, choices, answer") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (question VARCHAR, subject VARCHAR, choices VARCHAR[], answer BIGINT)")
        for part, questions in rows.items():
            connection.execute("DELETE FROM t")
            for row in questions:
                connection.execute("INSERT INTO t VALUES (?, ?, ?, ?)", list(row))
            path = folder / f"{part}-00000-of-00001.parquet"
            connection.execute(f"COPY (SELECT {columns} FROM t) TO '{path}'")


def as_saved(folder: Path, rows: dict[str, list[Row]]) -> None:
    from datasets import Dataset, DatasetDict

    names = ("question", "subject", "choices", "answer")
    splits = {
        part: Dataset.from_list([dict(zip(names, row, strict=True)) for row in questions])
        for part, questions in rows.items()
    }
    DatasetDict(splits).save_to_disk(str(folder))


def labelled(corpus: Corpus) -> dict[str, list[tuple[Any, ...]]]:
    """What must be equal in every layout: all questions that have a task."""
    return {
        part: [(q.id, q.task, q.text, q.options, q.answer) for q in questions]
        for part, questions in corpus.parts.items()
        if part != "auxiliary_train"
    }


@pytest.mark.parametrize("layout", ["csv", "parquet in all/", "parquet", "save_to_disk"])
def test_every_layout_gives_the_same_questions(tmp_path: Path, layout: str) -> None:
    write = {"csv": as_csv, "save_to_disk": as_saved}.get(layout, as_parquet)
    write(tmp_path / "all" if layout == "parquet in all/" else tmp_path, ROWS)
    corpus = load_corpus("folder", str(tmp_path))
    assert [s.name for s in corpus.subjects] == ["anatomy", "astronomy", "virology"]
    assert [s.category for s in corpus.subjects] == ["other", "STEM", "other"]
    assert list(corpus.parts) == ["dev", "validation", "test", "auxiliary_train"]
    ids = {part: [q[0] for q in questions] for part, questions in labelled(corpus).items()}
    assert ids == {
        "dev": ["dev/virology/0"],
        "validation": ["validation/anatomy/0"],
        "test": ["test/anatomy/0", "test/anatomy/1", "test/astronomy/0"],
    }
    for part, rows in ROWS.items():
        found = [(q.text, q.task, list(q.options), q.answer) for q in corpus.parts[part]]
        assert found == rows


def test_ids_and_order_do_not_depend_on_the_layout(tmp_path: Path) -> None:
    as_csv(tmp_path / "csv", ROWS)
    as_parquet(tmp_path / "parquet", ROWS)
    one, other = (load_corpus("folder", str(tmp_path / name)) for name in ("csv", "parquet"))
    assert labelled(one) == labelled(other)
    assert load_corpus("folder", str(tmp_path / "csv")).fingerprint == one.fingerprint


def test_missing_splits_are_fine_and_validation_may_be_spelled_out(tmp_path: Path) -> None:
    write_csv(tmp_path / "validation" / "my_own_subject_validation.csv", [["q", "x", "y", "B"]])
    corpus = load_corpus("folder", str(tmp_path))
    assert list(corpus.parts) == ["validation"]
    assert [(s.name, s.category) for s in corpus.subjects] == [("my_own_subject", "other")]
    assert corpus.parts["validation"][0].options == ("x", "y")
    assert corpus.parts["validation"][0].answer == 1


def test_a_single_saved_data_set_is_read_under_the_name_of_its_split(tmp_path: Path) -> None:
    from datasets import Dataset, Split

    data = {"question": ["q"], "subject": ["anatomy"], "choices": [["a", "b"]], "answer": [1]}
    Dataset.from_dict(data, split=Split.TEST).save_to_disk(str(tmp_path))
    assert [q.id for q in load_corpus("folder", str(tmp_path)).parts["test"]] == ["test/anatomy/0"]


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
shown = text.filter(str.strip)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(shown, shown, shown, shown, st.sampled_from("ABC")), min_size=1))
def test_any_text_survives_csv(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    write_csv(folder / "test" / "anatomy_test.csv", rows)
    found = load_corpus("folder", str(folder)).parts["test"]
    assert [(q.text, *q.options, "ABC"[q.answer]) for q in found] == rows


GOOD = "q,a,b,c,d,A\n"


@pytest.mark.parametrize(
    ("content", "row", "says"),
    [
        (GOOD + "q,a,b,c,A\n", 2, "5 columns instead of 6"),
        ("q,a\n", 1, "2 columns instead of at least 4"),
        (GOOD + GOOD + "q,a,b,c,d,E\n", 3, "'E' is no letter of an option"),
        ("question,A,B,C,D,answer\n", 1, "'answer' is no letter"),
        (GOOD + "q,a,b,c,d,\n", 2, "'' is no letter"),
        (GOOD + " ,a,b,c,d,A\n", 2, "the question is empty"),
        (GOOD + '"q,a,b,c,d,A\n', 2, "not valid CSV"),
        (GOOD + "\n" + '"q"x,a,b,c,d,A\n', 2, "not valid CSV"),
    ],
)
def test_a_malformed_csv_row_is_named(tmp_path: Path, content: str, row: int, says: str) -> None:
    path = tmp_path / "test" / "anatomy_test.csv"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_corpus("folder", str(tmp_path))
    assert caught.value.what.startswith(f"{path}, row {row}: ")
    assert says in caught.value.what


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "test" / "anatomy_test.csv"
    path.parent.mkdir()
    path.write_bytes(GOOD.encode() + b"caf\xe9,a,b,c,d,A\n")
    with pytest.raises(DataError, match=r"anatomy_test\.csv, line 2: byte 0xe9 is not UTF-8"):
        load_corpus("folder", str(tmp_path))


def test_all_questions_must_have_the_same_number_of_options(tmp_path: Path) -> None:
    write_csv(tmp_path / "test" / "anatomy_test.csv", [["q", "a", "b", "A"]])
    write_csv(tmp_path / "test" / "virology_test.csv", [["q", "a", "b", "c", "A"]])
    with pytest.raises(DataError, match=r"virology_test\.csv, row 1: 5 columns instead of 4"):
        load_corpus("folder", str(tmp_path))


def test_files_that_would_be_left_out_are_refused_instead(tmp_path: Path) -> None:
    write_csv(tmp_path / "test" / "anatomy_test.csv", [["q", "a", "b", "A"]])
    write_csv(tmp_path / "more" / "anatomy_test.csv", [["q", "a", "b", "A"]])
    with pytest.raises(DataError, match="more holds CSV files but is no split"):
        load_corpus("folder", str(tmp_path))
    (tmp_path / "more").rename(tmp_path / "val")
    with pytest.raises(DataError, match=r"not named <subject>_val\.csv"):
        load_corpus("folder", str(tmp_path))
    (tmp_path / "val" / "anatomy_test.csv").rename(tmp_path / "val" / "anatomy_val.csv")
    write_csv(tmp_path / "validation" / "anatomy_validation.csv", [["q", "a", "b", "A"]])
    with pytest.raises(DataError, match="has both val/ and validation/"):
        load_corpus("folder", str(tmp_path))


def test_a_folder_without_questions_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No questions found in .* Looked for: test/<subject>_test\.csv"):
        load_corpus("folder", str(tmp_path))
    with pytest.raises(DataError, match="nowhere does not exist"):
        load_corpus("folder", str(tmp_path / "nowhere"))
    write_csv(tmp_path / "auxiliary_train" / "race.csv", [["q", "a", "b", "A"]])
    with pytest.raises(DataError, match="no question with a subject"):
        load_corpus("folder", str(tmp_path))


def test_parquet_without_the_needed_columns_is_refused(tmp_path: Path) -> None:
    as_parquet(tmp_path / "a", ROWS, "question, choices, answer")
    with pytest.raises(DataError, match=r"parquet has no column subject\. It has: question, choices, answer"):
        load_corpus("folder", str(tmp_path / "a"))
    as_parquet(tmp_path / "b", ROWS, "question, subject, choices, 'A' AS answer")
    with pytest.raises(DataError, match="column answer is VARCHAR instead of an integer"):
        load_corpus("folder", str(tmp_path / "b"))
    as_parquet(tmp_path / "c", ROWS, "{'question': question} AS train")
    with pytest.raises(DataError, match="config `all`"):
        load_corpus("folder", str(tmp_path / "c"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "test.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"test\.parquet cannot be read"):
        load_corpus("folder", str(tmp_path / "d"))
    (tmp_path / "d" / "test.parquet").rename(tmp_path / "d" / "extra.parquet")
    with pytest.raises(DataError, match=r"extra\.parquet belongs to no known split"):
        load_corpus("folder", str(tmp_path / "d"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("q", "", ["a", "b", "c", "d"], 0), "the subject is empty"),
        (("q", "anatomy", ["a", "b", "c", "d"], 4), "answer 4 is outside 0..3"),
        (("q", "anatomy", ["a", "b", "c", "d"], -1), "answer -1 is outside 0..3"),
        (("q", "anatomy", ["a", "b", "c"], 0), "3 options instead of 4, which 3 of 4 rows have"),
        (("q", "anatomy", ["a", None, "c", "d"], 0), "null"),
        ((None, "anatomy", ["a", "b", "c", "d"], 0), "null"),
        (("  ", "anatomy", ["a", "b", "c", "d"], 0), "the question is empty"),
    ],
)
def test_a_malformed_parquet_row_is_named(tmp_path: Path, row: Any, says: str) -> None:
    as_parquet(tmp_path, {"test": [*ROWS["test"], row]})
    with pytest.raises(DataError) as caught:
        load_corpus("folder", str(tmp_path))
    assert "test-00000-of-00001.parquet, row 4: " in caught.value.what
    assert says in caught.value.what


def test_parquet_rows_keep_their_order_over_shards(tmp_path: Path) -> None:
    rows: list[Row] = [(f"question {n}", "anatomy", ["a", "b"], 0) for n in range(3000)]
    as_parquet(tmp_path, {"test": rows[:2500]})
    (tmp_path / "test-00000-of-00001.parquet").rename(tmp_path / "test-00000-of-00002.parquet")
    as_parquet(tmp_path, {"test": rows[2500:]})
    (tmp_path / "test-00000-of-00001.parquet").rename(tmp_path / "test-00001-of-00002.parquet")
    found = load_corpus("folder", str(tmp_path)).parts["test"]
    assert [q.text for q in found] == [row[0] for row in rows]
    assert found[2999].id == "test/anatomy/2999"


def test_the_built_in_benchmark_is_a_source() -> None:
    corpus = load_corpus("synthetic", "")
    assert len(corpus.subjects) == 57
    assert {"validation", "test"} <= corpus.parts.keys()


@pytest.mark.skipif(not (MMLU / "test").is_dir(), reason="the real MMLU is not on this machine (ACCL_MMLU)")
def test_the_real_mmlu_is_read_whole() -> None:
    corpus = load_corpus("folder", str(MMLU))
    assert {part: len(questions) for part, questions in corpus.parts.items()} == {
        "dev": 285,
        "validation": 1531,
        "test": 14042,
    }
    assert len(corpus.subjects) == 57
    assert all(len(corpus.counts(part)) == 57 for part in corpus.parts)
    assert set(corpus.counts("dev").values()) == {5}
    per_task = sorted(corpus.counts("test").values())
    assert (per_task[0], per_task[28], per_task[-1]) == (100, 173, 1534)
    ids = [q.id for questions in corpus.parts.values() for q in questions]
    assert len(set(ids)) == 15858
