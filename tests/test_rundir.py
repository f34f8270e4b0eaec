"""What counts as a run, which is the newest, which one a name means, and how its files are read."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from accl.config import dump, resolve
from accl.errors import AbsentError, BusyError, DamagedError, RunError
from accl.store.rundir import JSON_DEPTH, RunDir, create_run, find_run, is_id, list_runs, run_folders

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def made(root: Path, hour: int, name: str = "") -> RunDir:
    run = create_run(root, "full", 1, NOON.replace(hour=hour))
    run.config.write_text(dump(resolve("full", "demo", []).config), encoding="utf-8")
    run.write_json(run.provenance, {"created": NOON.replace(hour=hour).isoformat()})
    return RunDir(run.path.rename(root / name)) if name else run


def test_an_id_has_the_time_in_utc_whatever_the_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.setenv("TZ", "Pacific/Kiritimati")  # 14 hours ahead
        time.tzset()
        before = datetime.now(UTC)
        stamp = create_run(tmp_path, "full", 1).id[:15]
        assert before.strftime("%Y%m%d-%H%M%S") <= stamp <= datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_last_is_the_run_made_last_whatever_copies_are_called(tmp_path: Path) -> None:
    old, new = made(tmp_path, 1), made(tmp_path, 2)
    shutil.copytree(old.path, tmp_path / "zz-backup")
    shutil.copytree(new.path, tmp_path / "zz-copy")
    assert find_run(tmp_path, "last") == new
    assert [run.id for run in list_runs(tmp_path)] == ["zz-backup", old.id, "zz-copy", new.id]


def test_a_run_that_was_renamed_keeps_its_place(tmp_path: Path) -> None:
    newest = made(tmp_path, 3, name="a-good-one")
    made(tmp_path, 2)
    assert find_run(tmp_path, "last") == newest


@pytest.mark.parametrize("created", ["yesterday", 5, None, "9999-99-99", [1]])
def test_without_a_usable_time_in_its_provenance_a_run_has_that_of_its_id(tmp_path: Path, created: object) -> None:
    run = made(tmp_path, 5)
    run.write_json(run.provenance, {"created": created})
    assert run.created == NOON.replace(hour=5).timestamp()


def test_without_provenance_and_id_a_run_is_as_old_as_its_configuration(tmp_path: Path) -> None:
    run = made(tmp_path, 5, name="mine")
    run.provenance.unlink()
    os.utime(run.config, (77, 77))
    assert run.created == 77
    run.config.unlink()
    assert run.age_key[0] == float("-inf")
    run.write_json(run.provenance, {"created": "2026-11-26T12:00:00"})  # no zone means UTC
    assert run.created == NOON.timestamp()


def test_a_run_has_a_configuration_of_any_kind_or_the_name_of_one(tmp_path: Path) -> None:
    whole = made(tmp_path, 1)
    (tmp_path / "mine").mkdir()
    os.mkfifo(tmp_path / "mine" / "config.yaml")
    stamp = "20261126-120000-full-s1-00"
    broken = [f"{stamp}0{i}" for i in range(4)]
    (tmp_path / broken[0]).mkdir()
    (tmp_path / broken[0] / "console.log").touch()
    (tmp_path / broken[1]).symlink_to("nowhere")
    (tmp_path / broken[2]).symlink_to(broken[2])
    (tmp_path / broken[3]).touch()
    (tmp_path / f"{stamp}10").mkdir()  # only being made
    (tmp_path / f"{stamp}10.tar").touch()
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "notes").symlink_to("notes")
    (tmp_path / "file").touch()
    assert {run.id for run in run_folders(tmp_path)} == {whole.id, "mine", *broken}
    assert is_id(whole.id)


def test_a_runs_folder_that_is_none_is_one_clear_error(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be read"):
        list_runs(tmp_path / "file")


@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_a_blank_name_means_no_run_even_where_there_is_only_one(tmp_path: Path, name: str) -> None:
    made(tmp_path, 1)
    with pytest.raises(RunError, match="empty"):
        find_run(tmp_path, name)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "/", "..", "full\n", "[red]", "*"])
def test_an_odd_name_means_no_run(tmp_path: Path, name: str) -> None:
    made(tmp_path, 1)
    with pytest.raises(RunError, match="No run named"):
        find_run(tmp_path, name)


def test_a_path_names_a_broken_run_too(tmp_path: Path) -> None:
    run = made(tmp_path, 1)
    run.config.unlink()
    run.config.symlink_to(run.config)
    assert find_run(tmp_path / "elsewhere", f"{run.path}/../{run.id}/") == run


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * (JSON_DEPTH + 1) + "]" * (JSON_DEPTH + 1), "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "a key comes twice"),
        ('{"a": "\\ud800"}', "surrogates"),
        ('{"\\ud800": 1}', "surrogates"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[]", "no JSON object"),
        ("", "not valid JSON"),
    ],
)
def test_json_is_limited_and_every_refusal_names_the_file(tmp_path: Path, text: str, words: str) -> None:
    run = made(tmp_path, 1)
    run.labels.write_text(text)
    with pytest.raises(DamagedError, match=words) as caught:
        run.read_json(run.labels)
    assert str(run.labels) in caught.value.what


def test_json_that_is_nested_as_ours_is_read(tmp_path: Path) -> None:
    run = made(tmp_path, 1)
    content = {"a": [{"b": [1, "ü", None]}]}
    run.labels.write_text(json.dumps(content))
    assert run.read_json(run.labels) == content
    assert run.read_json(run.path / "none.json") == {}


def test_a_configuration_is_absent_or_damaged_or_loaded(tmp_path: Path) -> None:
    run = made(tmp_path, 1)
    assert run.load_config().recipe == "full"
    run.config.write_text(run.config.read_text().replace("optim:", "optimism:"))
    with pytest.raises(DamagedError, match="optimism"):
        run.load_config()
    run.config.write_text("recipe: full\nprofile: demo\ntrain:\n  seed: 1\n#" + " " * 2**24)
    with pytest.raises(DamagedError, match="more than"):
        run.load_config()
    run.config.write_text("recipe: full\nprofile: demo\ntrain:\n" + "  x: 1\n" * 5000)
    with pytest.raises(DamagedError, match="too much"):
        run.setup()
    run.config.unlink()
    with pytest.raises(AbsentError):
        run.load_config()


def test_a_runs_folder_that_does_not_answer_and_a_run_in_it_are_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering, hanging = made(tmp_path, 1), made(tmp_path, 2)
    monkeypatch.setattr("accl.store.rundir.DEADLINE_S", 0.2)
    never, lstat = threading.Event(), os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: never.wait() if str(hanging.path) in str(path) else lstat(path))
    assert set(list_runs(tmp_path)) == {answering, hanging}
    assert find_run(tmp_path, hanging.id) == hanging
    monkeypatch.setattr(os, "listdir", lambda _path: never.wait())
    with pytest.raises(BusyError):
        list_runs(tmp_path)


def test_a_runs_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        create_run(tmp_path / "file" / "runs", "full", 1)


def test_no_run_is_made_where_no_database_can_be(tmp_path: Path) -> None:
    (tmp_path / "what?").mkdir()
    (tmp_path / "link").symlink_to("what?")
    for name in ("what?", "link", "what?/below"):
        with pytest.raises(RunError, match="DuckDB"):
            create_run(tmp_path / name, "full", 1)
    assert list((tmp_path / "what?").iterdir()) == []


def test_a_suggested_command_takes_any_name_of_a_folder_as_one_argument(tmp_path: Path) -> None:
    assert RunDir(tmp_path / "20261122-101500-full-s42-7f3a").typed == "20261122-101500-full-s42-7f3a"
    hostile = RunDir(tmp_path / "x; rm -rf $(pwd) '")
    assert shlex.split(f"accl show {hostile.typed}") == ["accl", "show", hostile.id]


def test_the_name_of_an_experiment_where_a_run_is_asked_for_is_told_as_one(tmp_path: Path) -> None:
    for hour in (1, 2):
        made(tmp_path, hour).write_json(RunDir(list_runs(tmp_path)[-1].path).experiment, {"name": "weights"})
    damaged = made(tmp_path, 3)
    damaged.experiment.write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="No run named 'weights'") as refused:
        find_run(tmp_path, "weights")
    assert "an experiment of 2 runs" in str(refused.value.hint)
    assert "accl runs experiment=weights" in str(refused.value.hint)
    with pytest.raises(RunError, match="No run named 'wei'") as refused:
        find_run(tmp_path, "wei")
    assert "Did you mean the experiment weights?" in str(refused.value.hint)
