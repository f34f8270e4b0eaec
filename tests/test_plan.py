"""An experiment before it runs: the same command is the same experiment, and nothing of it is trained twice."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accl.config import Config, difference, dump, flat, parse, resolve
from accl.config.recipes import base_values
from accl.errors import ConfigError
from accl.launch import plan
from accl.launch.plan import (
    MOST_MEMBERS,
    Action,
    Axis,
    Base,
    Existing,
    assign,
    expand,
    experiment_name,
    makespan,
    read_axes,
    read_seeds,
)
from accl.store.experiment import checked_name
from accl.store.rundir import RunDir
from accl.store.state import State

RECIPES = ("baseline", "contrastive", "full")
# Values of keys that fit together in every combination.
VALUES = {
    "loss.contrastive_weight": ["0.03", "0.1", "0.3", "1"],
    "optim.lr": ["1e-5", "2e-5", "5e-4"],
    "loss.negatives": ["all", "hardest(4)"],
    "train.max_steps": ["10", "20"],
}
grids = st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(1, 4), max_size=3).map(
    lambda sizes: [Axis(key, tuple(VALUES[key][:size])) for key, size in sizes.items()]
)
seeds = st.lists(st.integers(0, 2**32), min_size=1, max_size=4, unique=True)
recipes = st.lists(st.sampled_from(RECIPES), min_size=1, unique=True)


def bases(*names: str) -> list[Base]:
    return [partial(resolve, name, "demo") for name in names]


def configs(*names: str, seeds: tuple[int, ...] = (1, 2)) -> list[Config]:
    return expand(bases(*names), [], seeds, [])[0]


@settings(max_examples=25)
@given(recipes, grids, seeds)
def test_an_experiment_is_every_recipe_with_every_combination_and_every_seed_once(
    names: list[str], axes: list[Axis], seeds: list[int]
) -> None:
    made, _ = expand(bases(*names), axes, seeds, ["train.batch_size=32"])
    expected = [
        resolve(name, "demo", ["train.batch_size=32", f"train.seed={seed}", *cell]).config
        for seed, name in product(seeds, names)
        for cell in product(*([f"{axis.key}={value}" for value in axis.values] for axis in axes))
    ]
    assert made == expected


@settings(max_examples=25)
@given(recipes, grids, seeds, seeds, st.randoms(use_true_random=False))
def test_the_name_depends_on_everything_but_seeds_and_order(
    names: list[str], axes: list[Axis], seeds: list[int], others: list[int], random: object
) -> None:
    name = experiment_name("sweep", expand(bases(*names), axes, seeds, [])[0])
    assert checked_name(name) == name
    for items in (names, axes):
        random.shuffle(items)  # type: ignore[attr-defined]
    assert experiment_name("sweep", expand(bases(*names), axes, [*others], [])[0]) == name
    changed = expand(bases(*names), axes, seeds, ["loss.temperature=0.5"])[0]
    assert experiment_name("sweep", changed) != name
    wider = expand(bases(*names), [*axes, Axis("loss.temperature", ("0.07", "0.5"))], seeds, [])[0]
    assert experiment_name("sweep", wider) != name


def test_the_name_says_command_recipe_and_profile() -> None:
    assert experiment_name("sweep", configs("full")).startswith("sweep-full-demo-")
    assert experiment_name("ablate", configs(*RECIPES)).startswith("ablate-demo-")


def test_a_key_that_accl_learns_later_leaves_the_name_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    name, base = experiment_name("ablate", configs(*RECIPES)), base_values()
    monkeypatch.setattr(plan, "flat", lambda config: {**flat(config), "eval.new": 1})
    assert experiment_name("ablate", configs(*RECIPES)) != name
    monkeypatch.setattr(plan, "base_values", lambda: {**base, "eval.new": 1})
    assert experiment_name("ablate", configs(*RECIPES)) == name


def test_a_name_of_long_parts_is_still_one(tmp_path: Path) -> None:
    long = tmp_path / f"{'r' * 64}.yaml"
    long.write_text("loss:\n  temperature: 0.1\n")
    made, _ = expand(bases(str(long)), [], [1], [])
    name = experiment_name("sweep", made)
    assert checked_name(name) == name
    assert name.startswith("sweep-rrr")


def test_what_is_finished_is_kept_and_the_rest_goes_on() -> None:
    made = configs("baseline", "full", seeds=(1, 2, 3))
    states = [State.FINISHED, State.STOPPED, State.CRASHED, State.QUEUED, State.RUNNING]
    there = [
        Existing(RunDir(Path(f"run{i}")), config, state, 1.0 if state is State.FINISHED else 0.25)
        for i, (config, state) in enumerate(zip(made, states, strict=False))
    ]
    members = assign(made, there)
    actions = [Action.KEEP, Action.RESUME, Action.RESUME, Action.WAIT, Action.WAIT, Action.TRAIN]
    assert [member.action for member in members] == actions
    assert [member.left for member in members] == [0, 0.75, 0.75, 0.75, 0.75, 1]
    assert [member.run for member in members] == [*(each.run for each in there), None]
    assert [member.config for member in members] == made


@pytest.mark.parametrize("state", [State.FAILED, State.STOPPED, State.STALLED, State.STARTING])
def test_the_run_that_is_farthest_counts(state: State) -> None:
    (config,) = configs("full", seeds=(1,))
    runs = [
        Existing(RunDir(Path("a")), config, State.FINISHED, 1.0),
        Existing(RunDir(Path("b")), config, state, 0.9),
        Existing(RunDir(Path("c")), config, State.STOPPED, 0.2),
    ]
    assert assign([config], runs)[0].run == RunDir(Path("a"))
    assert assign([config], runs[1:])[0].run == RunDir(Path("b"))
    assert assign([config], runs[2:])[0].action is Action.RESUME


@given(recipes, seeds)
def test_a_second_call_has_nothing_to_make(names: list[str], seeds: list[int]) -> None:
    made, _ = expand(bases(*names), [], seeds, [])
    there = [Existing(RunDir(Path(str(i))), config, State.FINISHED, 1.0) for i, config in enumerate(made)]
    assert {member.action for member in assign(made, there)} == {Action.KEEP}


@given(
    st.floats(1e-12, 100, allow_subnormal=False),
    st.floats(1e-6, 1e6),
    st.one_of(st.none(), st.floats(1e-3, 1e9)),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20),
)
def test_a_member_is_known_again_by_what_its_file_says(lr: float, tau: float, repeats: float | None, name: str) -> None:
    sets = [f"optim.lr={lr}", f"loss.temperature={tau}", f"curriculum.max_repeats={repeats}", f"model.revision={name}"]
    try:
        config = resolve("full", "demo", sets).config
    except ConfigError:
        return
    read = parse(dump(config), Path("config.yaml"))
    (member,) = assign([config], [Existing(RunDir(Path("a")), read, State.FINISHED, 1.0)])
    assert member.action is Action.KEEP


def test_a_run_of_another_configuration_does_not_count() -> None:
    one, other = configs("full", seeds=(1,)), configs("full", seeds=(2,))
    assert difference(one[0], other[0]) == {"train.seed": (1, 2)}
    (member,) = assign(one, [Existing(RunDir(Path("a")), other[0], State.FINISHED, 1.0)])
    assert member.action is Action.TRAIN


@pytest.mark.parametrize(
    ("text", "counted", "expected"),
    [
        ("5", True, (1, 2, 3, 4, 5)),
        ("5", False, (5,)),
        ("5,", True, (5,)),
        ("3, 1,2", True, (3, 1, 2)),
        ("0,42", False, (0, 42)),
    ],
)
def test_seeds_are_read(text: str, counted: bool, expected: tuple[int, ...]) -> None:
    assert read_seeds(text, counted) == expected


@pytest.mark.parametrize("text", ["", "0", "101", "1,1", "1,,2", "one", "1-5", "-1", ",", "1.5", "9" * 30])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        read_seeds(text, counted=True)


def test_axes_are_read_with_old_names_translated() -> None:
    axes, notes = read_axes(["curriculum.floor = 0.1, 0.2", "optim.lr=1e-5"])
    assert axes == [Axis("curriculum.epsilon", ("0.1", "0.2")), Axis("optim.lr", ("1e-5",))]
    assert notes == ["curriculum.floor is now called curriculum.epsilon."]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["optim.lr"], "is not key=value,value"),
        (["=1,2"], "is not key=value,value"),
        (["optim.lr=1e-5,"], "is not key=value,value"),
        (["train.seed=1,2"], "--seeds 1,2,3"),
        (["optim.lrr=1"], "Unknown key 'optim.lrr' (--grid). Did you mean 'optim.lr'?"),
        (["loss=1"], "loss (--grid) is a section"),
        (["optim.lr=1", "optim.lr=2"], "given twice"),
        (["train.path=fast", "train.backend=cpu"], "given twice"),
        (["sampler.tasks_per_batch=8"], "no longer a key"),
    ],
)
def test_what_is_no_grid_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_axes(texts)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("axes", "seeds", "overrides", "words"),
    [
        ([Axis("optim.lrr", ("1",))], (1,), [], "optim.lr"),
        ([Axis("optim.lr", ("1e-3", "-1"))], (1,), [], "optim.lr='-1'"),
        ([Axis("optim.lr", ("0.001", "1e-3"))], (1,), [], "the same configuration"),
        ([Axis("optim.lr", ("0.001",))], (1,), ["optim.lr=2"], "by --set and by --grid"),
        ([], (1,), ["train.seed=2"], "by --set and by --seeds"),
        ([], (2**64,), [], "train.seed"),
        ([Axis("train.batch_size", ("16", "15"))], (1,), [], "questions_per_task"),
        ([Axis("optim.lr", tuple(map(str, range(1, 52))))], tuple(range(20)), [], f"at most {MOST_MEMBERS:,}"),
    ],
)
def test_every_combination_is_checked_before_anything_runs(
    axes: list[Axis], seeds: tuple[int, ...], overrides: list[str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(bases("full"), axes, seeds, overrides)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "places", "expected"),
    [([], 2, 0), ([5, 5, 5], 1, 15), ([5, 5, 5], 2, 10), ([9, 1, 1, 1], 2, 9), ([1, 2, 3], 8, 3), ([4], 0, 4)],
)
def test_the_time_of_all_is_that_of_the_last_place_to_be_free(
    seconds: list[float], places: int, expected: float
) -> None:
    assert makespan(seconds, places) == expected
