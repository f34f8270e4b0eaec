"""The query language: its meaning, its errors, and laws that hold for any query."""

from __future__ import annotations

import inspect
import json
import re
import time
from pathlib import Path

import pytest
from command_line import modules_after
from factory import finished_run
from hostile import break_each, hostile_run, run_each
from hypothesis import example, given
from hypothesis import strategies as st
from tui_pilot import on_screen, open_app, runs_listed, runs_screen, until

from accl.cli.runs import runs
from accl.errors import QueryError
from accl.store.experiment import write_experiment
from accl.store.labels import edit_labels
from accl.store.query import DEPTH_LIMIT, EVERYTHING, LENGTH_LIMIT, parse
from accl.store.run_subject import RunSubject
from accl.store.rundir import RunDir
from accl.store.summary import SummaryReader
from accl.store.vocabulary import CONFIG, KINDS, QUESTIONS, RUNS, WORDS, Value

README = Path(__file__).parents[1] / "accl" / "store" / "README.md"
RUN: dict[str, Value] = {
    WORDS: "finished full demo s42 20261122-101500-full-s42-7f3a",
    "state": "finished",
    "recipe": "full",
    "seed": 42,
    "tag": ("paper", "does not count"),
    "step": 800,
    "progress": 0.5,
    "age": 3 * 3600.0,
    "loss": 1.25,
    "val": 0.3,
    "cfg.optim.lr": 1e-4,
    "cfg.loss.negatives": "hardest(16)",
    "cfg.train.max_steps": "null",
    "cfg.data.permute_options": "true",
}
QUESTION: dict[str, Value] = {
    WORDS: "Which of these sets is closed? The rationals",
    "wrong": True,
    "right": False,
    "task": "formal_logic",
    "p": 0.71,
    "gold": "C",
    "flip": ("baseline s2",),
    "pair": ("high_school_mathematics", "logical_fallacies"),
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "full 42",
        "FULL s42",
        '"full demo"',
        "state:fin",
        "state=finished",
        "state!=crashed,failed",
        "state:crashed,finished",
        "seed:1,42",
        "tag:paper",
        'tag:"does not"',
        "step>100",
        "step >= 800",
        "progress=50%",
        "age<2d",
        "age>180s",
        "loss<1.5 train/loss>1",
        "val>29.9%",
        "validation/accuracy<=.3",
        "cfg.optim.lr>=1e-4",
        "cfg.optim.lr=0.0001",
        "lr>=1e-4 optim.lr>=1e-4 cfg.lr>=1e-4 max_steps=null",
        "cfg.loss.negatives=hardest(16)",
        "cfg.loss.negatives:hardest",
        "cfg.train.max_steps=null",
        "cfg.data.permute_options=true",
        "-crashed",
        "NOT (crashed OR failed)",
        "crashed OR full",
        "(crashed OR full) AND s42",
        "crashed full OR s42",
        # What is not known fits no comparison, and so every negation of one.
        "NOT test>0.2",
        "NOT note!=x",
    ],
)
def test_a_query_matches(text: str) -> None:
    assert parse(text).matches(RUN)
    assert not parse(f"NOT ({text or 'full'})").matches(RUN)


@pytest.mark.parametrize(
    "text",
    [
        "wrong",
        "wrong task:logic p>.7 flip:baseline",
        "right OR gold:c",
        'pair:"logical","high_school"',
        "pair=logical_fallacies,high_school_mathematics",
        '-"wrong"',
        "sets closed",
    ],
)
def test_the_same_language_filters_questions(text: str) -> None:
    assert parse(text, QUESTIONS).matches(QUESTION)


@pytest.mark.parametrize("text", ["pair:logical", "state:x", "wrong:1", "p>2"])
def test_questions_have_a_vocabulary_of_their_own(text: str) -> None:
    with pytest.raises(QueryError):
        parse(text, QUESTIONS)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("full sttae:x", 5, "'state'"),
        ("lrr>1", 0, "'cfg.optim.lr'"),
        ("temperature>1", 0, "temperature'"),
        ("cfg.optim.lrr>1", 0, "'cfg.optim.lr'"),
        ("seed:1.0", 5, "whole number"),
        ("val>30", 4, "30%"),
        ("age<2", 4, "unit"),
        ("loss<nan", 5, "number"),
        ("loss<1_0", 5, "number"),
        ("loss<1,2", 5, "one number"),
        ("cfg.optim.lr=fast", 13, "number"),
        ("cfg.model.name>minilm", 15, "number"),
        ("state>x", 5, ": = or !="),
        ("state:", 6, "missing"),
        ("state: finished", 6, "missing"),
        ("seed:1,,2", 7, "missing"),
        (">5", 0, "No key"),
        ("(a OR b", 0, "never closed"),
        ("a )", 2, "closes nothing"),
        ("()", 1, "missing"),
        ("a OR", 4, "missing"),
        ("AND a", 0, "missing"),
        ("NOT", 3, "missing"),
        ('a "b', 2, "never closed"),
        ('tag:a"b"', 5, "blank"),
        ("a\x1b[2J", 1, "U+001B"),
        ("x" * (LENGTH_LIMIT + 1), LENGTH_LIMIT, "4,096"),
        ("(" * 100_000, LENGTH_LIMIT, "4,096"),
        ("(" * 1000, DEPTH_LIMIT + 1, "open"),
        ("-" * 1000 + "x", DEPTH_LIMIT + 1, "open"),
    ],
)
def test_a_bad_query_is_refused_with_position_and_reason(text: str, position: int, words: str) -> None:
    with pytest.raises(QueryError) as refused:
        parse(text)
    assert refused.value.position == position
    assert words in str(refused.value)
    assert f"character {position + 1}" in str(refused.value)


