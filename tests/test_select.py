"""Selection of runs by recipe or name, and the errors when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from factory import STARTED, finished_run, running_run

from accl.analysis import select
from accl.analysis.ablation import compare_seeds
from accl.analysis.select import select_seeds
from accl.config import load
from accl.errors import CompareError, RunError
from accl.store.rundir import RunDir


def select_runs(root: Path, names: list[str], profile: str | None = None) -> list[RunDir]:
    return list(select.select_runs(root, names, profile).runs)


def test_a_recipe_is_its_newest_finished_run(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", started=STARTED)
    newest = finished_run(tmp_path, "baseline", started=STARTED + 100)
    full = finished_run(tmp_path, "full", started=STARTED + 50)
    running_run(tmp_path, "full")
    assert select_runs(tmp_path, ["baseline", "full"]) == [newest, full]
    assert select_runs(tmp_path, ["full", "baseline"]) == [full, newest]


def test_recipes_meet_on_shared_terms_and_then_on_a_shared_seed(tmp_path: Path) -> None:
    partner = finished_run(tmp_path, "baseline", seed=1, started=STARTED)
    finished_run(tmp_path, "baseline", seed=2, started=STARTED + 100)
    finished_run(tmp_path, "baseline", seed=1, started=STARTED + 200, fingerprint="other")
    finished_run(tmp_path, "baseline", seed=1, started=STARTED + 300, profile="minilm")
    full = finished_run(tmp_path, "full", seed=1, started=STARTED + 50)
    assert select_runs(tmp_path, ["baseline", "full"]) == [partner, full]


def test_without_a_shared_seed_the_newest_are_taken(tmp_path: Path) -> None:
    finished_run(tmp_path, "baseline", seed=1, started=STARTED)
    newest = finished_run(tmp_path, "baseline", seed=2, started=STARTED + 100)
    full = finished_run(tmp_path, "full", seed=3)
    assert select_runs(tmp_path, ["baseline", "full"]) == [newest, full]


def test_profile_filters(tmp_path: Path) -> None:
    demo = [finished_run(tmp_path, r, started=STARTED) for r in ("baseline", "full")]
    minilm = [finished_run(tmp_path, r, started=STARTED + 100, profile="minilm") for r in ("baseline", "full")]
    assert select_runs(tmp_path, ["baseline", "full"]) == minilm
    assert select_runs(tmp_path, ["baseline", "full"], profile="demo") == demo
    with pytest.raises(CompareError, match="with profile paper") as caught:
        select_runs(tmp_path, ["baseline", "full"], profile="paper")
    assert "accl train baseline --profile paper && accl train full --profile paper" in caught.value.hint
    with pytest.raises(CompareError, match="has profile demo, not minilm"):
        select_runs(tmp_path, [demo[0].id, "full"], profile="minilm")


def test_runs_named_by_id_set_the_terms_for_recipes(tmp_path: Path) -> None:
    old = finished_run(tmp_path, "baseline", seed=7, started=STARTED)
    full = finished_run(tmp_path, "full", seed=7, started=STARTED)
    finished_run(tmp_path, "full", seed=7, started=STARTED + 100, profile="minilm")
    assert select_runs(tmp_path, ["full", old.id]) == [full, old]
    assert select_runs(tmp_path, [old.id[-4:], str(full.path)]) == [old, full]
    with pytest.raises(RunError, match="No run named 'nonsense'"):
        select_runs(tmp_path, ["nonsense", "full"])


def test_recipes_without_common_terms_are_refused_with_the_difference(tmp_path: Path) -> None:
    baseline = finished_run(tmp_path, "baseline")
    full = finished_run(tmp_path, "full", profile="minilm")
    with pytest.raises(CompareError, match=r"differs in profile \(demo, minilm\)") as caught:
        select_runs(tmp_path, ["baseline", "full"])
    assert baseline.id in caught.value.what
    assert full.id in caught.value.what
    assert caught.value.hint == "Train one that does: accl train full --profile demo"


def test_no_finished_runs_give_one_line_and_the_commands(tmp_path: Path) -> None:
    running_run(tmp_path, "full")
    with pytest.raises(CompareError) as caught:
        select_runs(tmp_path, ["baseline", "full"])
    assert caught.value.what == f"There is no finished run of baseline or full in {tmp_path}."
    assert caught.value.hint == "Train first: accl train baseline --profile demo && accl train full --profile demo"


def test_the_commands_name_the_profile_that_the_other_arms_have(tmp_path: Path) -> None:
    finished_run(tmp_path, "full", profile="minilm")
    with pytest.raises(CompareError, match="no finished run of baseline in") as caught:
        select_runs(tmp_path, ["baseline", "full"])
    assert caught.value.hint == "Train first: accl train baseline --profile minilm"


def test_a_damaged_run_does_not_stand_in_the_way_of_others(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path, r) for r in ("baseline", "full")]
    damaged = finished_run(tmp_path, "full", started=STARTED + 100)
    damaged.config.write_text("recipe: full\nold_key: 1\n", encoding="utf-8")
    assert select_runs(tmp_path, ["baseline", "full"]) == runs
    with pytest.raises(CompareError, match="1 unreadable run ignored"):
        select_runs(tmp_path, ["baseline", "contrastive"])


def test_a_recipe_of_ones_own_is_known_by_its_runs(tmp_path: Path) -> None:
    baseline = finished_run(tmp_path, "baseline")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump({"loss": {"temperature": 0.2}}), encoding="utf-8")
    mine = finished_run(tmp_path, str(recipe))
    assert load(mine.config).recipe == "mine"
    assert select_runs(tmp_path, ["baseline", "mine"]) == [baseline, mine]


def test_a_recipe_beside_one_of_its_own_runs_is_another_run(tmp_path: Path) -> None:
    older = finished_run(tmp_path, "full", started=STARTED)
    newer = finished_run(tmp_path, "full", started=STARTED + 100)
    assert select_runs(tmp_path, [newer.id, "full"]) == [newer, older]


@pytest.mark.parametrize("name", ["seed_literal", "as_published"])
def test_a_recipe_is_found_by_its_old_name_and_its_new_one(tmp_path: Path, name: str) -> None:
    baseline = {seed: finished_run(tmp_path, "baseline", seed=seed) for seed in (1, 2)}
    new = finished_run(tmp_path, "as_published", seed=1)
    old = finished_run(tmp_path, "as_published", seed=2, started=STARTED + 100)
    text = old.config.read_text(encoding="utf-8")
    old.config.write_text(text.replace("recipe: as_published", "recipe: seed_literal"), encoding="utf-8")
    assert load(old.config).recipe == "seed_literal"
    assert select_runs(tmp_path, [name, "baseline"]) == [old, baseline[2]]
    seeds = select_seeds(tmp_path, ["baseline", name])
    assert seeds.runs == ((baseline[1], baseline[2]), (new, old))
    ablation = compare_seeds(seeds)
    assert ablation.arms[1].label == "as_published"
    assert not any("differ in more than the seed" in text for text in ablation.warnings)
    with pytest.raises(CompareError, match="as_published was named twice"):
        select_seeds(tmp_path, ["seed_literal", "as_published"])
