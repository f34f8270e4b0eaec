"""What does not fit is refused by the real command before there is a run, in the words of the training process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Accl
from data_folders import csv_folder, good
from hub_server import DATA_REPO, MODEL_REPO, make_data, make_questions

from accl.config import Config, resolve
from accl.data import hub
from accl.data.architectures import ARCHITECTURES, architecture, longest_input
from accl.data.prepared import PreparedData, prepare
from accl.errors import ConfigError, RunError
from accl.launch import preflight
from accl.launch.preflight import check, check_all

MMLU = Path(os.environ.get("ACCL_MMLU", Path(__file__).resolve().parent.parent.parent / "shared" / "mmlu"))


def tasks(folder: Path, *names: str, questions: int = 40) -> Path:
    for name in names:
        csv_folder(folder, good(questions, name), f"{name}_test.csv")
    return folder


def refused(recipe: str, *sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(resolve(recipe, "demo", sets).config, print)
    return str(caught.value)


def test_the_command_refuses_before_there_is_a_run(accl: Accl, tmp_path: Path) -> None:
    runs, data = tmp_path / "runs", tasks(tmp_path / "data", "anatomy", "virology", questions=3)
    done = accl("train", "full", "--profile=demo", f"--set=data.path={data}", f"--runs={runs}")
    assert (done.returncode, runs.exists()) == (4, False)
    assert f"The validation split of folder {data} (CSV) is empty under protocol pooled" in done.stderr
    assert "Traceback" not in done.stderr


def test_several_configurations_share_what_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def counted(source: str, path: str, *rest: object) -> PreparedData:
        loaded.append(path)
        return prepare(source, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(preflight, "prepare", counted)
    folders = [tasks(tmp_path / name, "anatomy", "virology", questions=n) for name, n in (("a", 40), ("b", 60))]
    configs = [
        resolve(recipe, "demo", [f"data.path={folder}", f"train.seed={seed}", "train.batch_size=4"]).config
        for seed in (1, 2)
        for folder in folders
        for recipe in ("baseline", "full")
    ]
    findings = check_all(configs, print)
    assert sorted(loaded) == sorted(map(str, folders))
    assert [found.training_questions for found in findings] == [64, 64, 96, 96] * 2
    with pytest.raises(ConfigError, match="A batch of 8 tasks"):
        check_all([*configs, resolve("full", "demo", [f"data.path={folders[0]}"]).config], print)


@pytest.mark.parametrize(
    ("recipe", "names", "sets", "says"),
    [
        ("full", ["anatomy"], [], "loss.contrastive_weight needs questions of two tasks to train on"),
        ("full", ["anatomy"], ["loss.contrastive_weight=0"], "curriculum.policy needs questions of two tasks"),
        ("baseline", ["anatomy", "virology"], [], "A batch of 8 tasks x 2 questions needs more tasks than the 2 with"),
        ("baseline", ["anatomy", "virology"], ["model.name=random:small"], "Unknown architecture random:small."),
        (
            "baseline",
            ["anatomy"],
            ["model.name=random:roberta-base", "data.max_length=600"],
            "data.max_length=600 is more than the 512 tokens that the encoder reads.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, recipe: str, names: list[str], sets: list[str], says: str
) -> None:
    assert refused(recipe, f"data.path={tasks(tmp_path, *names)}", *sets).startswith(says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("anatomy: 1\n", "does not fit the tasks: missing virology."),
        ("anatomy: 1\nvirology: 1\nhistory: 2\n", "does not fit the tasks: unknown history."),
    ],
)
def test_a_weights_file_that_does_not_fit_the_tasks_is_refused(tmp_path: Path, content: str, says: str) -> None:
    data, file = tasks(tmp_path / "data", "anatomy", "virology"), tmp_path / "weights.yaml"
    file.write_text(content)
    policy = ("curriculum.policy=fixed", f"curriculum.weights_file={file}", "sampler.questions_per_task=8")
    assert says in refused("baseline", f"data.path={data}", *policy)


def test_one_task_is_enough_for_the_baseline(tmp_path: Path) -> None:
    data = tasks(tmp_path, "anatomy")
    sets = [f"data.path={data}", "sampler.questions_per_task=null"]
    assert check(resolve("baseline", "demo", sets).config, print) == []


def test_conflicting_answers_and_tasks_too_small_for_a_batch_are_said(tmp_path: Path) -> None:
    tasks(tmp_path, "anatomy", "virology")
    again = "what is  anatomy3?,one,two,three,four,A\n" + "What is anatomy5?,two,ONE,three,four,A\n"
    csv_folder(tmp_path, good(3, "little") + again, "history_test.csv")
    sets = [f"data.path={tmp_path}", "train.batch_size=16", "sampler.questions_per_task=8"]
    conflict, small = check(resolve("baseline", "demo", sets).config, print)
    assert conflict == "1 question has two different right answers, as test/anatomy/5 and test/history/4"
    assert re.match(r"1 tasks have fewer training questions than the 8 of a task in a batch.*\(history: \d\)", small)


@pytest.mark.slow
def test_a_run_records_conflicting_answers_and_the_command_says_them(accl: Accl, tmp_path: Path) -> None:
    data = tasks(tmp_path / "data", "anatomy", "virology")
    csv_folder(data, good(40, "history") + "What is anatomy5?,one,two,three,four,B\n", "history_test.csv")
    sets = [f"--set=data.path={data}", "--set=sampler.questions_per_task=null", "--set=train.max_steps=2"]
    done = accl("train", "baseline", "--profile=demo", *sets, "--runs=exp:v2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = "1 question has two different right answers, as test/anatomy/5 and test/history/40"
    assert f"note: {said}" in done.stderr
    (console,) = (tmp_path / "exp:v2").glob("*/console.log")
    assert f"warning: {said}" in console.read_text()


def test_blank_options_of_auxiliary_questions_are_counted(tmp_path: Path) -> None:
    csv_folder(tmp_path, good(30, "tested"))
    dev = tmp_path / "dev" / "anatomy_dev.csv"
    dev.parent.mkdir()
    dev.write_text(good(30, "trained"))
    auxiliary = tmp_path / "auxiliary_train" / "race.csv"
    auxiliary.parent.mkdir()
    auxiliary.write_text(",one,two,,four,A\n" + good(2))
    assert prepare("folder", str(tmp_path), "", "official", 42).warnings(None) == [
        "1 auxiliary questions have blank options, which count as options"
    ]


def test_the_launcher_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from accl.config import resolve; from accl.launch.preflight import check\n"
        f"check(resolve('baseline', 'demo', ['data.path={tasks(tmp_path, *'abcdefgh')}']).config, print)\n"
        "assert not {'torch', 'transformers', 'datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- the machine


def notes(wanted: Config) -> list[str]:
    said: list[str] = []
    check(wanted, said.append)
    return said


def few(folder: Path) -> list[str]:
    """Make a few questions of one task; return the overrides that train on them."""
    return [f"data.path={tasks(folder / 'data', 'anatomy')}", "sampler.questions_per_task=null"]


def a_file(cache: Path) -> None:
    cache.touch()


def writable_by_all(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)


@pytest.mark.parametrize("make", [a_file, writable_by_all])
def test_a_cache_that_keeps_nothing_is_said_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("ACCL_CACHE", str(tmp_path / "cache"))
    wanted = resolve("baseline", "demo", few(tmp_path)).config
    assert notes(wanted) == []
    monkeypatch.setenv("ACCL_CACHE", str(tmp_path / "other"))
    make(tmp_path / "other")
    (note,) = notes(wanted)
    assert note.startswith("warning: nothing is cached: ")
    monkeypatch.setenv("ACCL_CACHE", "~no-such-user/cache")
    (note,) = notes(wanted)
    assert "no home folder is known" in note
    monkeypatch.setenv("ACCL_CACHE", "/proc/cache")  # not even root can write there
    (note,) = notes(wanted)
    assert "cannot be written" in note


def test_a_current_folder_that_was_removed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        with pytest.raises(RunError, match="current folder has been removed"):
            notes(resolve("full", "demo").config)
    finally:
        os.chdir(tmp_path)


def test_a_local_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        notes(resolve("full", "demo", [f"model.name={tmp_path / 'nowhere'}"]).config)


def test_what_is_not_cached_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    (tmp_path / "config.json").write_text(json.dumps(ARCHITECTURES["roberta-base"]))

    def fetch(name: str, _revision: str) -> Path:
        fetched.append(name)
        return tmp_path

    make_data(tmp_path, make_questions(per_subject=80))
    monkeypatch.setattr(hub, "fetch_model", fetch)
    monkeypatch.setattr(hub, "fetch_data", fetch)
    monkeypatch.setattr(hub, "cached_model", lambda *_: None)
    wanted = resolve("full", "paper", ["train.device=cpu", "sampler.questions_per_task=4"]).config
    assert notes(wanted) == [f"fetching {MODEL_REPO} from the Hub", f"fetching {DATA_REPO} from the Hub"]
    assert fetched == [MODEL_REPO, DATA_REPO]
    monkeypatch.setattr(hub, "cached_model", lambda *_: tmp_path)
    assert notes(wanted) == [f"fetching {DATA_REPO} from the Hub"]


# --- the longest input, without loading the encoder


@pytest.mark.parametrize(
    "kind", ["bert", "distilbert", "electra", "albert", "roberta", "xlm-roberta", "camembert", "mpnet"]
)
def test_the_longest_input_is_that_of_the_encoder(tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig, AutoModel

    from accl.training.encoder import load_encoder

    small = {"hidden_size": 8, "dim": 8, "num_hidden_layers": 1, "n_layers": 1, "num_attention_heads": 2, "n_heads": 2}
    config = AutoConfig.for_model(kind, vocab_size=20, max_position_embeddings=40, intermediate_size=8, **small)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    torch.manual_seed(0)
    values = json.loads((tmp_path / "config.json").read_text())
    assert longest_input(values) == load_encoder(str(tmp_path), "").max_length


def test_encoders_without_absolute_positions_have_no_longest_input() -> None:
    assert {name: longest_input(architecture(f"random:{name}")) for name in ARCHITECTURES} == {
        "tiny": None,
        "deberta-v3-base": None,
        "roberta-base": 512,
        "bert-base-uncased": 512,
        "all-MiniLM-L6-v2": 512,
        "electra-base-discriminator": 512,
        "electra-small-discriminator": 512,
        "distilbert-base-uncased": 512,
        "all-mpnet-base-v2": 512,
        "ModernBERT-base": None,
        "deberta-base": None,
    }
    assert longest_input({"model_type": "deberta-v2", "max_position_embeddings": 512}) == 512
    assert longest_input({"model_type": "roberta", "max_position_embeddings": "many"}) is None


# --- what was read stays what it was


def test_the_fingerprint_of_the_built_in_benchmark_stays() -> None:
    assert prepare("synthetic", "", "", "pooled", 42).corpus.fingerprint == "1a48e5d60399a10a"


@pytest.mark.skipif(not (MMLU / "test").is_dir(), reason="the real MMLU is not on this machine (ACCL_MMLU)")
@pytest.mark.parametrize(("name", "fingerprint"), [("mmlu", "77232ea51c89e46f"), ("bigbench4", "57c1f22c1210df98")])
def test_the_fingerprint_of_real_questions_stays(name: str, fingerprint: str) -> None:
    assert prepare("folder", str(MMLU.parent / name), "", "pooled", 42).corpus.fingerprint == fingerprint
