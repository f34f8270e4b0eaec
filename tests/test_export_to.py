"""What runs measured is written so that the program it is for reads it back, and never half."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import typer
from factory import SIX_TASKS, finished_run
from hostile import EVIL, INVISIBLE, hostile_run
from test_api import held
from typer.testing import CliRunner

import accl
from accl.analysis.exports import targets
from accl.cli.export import export
from accl.errors import AbsentError, AcclError, BusyError, ConfigError, RunError
from accl.store.columns import RunReader
from accl.store.experiment import write_experiment
from accl.store.labels import edit_labels
from accl.store.rundir import RunDir
from accl.store.schema import TABLES
from accl.store.writer import Recorder


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> RunDir:
    run = finished_run(tmp_path / "runs", "full", seed=3, steps=120, questions=60, overrides=["optim.lr=3e-4"])
    recorder = Recorder(run.database)
    recorder.evaluation(60, "validation", {"n": 30, "accuracy": 0.25, "novel": 0.5})
    recorder.meta({"tested_step": "60"})
    recorder.close()
    return run


def call(root: Path, *arguments: str) -> Any:
    """Run `accl export` in this process; raises what it raises."""
    app = typer.Typer()
    app.command("export")(export)
    done = CliRunner().invoke(app, [*arguments, "--runs", str(root / "runs")], env={"COLUMNS": "80"})
    if done.exception is not None:
        raise done.exception
    return done


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_hold_every_row_with_whose_it_is(tmp_path: Path, run: RunDir, form: str) -> None:
    other = finished_run(tmp_path / "runs", "baseline", seed=5, steps=60, questions=30)
    done = call(tmp_path, "--to", form, "state:finished", str(tmp_path / "out"), "--format", "json")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.{form}" for name in ("runs", *TABLES)}
    counts = {row["file"]: row["rows"] for row in json.loads(done.stdout)["written"]}
    runs = accl.runs("", tmp_path / "runs")
    for table in TABLES:
        expected = runs.sql(f"select * from {table}")
        found = duckdb.sql(f"select * from '{tmp_path / 'out' / table}.{form}'").df()
        assert counts[f"{table}.{form}"] == len(found) == len(expected)
        assert list(found.columns) == list(expected.columns)
        assert set(found["run"]) <= {run.id, other.id}
    values = duckdb.sql(f"select value from '{tmp_path}/out/metrics.{form}' where run = '{run.id}' order by seq").df()
    assert values["value"].tolist() == accl.load(run.path).metrics()["value"].tolist()
    rows = duckdb.sql(f"select run, \"optim.lr\" from '{tmp_path}/out/runs.{form}' order by seed").fetchall()
    assert rows == [(run.id, 3e-4), (other.id, 1e-3)]


def test_text_in_csv_is_harmless_and_in_parquet_as_it_was(tmp_path: Path) -> None:
    import unicodedata

    run = hostile_run(tmp_path / "runs")
    for form in ("csv", "parquet"):
        call(tmp_path, "--to", form, str(run.path), str(tmp_path / form))
    for path in (tmp_path / "csv").iterdir():
        text = path.read_text(encoding="utf-8")
        assert not {c for c in text.replace("\n", "") if unicodedata.category(c) in INVISIBLE}
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@")) and not _is_number(cell)]
    texts = duckdb.sql(f"select distinct text from '{tmp_path}/parquet/questions.parquet'").fetchall()
    assert (EVIL,) in texts


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def test_tensorboard_reads_scalars_weights_hyperparameters_and_configuration(tmp_path: Path, run: RunDir) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import metadata

    done = call(tmp_path, "--to", "tensorboard", run.id, str(tmp_path / "logs"))
    assert "tensorboard --logdir" in done.stdout
    events = accumulator.EventAccumulator(str(tmp_path / "logs" / run.id), size_guidance={"scalars": 0})
    events.Reload()
    metrics = accl.load(run.path).metrics()
    for name in ("train/loss", "validation/accuracy"):
        expected = metrics[metrics["name"] == name]
        found = events.Scalars(name)
        assert [event.step for event in found] == expected["step"].tolist()
        assert np.allclose([event.value for event in found], expected["value"])
        times = [event.wall_time - accl.load(run.path).status.begun for event in found]
        assert np.allclose(times, expected["seconds"], atol=1e-3)
    [novel], [test] = events.Scalars("validation/novel"), events.Scalars("test/accuracy")
    assert (novel.step, novel.value, test.step) == (60, 0.5, 60)
    curriculum = RunReader(run).read().curriculum
    assert curriculum is not None
    weights = events.Scalars(f"curriculum_weight/{SIX_TASKS[1][0]}")
    assert [event.value for event in weights] == pytest.approx(curriculum.weights_SK[:, 1].tolist())
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    session = metadata.parse_session_start_info_plugin_data(content)
    assert session.hparams["optim.lr"].number_value == 3e-4
    assert (session.hparams["eval.test"].bool_value, session.group_name) == (True, run.id)
    [text] = events.Tensors("config/text_summary")[0].tensor_proto.string_val
    assert b"    optim.lr: 0.0003\n" in text


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a file of W&B, which has the layout of LevelDB's log behind a header of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, at, whole = path.read_bytes(), 7, b""
    assert raw.startswith(b":W&B")
    while at < len(raw):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, at)
        whole += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def test_wandb_gets_an_offline_run_with_every_step(tmp_path: Path, run: RunDir) -> None:
    pytest.importorskip("wandb")
    edit_labels(run, name="best", note="the good one", add=["paper"])
    write_experiment(run, "lr")
    done = call(tmp_path, "--to", "wandb", "best", str(tmp_path / "out"))
    assert "wandb sync" in done.stdout
    [file] = (tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb")
    records = list(wandb_records(file))
    [about] = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (about.run_id, about.display_name, about.run_group, about.job_type) == (run.id, "best", "lr", "full")
    assert (list(about.tags), about.notes, about.host) == (["paper"], "the good one", "")
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert (config["optim.lr"], config["train.batch_size"], config["model.head"]) == (3e-4, 16, "per_option")
    history = [
        {
            item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    metrics = accl.load(run.path).metrics("train/loss")
    found = {row["_step"]: row["train/loss"] for row in history if "train/loss" in row}
    assert found == dict(zip(metrics["step"], metrics["value"], strict=True))
    [at_60] = [row for row in history if row["_step"] == 60]
    assert (at_60["validation/novel"], at_60["test/accuracy"]) == (
        0.5,
        accl.load(run.path).status.latest["test/accuracy"],
    )
    seconds = metrics[metrics["step"] == 60]["seconds"].item()
    assert at_60["_timestamp"] == pytest.approx(accl.load(run.path).status.begun + seconds)


def test_lm_eval_has_results_of_tasks_and_groups_and_every_sample(tmp_path: Path, run: RunDir) -> None:
    call(tmp_path, "--to", "lm-eval", run.id, str(tmp_path / "out"))
    folder = tmp_path / "out" / run.id
    [path] = folder.glob("results_*.json")
    results = json.loads(path.read_text(encoding="utf-8"))
    answers = accl.load(run.path).predictions()
    assert results["results"]["accl"]["acc,none"] == answers["correct"].mean()
    for name, rows in answers.groupby("task_name"):
        found = results["results"][f"accl_{name}"]
        assert (found["name"], found["alias"], found["sample_len"]) == (f"accl_{name}", name, len(rows))
        assert found["acc,none"] == pytest.approx(rows["correct"].mean())
        assert found["acc_stderr,none"] == pytest.approx(rows["correct"].astype(float).sem())
        samples = _samples(folder, f"accl_{name}")
        hashes = "".join(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
        assert results["task_hashes"][f"accl_{name}"] == hashlib.sha256(hashes.encode()).hexdigest()
        assert [sample["acc"] for sample in samples] == rows["correct"].astype(float).tolist()
        assert [sample["target"] for sample in samples] == [str(gold) for gold in rows["gold"]]
        for sample, probabilities in zip(samples, rows["probabilities"], strict=True):
            logs = [float(response[0][0]) for response in sample["resps"]]
            assert np.allclose(np.exp(logs), probabilities)
            assert [response[0][1] for response in sample["resps"]].count("True") == 1
            assert len(sample["arguments"]) == len(sample["doc"]["options"]) == len(logs)
    groups = results["group_subtasks"]
    assert set(results["groups"]) == {"accl", *groups["accl"]}
    for group in groups["accl"]:
        members = [name.removeprefix("accl_") for name in groups[group]]
        rows = answers[answers["task_name"].isin(members)]
        assert results["groups"][group]["acc,none"] == pytest.approx(rows["correct"].mean())
        sizes = [results["results"][name]["sample_len"] for name in groups[group]]
        errors = [results["results"][name]["acc_stderr,none"] for name in groups[group]]
        pooled = sum((n - 1) * error**2 * n for n, error in zip(sizes, errors, strict=True)) / (sum(sizes) - len(sizes))
        assert results["groups"][group]["acc_stderr,none"] == pytest.approx(math.sqrt(pooled / sum(sizes)))
    for key in ("configs", "versions", "n-shot", "higher_is_better", "n-samples"):
        assert {f"accl_{name}" for name, _, _ in SIX_TASKS} <= set(results[key])
    assert results["model_name_sanitized"] == folder.name


def _samples(folder: Path, task: str) -> list[dict[str, Any]]:
    [path] = folder.glob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_hostile_names_become_harmless_files(tmp_path: Path) -> None:
    run = hostile_run(tmp_path / "runs")
    call(tmp_path, "--to", "lm-eval", str(run.path), str(tmp_path / "out"))
    names = [path.name for path in (tmp_path / "out").rglob("*")]
    assert any(name.startswith("samples_accl_") for name in names)
    assert all(name.isascii() and name.isprintable() and not set(name) & set(" /\\'\"`$;&|*?<>()") for name in names)


def test_what_is_missing_is_said_before_any_run_is_read(
    tmp_path: Path, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "find_spec", lambda _name: None)
    for target in ("tensorboard", "wandb"):
        with pytest.raises(AcclError, match=f"needs {target}") as refused:
            call(tmp_path, "--to", target, run.id, str(tmp_path / "out"))
        assert refused.value.hint == f"pip install 'accl[{target}]'"
    assert not (tmp_path / "out").exists()


def test_a_folder_with_content_and_a_checkpoint_are_refused(tmp_path: Path, run: RunDir) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(ConfigError, match="not an empty folder"):
        call(tmp_path, "--to", "csv", run.id, str(tmp_path / "out"))
    assert (tmp_path / "out" / "mine").exists()
    with pytest.raises(ConfigError, match="--checkpoint is for the model"):
        call(tmp_path, "--to", "csv", "--checkpoint", "last", run.id, str(tmp_path / "new"))
    with pytest.raises(ConfigError, match="2 runs have 2 models"):
        call(tmp_path, run.id, run.id, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_named_run_that_cannot_be_read_leaves_nothing_and_one_that_was_found_is_left_out(
    tmp_path: Path, run: RunDir
) -> None:
    broken = finished_run(tmp_path / "runs", "baseline", seed=1, steps=60)
    broken.database.write_bytes(b"no database")
    out = tmp_path / "out"
    with pytest.raises(RunError):
        call(tmp_path, "--to", "csv", run.id, broken.id, str(out))
    with held(run), pytest.raises(BusyError, match="is held by process"):
        call(tmp_path, "--to", "lm-eval", run.id, str(out))
    assert not out.exists()
    done = call(tmp_path, "--to", "csv", "state:finished", str(out))
    assert "1 run in" in done.stdout
    assert f"note: left out: {broken.database}" in done.stderr


def test_a_run_without_a_test_has_nothing_for_lm_eval(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs", steps=60, predictions=False)
    with pytest.raises(AbsentError, match="no answers to test questions"):
        call(tmp_path, "--to", "lm-eval", run.id, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
