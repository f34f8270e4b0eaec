"""Registries: a file in a folder is a choice, known everywhere at once, without importing torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_accl
from embeddings import unit
from weights import weights

from accl.choices import LOSSES, METRICS, NEGATIVES, POLICIES, SOURCES, Registry
from accl.config import Curriculum, Resolved, resolve
from accl.config.explain import explain
from accl.data.sources import load_corpus
from accl.errors import ConfigError, DataError
from accl.method.contrastive import anchor_losses
from accl.training.curriculum import CurriculumState
from accl.training.evaluate import Evaluated

KEYS = {
    "curriculum.policy": POLICIES,
    "loss.negatives": NEGATIVES,
    "loss.denominator": LOSSES,
    "data.source": SOURCES,
}
REGISTRIES = [*KEYS.values(), METRICS]
ADDED = {
    POLICIES: """
        \"\"\"Draw the last task alone.\"\"\"

        import torch

        PARAMETER = {"name": "beta", "above": 0, "most": 2, "default": 1.5, "about": "nothing"}
        UPDATES_NEEDED = 0


        def compute_weights(stats, params):
            weights = torch.zeros(len(stats.questions_K), dtype=torch.float64)
            weights[-1] = params.parameter
            return weights
        """,
    NEGATIVES: """
        \"\"\"Contrast with every negative, their sum shifted.\"\"\"

        from accl.method.pairs import log_sum

        PARAMETER = {"name": "beta", "above": 0, "most": 2, "default": 1.5, "about": "shift"}


        def select(pairs, parameter):
            return pairs.negative_BM, log_sum(pairs.sim_BM, pairs.negative_BM) + parameter
        """,
    LOSSES: """
        \"\"\"Divide by nothing.\"\"\"

        PARAMETER = {"name": "beta", "above": 0, "most": 2, "default": 1.5, "about": "factor"}


        def compute_losses(pairs, log_negatives_B, parameter):
            return -parameter * pairs.mean_positive_B
        """,
    SOURCES: """
        \"\"\"Make two questions.\"\"\"

        from accl.data.questions import Corpus, Question
        from accl.data.subjects import subject_named

        PARAMETER = {"name": "beta", "above": 0, "most": 2, "default": 1.5, "about": "nothing"}


        def load(path, revision):
            questions = [Question(f"test/{path}/{i}", path, f"{i}?", ("yes", "no"), 0) for i in range(2)]
            return Corpus((subject_named(path),), {"test": questions}, "added", revision)
        """,
    METRICS: """
        \"\"\"Count the questions.\"\"\"

        LABEL = "n"
        UNIT = "questions"


        def compute(answers):
            return float(len(answers.gold))
        """,
}


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice `zebra` in each registry, from a folder that is not accl's."""
    for registry, source in ADDED.items():
        folder = tmp_path / registry.package
        folder.mkdir()
        (folder / "zebra.py").write_text(dedent(source))
        package = import_module(registry.package)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, f"{registry.package}.zebra", raising=False)


def with_key(key: str, value: str) -> Resolved:
    return resolve("full", "demo", [f"{key}={value}"])


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("key", KEYS)
def test_a_file_is_accepted_explained_bounded_and_suggested(key: str) -> None:
    def value(text: str) -> Any:
        section, leaf = key.split(".")
        return getattr(getattr(with_key(key, text).config, section), leaf)

    assert value("zebra(2)") == "zebra(2)"
    assert value("zebra") == "zebra(1.5)"  # the default is written out, so that a run records it
    for number in ("0", "2.1", "nan", "much"):
        with pytest.raises(ConfigError, match=r"zebra\(beta\) takes a number above 0 and of at most 2, not"):
            value(f"zebra({number})")
    with pytest.raises(ConfigError, match=r"zebra\(beta\).*did you mean 'zebra'\?") as refused:
        value("zebr")
    assert refused.value.hint == f"See: accl config explain {key}"
    (explained,) = explain(key)
    assert "zebra(beta)" in explained.type
    assert explained.choices[-1].summary in ADDED[KEYS[key]]


@pytest.mark.usefixtures("added")
def test_an_added_policy_makes_the_weights_of_a_run() -> None:
    section = resolve("full", "demo", ["curriculum.policy=zebra(2)"]).config.curriculum
    state = CurriculumState(section, ["a", "b"], np.array([3, 4]), 10, 8, None, torch.device("cpu"))
    assert state.weights.tolist() == [0, 2]
    assert weights("zebra", 1, 0, questions_K=torch.ones(2)).tolist() == [0, 1.5]


