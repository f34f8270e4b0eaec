from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import run_accl
from hypothesis import given
from hypothesis import strategies as st

from accl.config import available, configs_folder, difference, dump, flat, load, resolve, resolve_like
from accl.config.synonyms import SYNONYMS, known_as
from accl.config.values import FIELDS
from accl.errors import ConfigError

PAPER = {
    "data.path": "cais/mmlu",
    "data.revision": "c30699e8356da336a370243923dbaf21066bb9fe",
    "model.name": "microsoft/deberta-v3-base",
    "model.revision": "8ccc9b6f36199bec6961081d44eb72fb3f7353f3",
    "model.contrastive_dim": 256,
    "loss.classification_weight": 0.7,
    "loss.contrastive_weight": 0.3,
    "loss.temperature": 0.07,
    "curriculum.temperature": 2.0,
    "curriculum.warmup_epochs": 2,
    "curriculum.update_every": 100,
    "optim.lr": 2e-5,
    "optim.schedule": "cosine",
    "optim.warmup_ratio": 0.1,
    "train.batch_size": 16,
    "train.precision": "bf16",
    "train.epochs": 10,
    "train.seed": 42,
}


def test_full_under_paper_has_every_number_of_the_method() -> None:
    values = flat(resolve("full", "paper").config)
    assert {key: values[key] for key in PAPER} == PAPER


@pytest.mark.parametrize("profile", ["demo", "minilm", "paper"])
def test_arms_differ_in_loss_and_curriculum_only(profile: str) -> None:
    arms = {name: resolve(name, profile).config for name in ("baseline", "contrastive", "full")}
    assert arms["baseline"].loss.contrastive_weight == 0
    assert set(difference(arms["baseline"], arms["contrastive"])) == {
        "recipe",
        "loss.classification_weight",
        "loss.contrastive_weight",
    }
    assert set(difference(arms["contrastive"], arms["full"])) == {"recipe", "curriculum.policy"}


def test_later_layers_win_and_are_named_as_origin() -> None:
    resolved = resolve("baseline", "demo", ["optim.lr=3e-4"])
    assert resolved.config.optim.lr == 3e-4
    assert resolved.origin["optim.lr"] == "--set"
    assert resolved.origin["train.max_steps"] == "profile demo"
    assert resolved.origin["loss.contrastive_weight"] == "recipe baseline"
    assert resolved.origin["optim.weight_decay"] == "base"