FRAGMENTS = ["full", "s42", "NOT ", "-", "OR", " AND ", "(", ")", '"', ",", " ", "state:", "seed=", "42", "val>", "30%"]
FRAGMENTS += ["tag!=", "cfg.loss.negatives=", "hardest(16)", "wrong", "pair:", "age<", "2d", "=", "\\", "ß", "\x00"]
TEXTS = st.text(max_size=30) | st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)
LITERALS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=8).map(
    lambda text: '"' + text.replace('"', '""') + '"'
)
TERMS = st.one_of(
    LITERALS,
    st.builds(
        "{}{}{}".format, st.sampled_from(["state", "recipe", "tag"]), st.sampled_from([":", "=", "!="]), LITERALS
    ),
    st.builds(
        "{}{}{}".format, st.sampled_from(["seed", "step"]), st.sampled_from(["<", ">=", "!="]), st.integers(0, 99)
    ),
    st.sampled_from(["full", "val>30%", "age<2d", "cfg.optim.lr>=1e-4", "test>.2", "seed:42,43", 'tag:"a","b c"']),
)
QUERIES = st.recursive(
    TERMS,
    lambda inner: st.one_of(
        inner.map("NOT ({})".format),
        inner.map("-({})".format),
        st.builds("({}) OR {}".format, inner, inner),
        st.builds("{} ({})".format, inner, inner),
    ),
    max_leaves=8,
)


@given(text=TEXTS, vocabulary=st.sampled_from([RUNS, QUESTIONS]))
@example('"wrong"', QUESTIONS)
@example('cfg.model.name="=x"', RUNS)
def test_any_text_is_a_query_or_refused_and_what_is_printed_parses_to_an_equal_query(text, vocabulary) -> None:  # type: ignore[no-untyped-def]
    try:
        query = parse(text, vocabulary)
    except QueryError:
        return
    assert parse(query.text, vocabulary) == query


@given(text=QUERIES)
def test_a_query_printed_parses_to_an_equal_query(text: str) -> None:
    query = parse(text)
    assert parse(query.text) == query
    assert query.matches(RUN) == parse(query.text).matches(RUN)


@given(p=QUERIES, q=QUERIES)
def test_negation_swaps_and_with_or(p: str, q: str) -> None:
    def holds(text: str) -> bool:
        return parse(text).matches(RUN)

    assert holds(f"NOT (({p}) OR ({q}))") == holds(f"NOT ({p}) NOT ({q})")
    assert holds(f"NOT (({p}) AND ({q}))") == holds(f"NOT ({p}) OR NOT ({q})")
    assert holds(f"NOT NOT ({p})") == holds(p)
    assert holds(f"({p}) ({q})") == (holds(p) and holds(q))


def matches(run: RunDir, text: str) -> bool:
    now = time.time()
    return parse(text).matches(RunSubject(SummaryReader(run).read(now), now))


def test_a_run_answers_for_every_key(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "full", seed=7, curves=False, overrides=["optim.lr=3e-4"])
    edit_labels(run, name="the long one", add=["paper", "rerun"], note="with the new bank")
    write_experiment(run, "banks")
    every = (
        f'full s7 "demo s7" state=finished recipe=full profile=demo seed=7 id={run.id} tag:paper tag=rerun '
        'note:"new bank" name:long experiment=banks '
        "step=200 progress=100% age>1s loss=.5 val<=1 test>=0% cfg.optim.lr=3e-4 cfg.optim.lr<1"
    )
    assert matches(run, every)
    for key in RUNS.keys:
        assert key.name in every
    assert not matches(run, "NOT cfg.sampler.auxiliary_questions=null")