@pytest.mark.usefixtures("added")
def test_added_negatives_and_losses_make_the_contrastive_loss() -> None:
    z_BD, task_B, text_id_B = unit(4, 5, 0), torch.tensor([0, 0, 1, 1]), torch.arange(4)

    def losses(**forms: str) -> torch.Tensor:
        return anchor_losses(z_BD, task_B, text_id_B, temperature=1.0, **forms)[0]

    torch.testing.assert_close(losses(negatives="zebra(0.5)"), losses() + 0.5)
    positive_B = (z_BD * z_BD[[1, 0, 3, 2]]).sum(-1)
    torch.testing.assert_close(losses(denominator="zebra(2)"), -2 * positive_B)


@pytest.mark.usefixtures("added")
def test_an_added_source_makes_a_corpus_and_an_added_metric_is_computed() -> None:
    corpus = load_corpus("zebra", "anatomy", "r1")
    assert ([q.id for q in corpus.parts["test"]], corpus.revision) == (["test/anatomy/0", "test/anatomy/1"], "r1")
    with pytest.raises(DataError, match="did you mean 'zebra'"):
        load_corpus("zebrra", "")
    empty = np.zeros((1, 1))
    answers = Evaluated(np.zeros(3), np.zeros(3, int), np.eye(3), np.arange(3), empty, empty, empty, empty, [])
    assert answers.metrics()["zebra"] == 3
    (explained,) = explain("metrics")
    assert (explained.choices[-1].name, explained.choices[-1].literals["UNIT"]) == ("zebra", "questions")


def test_every_metric_is_a_file() -> None:
    empty = np.zeros((1, 1))
    found = Evaluated(np.zeros(2), np.array([0, 1]), np.eye(2), np.arange(2), empty, empty, empty, empty, []).metrics()
    assert found == {"accuracy": 1, "brier": 0, "ece": 0, "loss": 0, "macro_accuracy": 1}


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.package)
def test_every_choice_has_a_sentence_a_default_in_range_and_can_be_loaded(registry: Registry) -> None:
    for name in registry.names():
        choice = registry.choice(name)
        assert choice.summary.endswith("."), name
        if choice.parameter is not None:
            assert choice.parameter.accepts(choice.parameter.default), name
            assert choice.parameter.about
        module, _ = registry.load(name)
        assert module.__name__ == f"{registry.package}.{name}"


def test_a_file_that_cannot_be_parsed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text('"""Broken."""\n\ndef compute_weights(:\n')
    package = import_module(POLICIES.package)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    with pytest.raises(ConfigError, match=r"broken\.py, line 3"):
        with_key("curriculum.policy", "broken")
    with pytest.raises(ConfigError, match=r"broken\.py, line 3"):
        explain("curriculum.policy")


FUNCTION = "def compute_weights(stats, params):\n    return None\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (FUNCTION.replace("weights", "weigths"), "does not define compute_weights(stats, params), but compute_weigths"),
        ('"""Nothing."""\n', "does not define compute_weights(stats, params)"),
        ("compute_weights = 3\n", "does not define"),
        (f"class Policy:\n    {FUNCTION}".replace("\n    r", "\n        r"), "does not define"),
        (FUNCTION.replace("stats, params", "stats"), "line 1: the function should be compute_weights(stats, params)"),
        (FUNCTION.replace("stats, params", "a, b, c"), "line 1: the function should be"),
        ("PARAMETER = 3\n" + FUNCTION, "PARAMETER is not as accl.choices describes it"),
        ("PARAMETER = {'nam': 'x'}\n" + FUNCTION, "PARAMETER is not as"),
        ("PARAMETER = {'name': 'x', 'default': 'y', 'about': ''}\n" + FUNCTION, "PARAMETER is not as"),
        ("PARAMETER = {'name': 'x', 'default': 0, 'least': 1, 'about': ''}\n" + FUNCTION, "out of its range"),
        ("x = " + "(" * 5000 + ")" * 5000 + "\n" + FUNCTION, "cannot be read"),
        ("x = '\0'\n", "cannot be read"),
        ("x = '\udcff'\n", "cannot be read"),
    ],
    ids=range(13),
)
def test_a_file_that_cannot_work_is_refused_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    (tmp_path / "broken.py").write_bytes(source.encode(errors="surrogateescape"))
    package = import_module(POLICIES.package)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    with pytest.raises(ConfigError) as refused:
        with_key("curriculum.policy", "broken")
    assert words in refused.value.what
    assert str(tmp_path / "broken.py") in refused.value.what