def test_a_data_path_alone_means_a_folder() -> None:
    assert resolve("full", "paper", ["data.path=somewhere"]).config.data.source == "folder"
    explicit = resolve("full", "paper", ["data.path=org/other", "data.source=hub"]).config.data
    assert (explicit.source, explicit.path) == ("hub", "org/other")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ful", "demo", []), ["'ful'", "'full'", "baseline"]),
        (("full", "dmo", []), ["profile", "'demo'"]),
        (("full", "demo", ["train.batchsize=3"]), ["'train.batchsize'", "'train.batch_size'"]),
        (("full", "demo", ["batch_size=3"]), ["'train.batch_size'"]),
        (("full", "demo", ["train.batch_size=many"]), ["train.batch_size='many' (--set)", "at least 2"]),
        (("full", "demo", ["train.batch_size=15"]), ["15", "questions_per_task"]),
        (("full", "demo", ["train.batch_size"]), ["key=value"]),
        (("full", "demo", ["data.source=web"]), ["data.source", "hub"]),
        (("full", "demo", ["loss.negatives=hardest(2.5)"]), ["hardest(k)", "whole number", "2.5"]),
        (("full", "demo", ["loss.negatives=debiased(1)"]), ["below 1"]),
        (("full", "demo", ["loss.negatives=all(3)"]), ["takes no number"]),
        (
            ("full", "demo", ["curriculum.policy=sleepy"]),
            ["loss_bandit", "config explain curriculum.policy"],
        ),
        (("full", "demo", ["curriculum.policy=fixed"]), ["weights_file"]),
        (("full", "demo", ["loss.classification_weight=0", "loss.contrastive_weight=0"]), ["nothing to learn"]),
        (("full", "demo", ["train.backend=cudagraph"]), ["train.device=cpu"]),
        (("full", "paper", ["train.backend=cpu"]), ["train.device=cuda"]),
        (("full", "paper", ["train.backend=packed", "train.deterministic=yes"]), ["train.backend=reference"]),
        (("full", "demo", ["data.source=folder", "data.path=  "]), ["data.path is empty"]),
        (("missing.yaml", "demo", []), ["missing.yaml"]),
        (("../recipes/full", "demo", []), ["Unknown recipe"]),
    ],
)
def test_mistakes_name_what_was_meant(arguments: tuple[str, str, list[str]], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(*arguments)
    for word in words:
        assert word in str(caught.value)


def test_a_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("loss:\n  denominator: all\n")
    resolved = resolve(str(mine), "demo")
    assert resolved.config.recipe == "mine"
    assert resolved.config.loss.denominator == "all"
    mine.write_text("loss:\n  denominatr: all\n")
    with pytest.raises(ConfigError, match=r"loss\.denominator"):
        resolve(str(mine), "demo")
    mine.write_text("loss: {")
    with pytest.raises(ConfigError, match="not valid YAML"):
        resolve(str(mine), "demo")


@pytest.mark.parametrize("recipe", available("recipes"))
@pytest.mark.parametrize("profile", available("profiles"))
def test_what_is_written_is_read_back(tmp_path: Path, recipe: str, profile: str) -> None:
    original = resolve(recipe, profile).config
    (tmp_path / "config.yaml").write_text(dump(original))
    assert load(tmp_path / "config.yaml") == original


def test_a_run_from_before_a_key_existed_is_read_with_its_default(tmp_path: Path) -> None:
    written = dump(resolve("full", "demo").config)
    file = tmp_path / "config.yaml"
    file.write_text("".join(line for line in written.splitlines(keepends=True) if "deterministic" not in line))
    assert load(file) == resolve("full", "demo").config


OLD = {"backend: auto": "path: graphed", "epsilon: 0.1": "floor: 0.25", "policy: confusion": "policy: seed_literal"}


def test_an_old_run_is_read_with_its_old_keys_and_values(tmp_path: Path) -> None:
    written = dump(resolve("full", "demo").config)
    for new, old in OLD.items():
        assert new in written
        written = written.replace(new, old)
    written = written.replace("sampler:\n", "sampler:\n  tasks_per_batch: 8\n").replace(
        "recipe: full", "recipe: seed_literal"
    )
    (tmp_path / "config.yaml").write_text(written)
    read = load(tmp_path / "config.yaml")
    assert (read.train.backend, read.curriculum.epsilon, read.curriculum.policy) == ("cudagraph", 0.25, "as_published")
    assert read.recipe == "seed_literal"  # as its directory is called


def test_an_old_run_whose_recipe_could_not_be_called_so_today_is_read(tmp_path: Path) -> None:
    written = dump(resolve("full", "demo").config)
    for name in ("base[v2]", "1e3", "no", "a b"):
        (tmp_path / "config.yaml").write_text(written.replace("recipe: full", f"recipe: {name}"))
        assert load(tmp_path / "config.yaml").recipe == name


@pytest.mark.parametrize("recipe", ["baseline", "full"])
def test_the_configuration_of_a_run_is_a_recipe(tmp_path: Path, recipe: str) -> None:
    original = resolve(recipe, "demo", ["loss.temperature=0.2", "train.seed=7"]).config
    file = tmp_path / "config.yaml"
    file.write_text(dump(original))
    resolved = resolve(str(file), None, ["optim.lr=3e-4"])
    assert difference(original, resolved.config) == {"optim.lr": (1e-3, 3e-4)}
    assert (resolved.origin["optim.lr"], resolved.origin["train.seed"]) == ("--set", str(file))
    assert resolve_like(dump(original), file, ["optim.lr=3e-4"]) == resolved
    with pytest.raises(ConfigError, match="its profile included"):
        resolve(str(file), "demo")


def test_the_configuration_of_an_old_run_is_translated_with_notes() -> None:
    written = dump(resolve("full", "demo").config)
    for new, old in (OLD | {"recipe: full": "recipe: seed_literal", "  deterministic: false\n": ""}).items():
        assert new in written
        written = written.replace(new, old)
    resolved = resolve_like(written, Path("old.yaml"), ["train.device=auto"])
    assert (resolved.config.recipe, resolved.config.train.backend) == ("as_published", "cudagraph")
    assert resolved.origin["train.deterministic"] == "base"
    assert "The recipe seed_literal is now called as_published." in resolved.notes
    assert "train.path=graphed is now written train.backend=cudagraph (old.yaml)." in resolved.notes


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("recipe: full", "recipe: ../../etc", "names no recipe that can be part of a run's id: '../../etc'"),
        ("recipe: full", "recipe: a b", "names no recipe"),
        ("profile: demo\n", "", "names no profile"),
        ("eval:\n  every: 200\n  max_questions: 500\n  test: true\n", "", "eval is missing"),
        ("  seed: 42\n  epochs", "  seed: x\n  epochs", r"train.seed='x' .*run.yaml, line"),
        ("path: cais/mmlu", "path: https://user:secret@example.org/mmlu", "holds a password"),
    ],
)
def test_a_damaged_configuration_of_a_run_is_no_recipe(old: str, new: str, words: str) -> None:
    written = dump(resolve("full", "demo").config)
    assert old in written
    with pytest.raises(ConfigError, match=words):
        resolve_like(written.replace(old, new), Path("run.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("recipe: full", "recipe: [full]", "line 1: a list"),
        ("recipe: full", 'recipe: "a\\tb"', "recipe='a b'.*line 1"),
        ("recipe: full\n", "", "recipe is missing from .*config.yaml"),
        ("  seed: 42\n  epochs", "  seed: x\n  epochs", r"train.seed='x' .*config.yaml, line \d+"),
        ("  seed: 42\n  epochs", "  seed: -1\n  epochs", r"train.seed='-1' .*config.yaml, line \d+"),
        ("  seed: 42\n  epochs", "  seeed: 1\n  epochs", r"Unknown key 'train.seeed' .*line \d+"),
        ("train:\n", "train: &t\n", "anchors"),
        ("negatives: all", "negatives: some", "loss.negatives='some'.*should be one of"),
    ],
)
def test_a_damaged_configuration_of_a_run_says_where(tmp_path: Path, old: str, new: str, words: str) -> None:
    written = dump(resolve("full", "demo").config)
    assert old in written
    (tmp_path / "config.yaml").write_text(written.replace(old, new))
    with pytest.raises(ConfigError, match=words):
        load(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("old", "new"), [("fast", "packed"), ("graphed", "cudagraph"), ("rows", "cpu"), ("eager", "reference")]
)
def test_old_backends_are_translated_with_a_note(old: str, new: str) -> None:
    resolved = resolve("full", "demo", [f"train.path={old}", "train.device=auto"])
    assert resolved.config.train.backend == new
    assert resolved.origin["train.backend"] == "--set"
    assert resolved.notes == (f"train.path={old} is now written train.backend={new} (--set).",)