def test_keys_of_old_configurations_are_known_by_their_new_names_and_new_keys_by_their_defaults(tmp_path: Path) -> None:
    run = finished_run(tmp_path, curves=False)
    text = run.config.read_text(encoding="utf-8")
    run.config.write_text(
        text.replace("  epsilon:", "  floor:").replace("  max_grad_norm: 1.0\n", ""), encoding="utf-8"
    )
    assert matches(run, "cfg.curriculum.epsilon=0.1 cfg.optim.max_grad_norm=1")


def test_labels_are_read_again_when_they_change_and_harm_nothing_when_broken(tmp_path: Path) -> None:
    run = finished_run(tmp_path, curves=False)
    reader, tagged = SummaryReader(run), parse("tag:paper")
    answers = []
    for content in ('{"tags": ["paper"]}', '{"tags": 7, "note": {}}', "no json", '{"tags": ["paper", 3]}'):
        run.labels.unlink(missing_ok=True)
        run.labels.write_text(content, encoding="utf-8")
        summary = reader.read(0.0)
        assert summary.problem is None
        answers.append(tagged.matches(RunSubject(summary, 0.0)))
    assert answers == [True, False, False, True]


def test_a_run_that_cannot_be_read_fits_no_comparison_and_every_negation(tmp_path: Path) -> None:
    broken = [hostile_run(tmp_path / str(i)) for i in range(5)]
    break_each(iter(broken))
    texts = ["cfg.optim.lr>0", "cfg.optim.lr!=7", "cfg.model.head:a", "seed:42", "val>0", "tag:x", "age<1w", "full"]
    for run in broken:
        for text in texts:
            assert matches(run, text) != matches(run, f"NOT {text}")
    config = finished_run(tmp_path, curves=False)
    config.config.write_text("recipe: [\n", encoding="utf-8")
    assert matches(config, "NOT cfg.optim.lr>0 NOT cfg.optim.lr<=0 NOT cfg.optim.lr!=7 finished")


def test_a_list_of_runs_takes_a_query(tmp_path: Path) -> None:
    fast = finished_run(tmp_path, "full", curves=False, overrides=["optim.lr=1e-2"])
    finished_run(tmp_path, "full", curves=False, overrides=["optim.lr=1e-5"])
    found, csv, table, no_match, bad = run_each(
        [
            ["runs", "state:finished", "cfg.optim.lr>=1e-4", "--format", "json"],
            ["runs", "cfg.optim.lr", "<", "1e-4", "--format", "csv"],
            ["runs", "NOT", "full"],
            ["runs", "NOT", "full", "--format", "json"],
            ["runs", "sttae:finished"],
        ],
        ACCL_RUNS=str(tmp_path),
    )
    assert [run["id"] for run in json.loads(found.stdout)] == [fast.id]
    assert len(csv.stdout.splitlines()) == 2
    assert (table.code, table.stdout, no_match.code, no_match.stdout) == (0, b"", 0, b"[]\n")
    assert b"matches: NOT full" in table.stderr
    assert b"matches: NOT full" in no_match.stderr
    assert (bad.code, bad.stdout) == (QueryError.exit_code, b"")
    assert b"Did you mean 'state'?" in bad.stderr


def test_a_query_of_runs_imports_no_schema(tmp_path: Path) -> None:
    finished_run(tmp_path, curves=False)
    modules, printed = modules_after("runs", "cfg.optim.lr>0", "--runs", str(tmp_path))
    assert "finished" in printed
    assert not modules & {"duckdb", "numpy", "accl.config.schema", "rich.table"}


async def test_a_bad_filter_keeps_the_rows_and_says_why(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", curves=False)
    finished_run(tmp_path, "full", curves=False)
    async with open_app(tmp_path, (120, 30)) as pilot:
        await runs_listed(pilot, 2)
        await pilot.press("f", *"recipe:full")
        await until(pilot, lambda: "1 shown" in on_screen(pilot))
        await pilot.press(*" (sttae:x")
        await until(pilot, lambda: "Did you mean 'state'?" in on_screen(pilot))
        assert "1 shown" in on_screen(pilot)
        await pilot.press("escape")
        await until(pilot, lambda: "Did you mean" not in on_screen(pilot))
        assert runs_screen(pilot).list.wanted == EVERYTHING


def test_the_documentation_has_every_key() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    for key in (*RUNS.keys, *QUESTIONS.keys):
        names = f"`{key.name}`, `{key.also}`" if key.also else f"`{key.name}`"
        assert f"| {names} | {KINDS[key.kind]} | {key.help} |" in lines
    for key in RUNS.keys:
        assert re.search(rf"\b{key.name}\b", inspect.getdoc(runs) or "")
    assert any(line.startswith(f"| `{CONFIG}KEY` | {KINDS['value']} | ") for line in lines)
