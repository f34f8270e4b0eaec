"""What may be named in a comparison: experiments, their arms, recipes and runs, and over which seeds it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import printed_by_compare
from factory import STARTED, finished_run, running_run

from accl.analysis import named
from accl.analysis.ablation import Ablation
from accl.analysis.compare import Comparison
from accl.analysis.results import Split
from accl.bench.runs import record_answers, record_evaluation
from accl.errors import AbsentError, CompareError, RunError
from accl.store.experiment import write_experiment
from accl.store.labels import edit_labels
from accl.store.rundir import RunDir
from accl.store.writer import Recorder

N = 120
WEIGHTS = ("0.1", "0.3")
ARMS = [f"full contrastive_weight={weight}" for weight in WEIGHTS]


def right(share: float, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(np.random.default_rng(seed).random(N) < share)


def validated(run: RunDir, share: float, seed: int) -> RunDir:
    """Record the answers of the best validation, at step 150 of 200."""
    recorder = Recorder(run.database)
    record_answers(recorder, "validation", right(share, seed), 6)
    for step, accuracy in ((100, 0.1), (150, share), (200, 0.1)):
        record_evaluation(recorder, step, "validation", right(accuracy, seed), 6, (step / 100, 0.05, 0.4))
    recorder.meta({"validation_step": "150"})
    assert recorder.close() == 0
    return run


def member(root: Path, name: str, recipe: str = "full", *, seed: int, weight: str = "", **options: Any) -> RunDir:
    overrides = [f"loss.contrastive_weight={weight}"] * bool(weight) + options.pop("overrides", [])
    started = STARTED + 60 * len(list(root.iterdir()))  # arms stand in the order of their first runs
    run = finished_run(root, recipe, seed=seed, overrides=overrides, curves=False, started=started, **options)
    write_experiment(run, name)
    return run


@pytest.fixture
def sweep(tmp_path: Path) -> list[RunDir]:
    """Two weights with three seeds each, and one seed more of the second."""
    runs = [member(tmp_path, "weights", seed=seed, weight=weight) for weight in WEIGHTS for seed in (1, 2, 3)]
    return [*runs, member(tmp_path, "weights", seed=4, weight="0.3")]


def compare_named(root: Path, names: list[str], split: Split = "test", **options: Any) -> Comparison | Ablation:
    return named.compare_chosen(named.choose(root, names, split=split, **options), split)


def labels(found: Comparison | Ablation) -> list[str]:
    return [arm.label for arm in found.arms]


# Seeds -------------------------------------------------------------------------------------------


def test_a_recipe_is_all_seeds_of_its_newest_settings(tmp_path: Path) -> None:
    for recipe in ("baseline", "full"):
        for seed in (1, 2, 3):
            finished_run(tmp_path, recipe, seed=seed, curves=False, started=STARTED + 100)
    for seed in (1, 2, 3, 4, 5):  # older, and with other settings
        finished_run(tmp_path, "full", seed=seed, curves=False, overrides=["optim.lr=0.5"])
    found = compare_named(tmp_path, ["baseline", "full"])
    assert isinstance(found, Ablation)
    assert found.seeds == (1, 2, 3)
    assert not any("differ in more than the seed" in warning for warning in found.warnings)
    assert not any("seeds of every arm exist" in warning for warning in found.warnings)
    for seed in (4, 5):
        finished_run(tmp_path, "baseline", seed=seed, curves=False)
    more = "5 seeds of every arm exist, some under other settings, and 3 are compared: --all-seeds uses them all."
    assert more in compare_named(tmp_path, ["baseline", "full"]).warnings
    one = compare_named(tmp_path, ["baseline", "full"], all_seeds=False)
    assert isinstance(one, Comparison)
    assert (
        one.warnings[0]
        == "5 seeds of every arm exist, some under other settings, and one is compared: --all-seeds uses them all."
    )
    assert {arm.seed for arm in one.arms} <= {1, 2, 3}


def test_the_newest_runs_win_over_older_ones_with_more_seeds(tmp_path: Path) -> None:
    for recipe in ("baseline", "full"):
        for seed in (1, 2, 3):
            finished_run(tmp_path, recipe, seed=seed, curves=False)
        finished_run(tmp_path, recipe, seed=1, curves=False, started=STARTED + 100, profile="minilm")
    found = compare_named(tmp_path, ["baseline", "full"])
    assert isinstance(found, Comparison)
    assert found.profile == "minilm"
    everything = compare_named(tmp_path, ["baseline", "full"], all_seeds=True)
    assert isinstance(everything, Ablation)
    assert (everything.profile, everything.seeds) == ("demo", (1, 2, 3))


def test_a_run_that_is_named_is_compared_alone(tmp_path: Path) -> None:
    runs = {(r, s): finished_run(tmp_path, r, seed=s, curves=False) for r in ("baseline", "full") for s in (1, 2)}
    found = compare_named(tmp_path, ["baseline", runs["full", 1].id])
    assert isinstance(found, Comparison)
    assert [arm.run_id for arm in found.arms] == [runs["baseline", 1].id, runs["full", 1].id]


def test_a_run_is_found_and_shown_by_the_name_that_people_gave_it(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", curves=False)
    run = finished_run(tmp_path, "full", curves=False)
    finished_run(tmp_path, "full", curves=False, started=STARTED + 100)
    edit_labels(run, name="our best")
    found = compare_named(tmp_path, ["baseline", "our best"])
    assert isinstance(found, Comparison)
    assert [arm.name for arm in found.arms] == ["", "our best"]
    assert found.arms[1].run_id == run.id
    shown = printed_by_compare(tmp_path, "baseline", "our best")
    assert "our best" in shown
    assert run.id not in shown
    assert labels(compare_named(tmp_path, ["full", "our best"], all_seeds=False))[1] == "our best"


# Experiments -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("sweep")
def test_an_experiment_is_all_its_arms_over_the_seeds_that_they_share(tmp_path: Path) -> None:
    found = compare_named(tmp_path, ["weights"])
    assert isinstance(found, Ablation)
    assert labels(found) == ARMS
    assert found.seeds == (1, 2, 3)
    assert [labels(comparison) for comparison in found.per_seed] == [ARMS] * 3
    assert f"Left out for want of partners: seed 4 of {ARMS[1]}." in found.warnings
    one = compare_named(tmp_path, ["weights"], all_seeds=False)
    assert isinstance(one, Comparison)
    assert (labels(one), len({arm.seed for arm in one.arms})) == (ARMS, 1)


def test_arms_made_at_one_moment_stand_in_the_order_of_their_values(tmp_path: Path) -> None:
    rates = ["3e-06", "2e-05", "0.0001", "0.001"]
    for lr in rates[::-1]:
        run = finished_run(tmp_path, "full", curves=False, overrides=[f"optim.lr={lr}"])
        write_experiment(run, "rates")
    assert labels(compare_named(tmp_path, ["rates"])) == [f"full lr={lr}" for lr in rates]


@pytest.mark.usefixtures("sweep")
def test_arms_are_named_by_what_tells_them_apart_and_any_may_be_the_reference(tmp_path: Path) -> None:
    assert labels(compare_named(tmp_path, ARMS[::-1])) == ARMS[::-1]
    assert labels(compare_named(tmp_path, ["weights"], reference=ARMS[1])) == ARMS[::-1]
    assert labels(compare_named(tmp_path, ["weights", ARMS[1]])) == ARMS[::-1]
    with pytest.raises(CompareError, match="no finished run of baseline") as caught:
        printed_by_compare(tmp_path, "baseline", "full")
    assert caught.value.hint.endswith("or name an experiment that is there: weights")
    with pytest.raises(RunError, match="No run named 'full contrastive_weight=7'"):
        compare_named(tmp_path, ["weights"], reference="full contrastive_weight=7")


def test_a_recipe_or_run_beside_an_experiment_is_one_more_arm(tmp_path: Path, sweep: list[RunDir]) -> None:
    baseline = [finished_run(tmp_path, "baseline", seed=seed, curves=False) for seed in (1, 2)]
    found = compare_named(tmp_path, ["weights"], reference="baseline")
    assert isinstance(found, Ablation)
    assert labels(found) == ["baseline", *ARMS]
    assert found.seeds == (1, 2)
    alone = compare_named(tmp_path, [baseline[1].id, "weights"])
    assert isinstance(alone, Comparison)
    assert [arm.seed for arm in alone.arms] == [2, 2, 2]
    assert alone.warnings[0].startswith("Only seed 2 has a run of every arm")
    assert [arm.run_id for arm in alone.arms] == [baseline[1].id, sweep[1].id, sweep[4].id]


def test_the_baseline_of_an_experiment_is_its_reference(tmp_path: Path) -> None:
    for recipe in ("full", "baseline", "contrastive"):
        for seed in (1, 2):
            member(tmp_path, "ablation", recipe, seed=seed)
    assert labels(compare_named(tmp_path, ["ablation"])) == ["baseline", "contrastive", "full"]
    assert labels(compare_named(tmp_path, ["ablation"], reference="full")) == ["full", "baseline", "contrastive"]
    assert labels(compare_named(tmp_path, ["ablation", "contrastive", "full"])) == ["contrastive", "full"]


def test_a_seed_with_a_run_that_cannot_be_read_is_left_out_while_two_others_remain(
    tmp_path: Path, sweep: list[RunDir]
) -> None:
    sweep[1].database.write_bytes(b"no database")
    found = compare_named(tmp_path, ["weights"])
    assert isinstance(found, Ablation)
    assert found.seeds == (1, 3)
    assert any(text.startswith("Left out: seed 2 of every arm.") for text in found.warnings)
    shown = " ".join(printed_by_compare(tmp_path, "weights", "--by", "category").split())
    assert "Warning: Left out: seed 2 of every arm." in shown
    assert "over 2 seeds" in shown
    sweep[0].database.unlink()
    with pytest.raises(AbsentError, match=r"no run\.duckdb"):
        compare_named(tmp_path, ["weights"])


def test_a_damaged_configuration_makes_no_arm(tmp_path: Path, sweep: list[RunDir]) -> None:
    text = sweep[1].config.read_text(encoding="utf-8")
    sweep[1].config.write_text(text.replace("temperature: 0.07", 'temperature: "x\\e[31my"'), encoding="utf-8")
    found = compare_named(tmp_path, ["weights"])
    assert isinstance(found, Ablation)
    assert (labels(found), found.seeds) == (ARMS, (1, 3))
    assert any(text.startswith("1 run in the folder could not be read") for text in found.warnings)


@pytest.mark.usefixtures("sweep")
def test_runs_that_have_not_finished_are_told_and_do_not_change_the_names_of_arms(tmp_path: Path) -> None:
    write_experiment(running_run(tmp_path, overrides=["loss.contrastive_weight=0.9"], alive=False), "weights")
    found = compare_named(tmp_path, ["weights"])
    assert labels(found) == ARMS
    assert "Left out, not having finished: 1 crashed of the 8 runs of weights." in found.warnings
    assert "full contrastive_weight=0.9 has no finished run." in found.warnings
    with pytest.raises(CompareError, match=r"weights has finished runs of full contrastive_weight=0\.1 alone"):
        compare_named(tmp_path, [ARMS[0], "full contrastive_weight=0.9"])


def test_arms_that_several_experiments_have_need_the_experiment(tmp_path: Path, sweep: list[RunDir]) -> None:
    for weight in WEIGHTS:
        member(tmp_path, "more", seed=1, weight=weight)
    with pytest.raises(CompareError, match=r"(more and weights|weights and more) have an arm full"):
        compare_named(tmp_path, ARMS)
    found = compare_named(tmp_path, ["more", *ARMS])
    assert isinstance(found, Comparison)
    assert {arm.run_id for arm in found.arms}.isdisjoint(run.id for run in sweep)


def test_arms_without_a_common_seed_are_compared_by_their_newest_runs(tmp_path: Path) -> None:
    member(tmp_path, "odd", seed=1, weight="0.1")
    member(tmp_path, "odd", seed=2, weight="0.3")
    found = compare_named(tmp_path, ["odd"])
    assert isinstance(found, Comparison)
    assert found.warnings[0] == "No seed has a run of every arm: the newest run of each is compared."
    assert any("different seeds" in warning for warning in found.warnings)


# Splits ------------------------------------------------------------------------------------------


def test_the_best_validation_is_compared_and_called_what_it_is(tmp_path: Path) -> None:
    shares = {"baseline": 0.4, "full": 0.6}
    for recipe, share in shares.items():
        validated(finished_run(tmp_path, recipe, curves=False), share, seed=1)
    found = compare_named(tmp_path, ["baseline", "full"], split="validation")
    assert isinstance(found, Comparison)
    for arm in found.arms:
        assert arm.accuracy == right(shares[arm.recipe], 1).mean()
        assert (arm.tested_step, arm.loss) == (150, 1.5)
        assert arm.trivial_baselines
    assert found.warnings[0].startswith("This is the validation, not the test")
    assert "(full is best, with" in found.warnings[0]
    shown = printed_by_compare(tmp_path, "baseline", "full", "--split", "validation")
    assert f"Accuracy on {N} validation questions" in shown
    assert "validated at step" in shown
    assert "hard pairs" not in shown
    finished_run(tmp_path, "contrastive", curves=False)
    with pytest.raises(AbsentError, match="no answers to the validation split"):
        compare_named(tmp_path, ["baseline", "contrastive"], split="validation")


def test_runs_that_were_not_tested_say_how_and_are_chosen_between_by_validation(tmp_path: Path) -> None:
    runs = [
        validated(
            member(tmp_path, "weights", seed=1, weight=weight, predictions=False, overrides=["eval.test=false"]),
            float(weight) + 0.3,
            seed=1,
        )
        for weight in WEIGHTS
    ]
    with pytest.raises(AbsentError, match="2 of 2 runs have not been tested") as caught:
        compare_named(tmp_path, ["weights"])
    assert caught.value.hint.endswith(f"accl test {runs[0].id} {runs[1].id}")
    assert "--split validation" in caught.value.hint
    found = json.loads(printed_by_compare(tmp_path, "weights", "--split", "validation", "--format", "json"))
    assert found["split"] == "validation"
    assert [arm["label"] for arm in found["arms"]] == ARMS


def test_runs_that_were_tested_stand_for_a_recipe_before_those_that_were_not(tmp_path: Path) -> None:
    tested = finished_run(tmp_path, "full", curves=False)
    finished_run(tmp_path, "baseline", curves=False)
    finished_run(
        tmp_path, "full", curves=False, predictions=False, overrides=["eval.test=false"], started=STARTED + 100
    )
    for run in tmp_path.iterdir():
        if "test: false" in (run / "config.yaml").read_text(encoding="utf-8"):
            _forget_the_test(run)
    found = compare_named(tmp_path, ["baseline", "full"])
    assert isinstance(found, Comparison)
    assert found.arms[1].run_id == tested.id
    assert found.warnings[0].startswith("Left out, not having been tested: 1 newer run of full")


def _forget_the_test(run: Path) -> None:
    """Let the state of a run without a test say so: the factory writes the same for all."""
    state = json.loads((run / "state.json").read_text(encoding="utf-8"))
    del state["latest"]["test/accuracy"]
    (run / "state.json").write_text(json.dumps(state), encoding="utf-8")


def test_arms_that_were_not_tested_are_left_out_where_others_were(tmp_path: Path) -> None:
    for weight, is_tested in (("0.1", True), ("0.2", False), ("0.3", True)):
        for seed in (1, 2):
            member(tmp_path, "weights", seed=seed, weight=weight, predictions=is_tested, overrides=["eval.test=false"])
    for file in tmp_path.glob("*/config.yaml"):
        if "contrastive_weight: 0.2" in file.read_text(encoding="utf-8"):
            _forget_the_test(file.parent)
    found = compare_named(tmp_path, ["weights"])
    assert isinstance(found, Ablation)
    assert (labels(found), found.seeds) == (ARMS, (1, 2))
    assert any(text.startswith("Left out, not having been tested: 2 runs of weights") for text in found.warnings)
    with pytest.raises(AbsentError, match="2 of 4 runs have not been tested"):
        compare_named(tmp_path, [ARMS[0], "full contrastive_weight=0.2"])


@pytest.mark.usefixtures("sweep")
def test_the_names_of_settings_are_broken_where_three_arms_would_not_fit(tmp_path: Path) -> None:
    member(tmp_path, "weights", seed=1, weight="0.03")
    shown = printed_by_compare(tmp_path, "weights", "--one-seed")
    assert max(map(len, shown.splitlines())) <= 80
    assert ["arm", "weight=0.1", "weight=0.03", "weight=0.3"] in [line.split() for line in shown.splitlines()]
    assert "Configuration differences" not in shown, "the labels have them all"


def test_several_looks_at_the_test_split_are_noted(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", curves=False)
    run = finished_run(tmp_path, "full", curves=False)
    recorder = Recorder(run.database)
    for seconds in (1.0, 2.0, 3.0):
        recorder.event(seconds, "info", "test", "looked at the test split")
    assert recorder.close() == 0
    finished_run(tmp_path, "contrastive", curves=False)
    shown = " ".join(printed_by_compare(tmp_path, "baseline", "full", "--notes").split())
    assert "3 runs of this folder looked at this test split 5 times in all" in shown
    assert "; 2 are compared here." in shown
    assert "looked at" not in printed_by_compare(tmp_path, "baseline", "full")
    assert "looked at" in printed_by_compare(tmp_path, "baseline", "full", "--format", "md")