def test_a_function_may_take_more_than_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = import_module(POLICIES.package)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    for name, arguments in (("some", "stats, params, more=1"), ("any", "*everything"), ("strict", "stats, /, params")):
        (tmp_path / f"{name}.py").write_text(FUNCTION.replace("stats, params", arguments))
    for name in ("some", "any", "strict"):
        assert with_key("curriculum.policy", name).config.curriculum.policy == name


def test_validating_and_explaining_everything_imports_no_torch() -> None:
    code = """
        import sys
        from accl.choices import LOSSES, METRICS, NEGATIVES, POLICIES, SOURCES
        from accl.config import available, resolve
        from accl.config.explain import explain, explain_all

        for recipe in available("recipes"):
            for profile in available("profiles"):
                resolve(recipe, profile)
        for key, registry in (("loss.negatives", NEGATIVES), ("loss.denominator", LOSSES), ("data.source", SOURCES)):
            for name in registry.names():
                resolve("full", "demo", [f"{key}={name}"])
        for name in set(POLICIES.names()) - {"fixed"}:
            resolve("full", "demo", [f"curriculum.policy={name}"])
        for one in explain_all():
            explain(one.key)
        explain("metrics")
        print([name for name in ("torch", "transformers", "duckdb", "numpy") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# --- the command


def explained(*arguments: str) -> Any:
    done = run_accl("config", "explain", *arguments, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_a_key_every_key_is_listed_with_default_and_meaning() -> None:
    rows = {row["key"]: row for row in explained()}
    assert set(rows) == set(resolve("full", "paper").origin)
    assert all(len(row["about"]) > 10 and row["about"].endswith(".") and row["type"] for row in rows.values())
    assert rows["train.batch_size"]["default"] == 16
    assert {row["key"] for row in explained("memory_bank")} == {"memory_bank.size", "memory_bank.start_step"}


def test_a_key_is_explained_with_range_default_and_profiles() -> None:
    found = explained("train.max_steps")
    assert (found["type"], found["default"]) == (
        "whole number of at least 1 and of at most 2,147,483,647, or null",
        None,
    )
    assert found["profiles"] == {"demo": 1000}
    assert explained("optim.lr")["type"] == "number above 0 and of at most 100"
    assert explained("curriculum.epsilon")["type"] == "number of at least 0 and of at most 1"
    assert explained("model.head")["type"] == "single_sequence or per_option"
    assert explained("model.task_embedding")["type"] == "true or false"


def test_the_choices_of_a_key_are_a_table() -> None:
    rows = {row["name"]: row for row in explained("loss.negatives")["choices"]}
    assert list(rows) == NEGATIVES.names()
    assert (rows["hardest"]["written"], rows["hardest"]["default"]) == ("hardest(k)", 16)
    assert "a whole number of at least 1" in rows["hardest"]["number"]
    assert "Robinson" in rows["hardest"]["details"]
    assert {row["name"]: row["unit"] for row in explained("metrics")["choices"]}["loss"] == "nats"


@pytest.mark.parametrize(
    ("topic", "near"),
    [("curriculum.polcy", "'curriculum.policy'"), ("batch_size", "'train.batch_size'"), ("metric", "'metrics'")],
)
def test_an_unknown_topic_names_the_nearest(topic: str, near: str) -> None:
    done = run_accl("config", "explain", topic)
    assert done.returncode == ConfigError.exit_code
    assert f"Did you mean {near}?" in done.stderr


def test_a_section_of_the_configuration_still_validates_by_itself() -> None:
    values = resolve("full", "demo").config.curriculum.model_dump()
    assert Curriculum(**{**values, "policy": "proportional"}).policy == "proportional(0.5)"


TABLE = re.compile(r"<!-- accl config explain (\S+) --format md -->\n(.*?)<!-- end -->", re.DOTALL)


def test_the_tables_of_the_readme_are_what_the_command_prints() -> None:
    readme = (Path(__file__).parents[1] / "accl" / "method" / "README.md").read_text(encoding="utf-8")
    tables = dict(TABLE.findall(readme))
    assert set(tables) == {"curriculum.policy", "loss.negatives", "loss.denominator", "metrics"}
    for topic, table in tables.items():
        assert table == run_accl("config", "explain", topic, "--format", "md").stdout, topic