def test_the_old_recipe_and_old_keys_in_a_file_are_translated_with_notes(tmp_path: Path) -> None:
    resolved = resolve("seed_literal", "demo")
    assert (resolved.config.recipe, resolved.config.curriculum.policy) == ("as_published", "as_published")
    assert resolved.notes == ("The recipe seed_literal is now called as_published.",)
    assert resolve("as_published", "demo").notes == ()
    mine = tmp_path / "mine.yaml"
    mine.write_text("curriculum:\n  floor: 0.2\nsampler:\n  tasks_per_batch: 4\n")
    resolved = resolve(str(mine), "demo")
    assert resolved.config.curriculum.epsilon == 0.2
    assert resolved.notes == (
        "curriculum.floor=0.2 is now written curriculum.epsilon=0.2 (recipe mine).",
        "sampler.tasks_per_batch is no longer a key and is ignored: it is train.batch_size / "
        "sampler.questions_per_task (recipe mine).",
    )


def test_notes_are_printed_on_stderr() -> None:
    done = run_accl("config", "show", "seed_literal", "-p", "demo", "--set", "train.path=eager")
    assert done.returncode == 0
    assert "note: The recipe seed_literal is now called as_published." in done.stderr
    assert "note: train.path=eager is now written train.backend=reference (--set)." in done.stderr
    assert "note:" not in done.stdout
    assert "backend: reference" in done.stdout


