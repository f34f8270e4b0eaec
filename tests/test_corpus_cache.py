"""Questions that were read before come from the cache, as they were and only while their folder is the same."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_folders import COLUMNS, csv_folder, good

from accl.data import corpus_cache, folders, hub, parquet
from accl.data.cache import Cache
from accl.data.questions import Corpus
from accl.data.sources import load_corpus
from accl.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    csv_folder(folder, good(3))
    csv_folder(folder, 'He said ""no""\u2028?'.join(['"', '",one,"two, too",three,four,B\n']), "virology_test.csv")
    return folder


class Loads:
    """Loads a folder with a cache, and counts how often it was read."""

    def __init__(self, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.cache, self.read = folder, Cache(cache), 0
        read = folders.read_folder

        def counted(path: Path) -> Corpus:
            self.read += 1
            return read(path)

        monkeypatch.setattr(folders, "read_folder", counted)

    def __call__(self) -> Corpus:
        return load_corpus("folder", str(self.folder), cache=self.cache)


@pytest.fixture
def loads(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(data, tmp_path / "cache", monkeypatch)


def test_the_second_time_nothing_is_read_and_all_is_the_same(loads: Loads) -> None:
    first, second = loads(), loads()
    assert loads.read == 1
    assert second == first
    (kept,) = loads.folder.with_name("cache").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert second.fingerprint == first.fingerprint
    assert [[q.__dict__["text_hash"] for q in part] for part in second.parts.values()] == [
        [q.text_hash for q in part] for part in load_corpus("folder", str(loads.folder)).parts.values()
    ]


def test_a_folder_that_changed_is_read_anew_whatever_its_times(loads: Loads) -> None:
    loads()
    path = loads.folder / "test" / "anatomy_test.csv"
    times = path.stat()
    path.write_text(path.read_text().replace("What is 0?", "What is 9?"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert loads().parts["test"][0].text == "What is 9?"
    csv_folder(loads.folder, good(2), "zoology_test.csv")
    assert len(loads().subjects) == 3
    path.rename(path.with_name("botany_test.csv"))
    assert loads().subjects[0].name == "botany"
    assert loads.read == 4
    path.with_name("botany_test.csv").write_text("broken\n")
    with pytest.raises(DataError, match="row 1"):
        loads()


def test_a_folder_that_changes_while_it_is_read_is_not_kept(loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    read = folders.read_folder

    def overtaken(path: Path) -> Corpus:
        corpus = read(path)
        csv_folder(path, good(1), "zoology_test.csv")
        return corpus

    monkeypatch.setattr(folders, "read_folder", overtaken)
    assert len(loads().subjects) == 2
    assert len(loads().subjects) == 3
    assert loads.read == 2


def test_what_no_longer_holds_a_corpus_is_read_anew(loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = loads()
    for content in (b"", b"[]", b"{}", b'{"choices": 4, "parts": {"test": 2}}', b"\xff"):
        with monkeypatch.context() as patch:
            patch.setattr(corpus_cache, "_encode", lambda _corpus, content=content: content)
            (file,) = Path(loads.cache._folder or "").glob("questions-*")
            file.unlink()
            loads()
        assert loads() == expected
    assert len(loads.cache.warnings) == 5


@pytest.mark.parametrize("limit", ["MOST_FILES", "MOST_BYTES", "MOST_LEVELS"])
def test_a_folder_that_is_too_large_is_read_each_time(
    loads: Loads, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(corpus_cache, limit, 1)
    assert loads() == loads()
    assert loads.read == 2


def test_what_is_no_folder_is_said_as_without_a_cache(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError) as plain:
            load_corpus("folder", str(path))
        with pytest.raises(DataError) as cached:
            load_corpus("folder", str(path), cache=Cache(tmp_path / ".cache"))
        assert str(cached.value) == str(plain.value)


def test_a_data_set_of_the_hub_is_kept_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "all").mkdir()
    pq.write_table(pa.table(COLUMNS), tmp_path / "all" / "test-00000-of-00001.parquet")
    monkeypatch.setattr(hub, "fetch_data", lambda _path, _revision: tmp_path)
    first = load_corpus("hub", "some/questions", "abc", Cache(tmp_path / "cache"))
    monkeypatch.setattr(parquet, "read_parquet", None)
    assert load_corpus("hub", "some/questions", "abc", Cache(tmp_path / "cache")) == first
    assert (first.source, first.revision) == ("Hub data set some/questions, config all", "abc")
