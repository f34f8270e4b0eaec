"""What a run began as is kept, and compared with what it is."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import pytest

from accl.config import Config, dump, load, resolve
from accl.errors import DamagedError, RunError
from accl.store import provenance
from accl.store.provenance import Change, ChangedError, Launch, check_config, data_fingerprint, read_provenance
from accl.store.rundir import RunDir
from accl.training import start
from accl.training.context import Notice
from accl.training.provenance import DataProvenance, ModelProvenance, Provenance

WHAT = Provenance(
    DataProvenance("folder q", "/data/q", "", "aa", {"test": 160}, {"train": 128, "test": 16}, 4, "bb"),
    ModelProvenance("random:tiny", "", "tiny", False, 1000, "cc", {"hidden_act": "gelu"}, "dd"),
    {"fixed_weights": ""},
    {"type": "cpu", "threads": 1},
)


FIRST = Launch()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "20261126-101500-full-s42-7f3a")
    run.path.mkdir()
    config = resolve("full", "demo").config
    run.config.write_text(dump(config))
    run.write_json(run.provenance, {"run": run.id, "command": ["accl", "train"], "config": config.model_dump()})
    return run


def record(run: RunDir, what: Provenance = WHAT, launch: Launch = FIRST, config: Config | None = None) -> list[Notice]:
    return start.record(run, config or load(run.config), what, {"seed": 42}, launch)


def with_data(**changed: Any) -> Provenance:
    return dataclasses.replace(WHAT, data=dataclasses.replace(WHAT.data, **changed))


def with_model(**changed: Any) -> Provenance:
    return dataclasses.replace(WHAT, model=dataclasses.replace(WHAT.model, **changed))


def test_the_first_start_records_what_the_run_is(run: RunDir) -> None:
    assert record(run) == []
    content = read_provenance(run)
    assert content["data"]["fingerprint"] == "aa"
    assert content["packages"]["torch"]
    [first] = content["starts"]
    assert first["command"] == ["accl", "train"]
    assert first["device"] == {"type": "cpu", "threads": 1}
    assert first["accepted"] == {}
    assert {"time", "host", "versions", "git"} <= first.keys()


def test_a_later_start_is_added_and_nothing_of_the_first_is_lost(run: RunDir) -> None:
    record(run)
    before = read_provenance(run)
    elsewhere = dataclasses.replace(with_data(folder="/mnt/q"), device={"type": "cuda", "name": "H100"})
    notices = record(run, elsewhere, Launch(command=["accl", "resume"], git={"commit": "ee"}))
    assert [(notice.level, notice.kind) for notice in notices] == [("warning", "provenance"), ("info", "data")]
    assert 'device.type was "cpu" and is "cuda"' in notices[0].message
    assert 'was "/data/q" and is "/mnt/q"' in notices[1].message
    after = read_provenance(run)
    assert {key: value for key, value in after.items() if key != "starts"} == {
        key: value for key, value in before.items() if key != "starts"
    }
    assert after["starts"][0] == before["starts"][0]
    assert after["starts"][1]["command"] == ["accl", "resume"]
    assert after["starts"][1]["git"] == {"commit": "ee"}


CHANGED: list[tuple[Provenance, int, str]] = [
    (with_data(fingerprint="ff"), 4, 'data.fingerprint was "aa" and is "ff"'),
    (with_data(parts={"test": 164}), 4, "data.parts.test was 160 and is 164"),
    (with_data(parts={"dev": 160}), 4, "data.parts.dev was null and is 160; data.parts.test was 160 and is null"),
    (with_data(tasks=5), 4, "data.tasks was 4 and is 5"),
    (with_data(tokens="ff"), 4, 'data.tokens was "bb" and is "ff"'),
    (with_model(parameters=1001), 7, "model.parameters was 1000 and is 1001"),
    (with_model(shapes="ff"), 7, 'model.shapes was "cc" and is "ff"'),
    (with_model(encoder={"hidden_act": "relu"}), 7, 'model.encoder.hidden_act was "gelu" and is "relu"'),
    (with_model(tokenizer="ff"), 7, 'model.tokenizer was "dd" and is "ff"'),
    (dataclasses.replace(WHAT, curriculum={"fixed_weights": "ff"}), 7, 'curriculum.fixed_weights was "" and is "ff"'),
]


@pytest.mark.parametrize(("what", "code", "words"), CHANGED)
def test_a_difference_is_refused_with_both_values_until_it_is_accepted(
    run: RunDir, what: Provenance, code: int, words: str
) -> None:
    record(run)
    before = run.provenance.read_bytes()
    with pytest.raises(ChangedError) as raised:
        record(run, what)
    assert words in raised.value.what
    assert raised.value.exit_code == code
    assert f"accl resume {run.id} --accept-changes" in raised.value.hint
    assert run.provenance.read_bytes() == before
    [notice] = record(run, what, Launch(accept_changes=True))
    assert (notice.level, notice.kind) == ("warning", "accepted")
    assert words in notice.message
    assert record(run, what) == []  # accepted once and for all
    with pytest.raises(ChangedError):
        record(run, WHAT)  # and the way back is a change like any other


def test_several_differences_are_told_in_one_line_and_values_cannot_forge_another(run: RunDir) -> None:
    record(run)
    config = resolve("full", "demo", ["optim.lr=0.5"]).config
    hostile = with_data(fingerprint="x\n\x1b[2Jrefused\u202e")
    with pytest.raises(ChangedError) as raised:
        record(run, hostile, config=config)
    assert "config.optim.lr was 0.001 and is 0.5; data.fingerprint was" in raised.value.what
    assert raised.value.exit_code == 3
    assert raised.value.what.isprintable()


def test_a_changed_configuration_is_refused_before_anything_is_loaded_by_it(run: RunDir) -> None:
    check_config(run, load(run.config))
    with pytest.raises(ChangedError, match=r"config\.train\.seed was 42 and is 43"):
        check_config(run, resolve("full", "demo", ["train.seed=43"]).config)
    record(run, launch=Launch(accept_changes=True), config=resolve("full", "demo", ["train.seed=43"]).config)
    check_config(run, resolve("full", "demo", ["train.seed=43"]).config)


def test_keys_that_accl_has_learnt_or_renamed_since_are_no_change(run: RunDir) -> None:
    content = json.loads(run.provenance.read_text())
    del content["config"]["train"]["max_unsaved_minutes"]
    content["config"]["train"]["path"] = content["config"]["train"].pop("backend")
    run.write_json(run.provenance, content)
    check_config(run, load(run.config))


def test_a_run_of_which_little_was_recorded_goes_on_with_what_was(run: RunDir) -> None:
    run.write_json(run.provenance, {"command": ["accl"], "data": {"fingerprint": "aa"}, "device": "cpu"})
    with pytest.raises(ChangedError, match=r"data\.fingerprint"):
        record(run, with_data(fingerprint="ff"))
    notices = record(run)
    assert "earlier accl" in notices[0].message
    content = read_provenance(run)
    assert content["data"]["tokens"] == "bb"  # from now on
    assert content["device"] == "cpu"
    assert not any("earlier accl" in notice.message for notice in record(run))


@pytest.mark.parametrize(
    "content",
    [
        {"data": 3},
        {"config": []},
        {"model": None},
        {"starts": {}},
        {"starts": [3]},
        {"starts": [{"accepted": 3}]},
        {"starts": [{"accepted": {"data.tasks": 3}}]},
        {"starts": [{"accepted": {"data.tasks": [3]}}]},
    ],
)
def test_other_types_are_damage(run: RunDir, content: dict[str, Any]) -> None:
    run.write_json(run.provenance, content)
    with pytest.raises(DamagedError, match=r"provenance\.json is damaged"):
        read_provenance(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(colour="red"),
        lambda config: config.update(train=3),
        lambda config: config["train"].update(seed="x"),
        lambda config: config["train"].update(seed={"a": 1}),
    ],
)
def test_a_recorded_configuration_that_is_none_is_damage(run: RunDir, change: Any) -> None:
    content = json.loads(run.provenance.read_text())
    change(content["config"])
    run.write_json(run.provenance, content)
    with pytest.raises((DamagedError, ChangedError)):
        check_config(run, load(run.config))


def test_a_full_disk_is_said_in_one_line(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunDir, "write_json", full)
    with pytest.raises(RunError, match="cannot be written \\(No space left on device\\)"):
        record(run)


def test_a_run_that_learnt_from_several_data_sets_is_like_none_of_them() -> None:
    content = {"data": {"fingerprint": "aa"}, "starts": [{}, {"accepted": {"data.fingerprint": ["aa", "bb"]}}]}
    assert data_fingerprint(content) == "aa+bb"
    assert data_fingerprint({"data": {"fingerprint": "aa"}}) == "aa"
    assert data_fingerprint({}) == ""


def test_a_change_is_written_in_one_line() -> None:
    assert str(Change("data.tasks", None, 3)) == "data.tasks was null and is 3"
    assert provenance.FACTS