def test_old_keys_are_explained_by_their_new_names() -> None:
    done = run_accl("config", "explain", "train.path", "--format", "json")
    assert done.returncode == 0
    assert "note: train.path is now called train.backend." in done.stderr
    assert json.loads(done.stdout)["key"] == "train.backend"
    removed = run_accl("config", "explain", "sampler.tasks_per_batch")
    assert removed.returncode == 3
    assert "sampler.tasks_per_batch is no longer a key: it is train.batch_size /" in removed.stderr


def test_every_key_has_a_value_in_base_and_the_other_way_round() -> None:
    resolved = resolve("full", "paper")
    keys = {key for key in flat(resolved.config) if "." in key}
    assert keys == set(resolved.origin)


@given(st.sampled_from(sorted(PAPER)), st.text(max_size=20))
def test_any_override_either_resolves_or_is_refused_in_words(key: str, text: str) -> None:
    try:
        resolved = resolve("full", "demo", [f"{key}={text}"])
    except ConfigError:
        return
    assert resolved.origin[key] == "--set"


def test_configuration_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys, accl.config, accl.store.reader, accl.launch.process; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    assert configs_folder().is_dir()


def test_names_of_other_tools_lead_to_keys_that_exist_and_hide_none() -> None:
    assert set(SYNONYMS.values()) <= set(FIELDS)
    assert not set(SYNONYMS) & {key.rpartition(".")[2] for key in FIELDS}
    assert known_as("optim.learning_rate") == known_as("learning-rate") == "optim.lr"
    with pytest.raises(ConfigError) as caught:
        resolve("full", "demo", ["optim.learning_rate=1e-4"])
    assert "'optim.lr'" in caught.value.hint


def test_a_run_from_before_the_alerts_is_read_and_one_that_lost_a_section_is_not(tmp_path: Path) -> None:
    text = dump(resolve("full", "demo").config)
    path = tmp_path / "config.yaml"
    path.write_text(text[: text.index("\nalerts:")])
    assert load(path) == resolve("full", "demo").config
    path.write_text(text[: text.index("\neval:")])
    with pytest.raises(ConfigError, match="eval"):
        load(path)


@pytest.mark.parametrize(
    ("recipe", "typed", "words"),
    [
        ("full", "train.epochs=2", "train.epochs changes nothing in full: train.max_steps is not null"),
        (
            "baseline",
            "loss.temperature=0.1",
            "loss.temperature changes nothing in baseline: loss.contrastive_weight is 0.",
        ),
        (
            "contrastive",
            "curriculum.temperature=1",
            "curriculum.temperature changes nothing in contrastive: curriculum.policy",
        ),
        ("full", "loss.temperature=0.1", ""),
        ("full", "train.max_steps=20", ""),
    ],
)
def test_what_is_typed_and_changes_nothing_is_said(recipe: str, typed: str, words: str) -> None:
    notes = " ".join(resolve(recipe, "demo", [typed]).notes)
    assert words in notes
    assert bool(notes) == bool(words)
    assert not resolve(recipe, "demo").notes
