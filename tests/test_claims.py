"""`accl claims`: verdicts on the method's claims, and what they say where runs are missing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command
from factory import STARTED, finished_run, running_run

from accl.analysis import claims as module
from accl.analysis.claim_runs import select_claim_runs, train_command
from accl.analysis.claims import Claim, Claims, check_claims
from accl.analysis.crossed import contrast_over_seeds, difference_over_seeds
from accl.analysis.efficiency import Training
from accl.analysis.results import Setup, read_setup
from accl.store.rundir import list_runs
from accl.store.state import read_state, write_state

N, TASKS = 1200, 6
HARD = (0, 1)  # the tasks that are most alike
SEEDS = (1, 2, 3)


def answers(rate: float, hard: float, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Answers right at a rate, and at another one on the hard pairs' tasks; luck is the seed's, whatever the arm."""
    rates = np.where(np.isin(np.arange(N) % TASKS, HARD), hard, rate)
    return np.asarray(np.random.default_rng(seed).random(N) < rates)


def grid(root: Path, rates: dict[str, tuple[float, float]], seeds: Sequence[int] = SEEDS, **how: object) -> None:
    similarity = np.full((TASKS, TASKS), 0.1) + np.eye(TASKS)
    similarity[HARD, HARD[::-1]] = 0.9
    # A tenth of 15 pairs are two: the second one is (0, 2), so that tasks 0, 1 and 2 are hard.
    similarity[0, 2] = similarity[2, 0] = 0.8
    for recipe, (rate, hard) in rates.items():
        for seed in seeds:
            right = answers(rate, hard, seed)
            settings = {"correct": right, "similarity": similarity, "curves": False, **how}
            finished_run(root, recipe, seed=seed, **settings)  # type: ignore[arg-type]


def check(root: Path, profile: str | None = None) -> Claims:
    return check_claims(select_claim_runs(list_runs(root), profile))


def by_key(found: Claims) -> dict[str, Claim]:
    return {claim.key: claim for claim in found.claims}


STRONG = {"baseline": (0.40, 0.40), "contrastive": (0.47, 0.47), "full": (0.55, 0.75)}


# Accuracy ----------------------------------------------------------------------------------------


def test_gains_that_are_there_are_supported_with_the_numbers_of_the_comparison(tmp_path: Path) -> None:
    grid(tmp_path, STRONG)
    found = by_key(check(tmp_path))
    assert found["contrastive"].verdict == "supported"
    (gain,) = found["contrastive"].evidence
    first, second = (np.stack([answers(*STRONG[arm], seed) for seed in SEEDS]) for arm in ("baseline", "contrastive"))
    expected = difference_over_seeds(first, second)
    assert (gain.value, gain.low, gain.high, gain.p) == (expected.delta, expected.low, expected.high, expected.p)
    assert (gain.seeds, gain.n, gain.test) == (SEEDS, N, "t over seeds and questions")
    full = found["full"]
    assert full.verdict == "supported"
    assert [e.quantity for e in full.evidence[:2]] == ["full − baseline", "full − contrastive"]
    third = np.stack([answers(*STRONG["full"], seed) for seed in SEEDS])
    contrast = contrast_over_seeds(first, third, np.isin(np.arange(N) % TASKS, (0, 1, 2)))
    assert full.evidence[2].value == pytest.approx(contrast.delta)
    assert full.evidence[2].quantity == "gain on baseline: confusing pairs (600) − others (600)"


@pytest.mark.parametrize(
    ("rates", "contrastive", "full"),
    [
        ({"contrastive": (0.33, 0.33), "full": (0.30, 0.30)}, "not supported", "not supported"),
        ({"contrastive": (0.417, 0.417), "full": (0.43, 0.43)}, "inconclusive", "inconclusive"),
        ({"contrastive": (0.47, 0.47), "full": (0.55, 0.55)}, "supported", "inconclusive"),  # everywhere alike
        ({"contrastive": (0.47, 0.47), "full": (0.75, 0.50)}, "supported", "not supported"),  # most on easy ones
    ],
)
def test_gains_that_are_not_there_are_refused_or_left_open(
    tmp_path: Path, rates: dict[str, tuple[float, float]], contrastive: str, full: str
) -> None:
    grid(tmp_path, {"baseline": (0.40, 0.40), **rates})
    found = by_key(check(tmp_path))
    assert found["contrastive"].verdict == contrastive
    assert found["full"].verdict == full
    assert all(claim.reason for claim in found.values())


def test_one_seed_has_numbers_but_never_a_verdict(tmp_path: Path) -> None:
    grid(tmp_path, STRONG, seeds=[2])
    for key in ("contrastive", "full"):
        claim = by_key(check(tmp_path))[key]
        assert claim.verdict == "inconclusive"
        assert "Seed 2 alone" in claim.reason
        assert "accl train baseline --profile demo --seeds 1,3 && accl train contrastive" in claim.hint
        assert claim.evidence[0].p is not None
        assert claim.evidence[0].p < 0.001
        assert claim.evidence[0].test == "exact McNemar"


def test_pairs_that_touch_every_task_leave_the_last_claim_open(tmp_path: Path) -> None:
    for recipe, rate in (("baseline", 0.4), ("contrastive", 0.5), ("full", 0.6)):
        for seed in SEEDS:
            right = answers(rate, rate, seed)
            finished_run(tmp_path, recipe, seed=seed, correct=right, similarity=np.full((6, 6), 0.5), curves=False)
    claim = by_key(check(tmp_path))["full"]
    assert claim.verdict == "inconclusive"
    assert "touch every task" in claim.reason
    assert len(claim.evidence) == 2


# Steps and time ----------------------------------------------------------------------------------


def trained(monkeypatch: pytest.MonkeyPatch, curves: dict[str, Training | list[Training]]) -> None:
    """Have the runs of an arm trained as given, all of them alike or one by one in the order of their seeds."""

    def read(setup: Setup) -> Training:
        given, seed = curves[setup.config.recipe], setup.config.train.seed
        one = given[SEEDS.index(seed)] if isinstance(given, list) else given
        return replace(one, seed=seed, run_id=setup.run.id)

    monkeypatch.setattr(module, "read_training", read)


CURVE = Training(0, "", (100, 200, 300, 400), (0.3, 0.4, 0.45, 0.5), 16, 10.0, "gpu")
FAST = replace(CURVE, accuracies=(0.4, 0.5, 0.5, 0.6), milliseconds_per_step=10.4)
SLOW = replace(CURVE, accuracies=(0.1, 0.2, 0.3, 0.4))


def timed(*milliseconds: float | None) -> list[Training]:
    return [replace(CURVE, milliseconds_per_step=value) for value in milliseconds]


@pytest.mark.parametrize(
    ("full", "verdict", "words"),
    [
        (FAST, "supported", "50 % fewer steps"),
        ([FAST, SLOW, FAST], "inconclusive", "1 of 3 runs of full never got there"),
        (replace(SLOW, steps=(300, 600, 900, 1200)), "not supported", "3 of 3 runs of full never got there"),
        ([FAST, CURVE, replace(FAST, accuracies=(0.5, 0.5, 0.5, 0.5))], "inconclusive", "Neither fewer steps"),
    ],
)
def test_fewer_steps_need_every_run_to_get_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: Training | list[Training],
    verdict: str,
    words: str,
) -> None:
    grid(tmp_path, {"contrastive": (0.4, 0.4), "full": (0.4, 0.4)})
    trained(monkeypatch, {"contrastive": CURVE, "full": full})
    claim = by_key(check(tmp_path))["curriculum"]
    assert claim.verdict == verdict
    assert words in claim.reason
    assert claim.evidence[0].bound == ("never" in words)


@pytest.mark.parametrize(
    ("full", "verdict", "words"),
    [
        (timed(10.4, 10.5, 10.4), "supported", "no more time than claimed"),
        (timed(9.0, 9.1, 9.0), "supported", "no more time than claimed"),
        (timed(12.0, 12.1, 12.0), "not supported", "more time than claimed"),
        (timed(9.0, 13.0, 10.0), "inconclusive", "accl bench train full --profile demo --arms contrastive,full"),
        (timed(10.4, None, 10.4), "inconclusive", "did not record"),
        ([replace(CURVE, device="cpu")] * 3, "inconclusive", "different devices: cpu; gpu"),
    ],
)
def test_the_overhead_is_judged_by_the_times_of_steps_on_one_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: list[Training], verdict: str, words: str
) -> None:
    grid(tmp_path, {"contrastive": (0.4, 0.4), "full": (0.4, 0.4)})
    trained(monkeypatch, {"contrastive": CURVE, "full": full})
    claim = by_key(check(tmp_path))["overhead"]
    assert claim.verdict == verdict
    assert words in claim.reason


# Which runs --------------------------------------------------------------------------------------


def test_without_runs_every_claim_is_open_and_says_what_to_type(tmp_path: Path) -> None:
    found = check(tmp_path)
    assert {claim.verdict for claim in found.claims} == {"inconclusive"}
    assert {claim.hint for claim in found.claims} == {"Train first: accl ablate --profile demo --seeds 3"}
    assert not found.runs


def test_an_arm_without_runs_leaves_the_claims_that_need_it_open(tmp_path: Path) -> None:
    grid(tmp_path, {name: STRONG[name] for name in ("baseline", "contrastive")}, overrides=["optim.lr=3e-4"])
    running_run(tmp_path, "full", seed=1)
    found = by_key(check(tmp_path))
    assert found["contrastive"].verdict == "supported"
    for key in ("curriculum", "full", "overhead"):
        assert found[key].verdict == "inconclusive"
        assert found[key].reason == "There is no finished run of full beside the others."
        assert found[key].hint == "Train first: accl train full --profile demo --set optim.lr=0.0003 --seeds 1,2,3"


def test_arms_without_a_common_seed_say_which_are_missing(tmp_path: Path) -> None:
    grid(tmp_path, {"baseline": (0.4, 0.4)}, seeds=[1, 2])
    grid(tmp_path, {"contrastive": (0.4, 0.4)}, seeds=[3])
    claim = by_key(check(tmp_path))["contrastive"]
    assert claim.reason == "No seed has a finished run of baseline and contrastive."
    assert claim.hint == "Train: accl train contrastive --profile demo --seeds 1,2"


def test_runs_with_other_values_take_no_part(tmp_path: Path) -> None:
    grid(tmp_path, STRONG)
    later = {"started": STARTED + 1000}
    finished_run(tmp_path, "full", seed=1, correct=answers(0.1, 0.1, 1), overrides=["optim.lr=1e-4"], **later)  # type: ignore[arg-type]
    finished_run(tmp_path, "full", seed=2, correct=answers(0.1, 0.1, 1), profile="minilm", **later)  # type: ignore[arg-type]
    found = check(tmp_path)
    assert by_key(found)["full"].verdict == "supported"
    assert any(text.startswith("2 other finished runs of these arms have") for text in found.warnings)
    assert [len(ids) for ids in found.runs.values()] == [3, 3, 3]
    assert set(check(tmp_path, profile="minilm").runs) == {"full"}


def test_full_with_other_weights_of_the_losses_is_no_partner_of_contrastive(tmp_path: Path) -> None:
    grid(tmp_path, {name: STRONG[name] for name in ("baseline", "contrastive")})
    grid(tmp_path, {"full": STRONG["full"]}, overrides=["loss.contrastive_weight=0.03"])
    chosen = select_claim_runs(list_runs(tmp_path))
    assert list(chosen.arms) == ["baseline", "contrastive"]
    assert chosen.others == 3


def test_of_two_runs_with_the_same_seed_the_newest_counts_and_a_broken_one_is_said(tmp_path: Path) -> None:
    grid(tmp_path, STRONG, seeds=[1, 2])
    newer = finished_run(tmp_path, "baseline", seed=1, started=STARTED + 500)
    broken = finished_run(tmp_path, "baseline", seed=2, started=STARTED + 600)
    broken.config.write_text("recipe: [", encoding="utf-8")
    chosen = select_claim_runs(list_runs(tmp_path))
    assert chosen.arms["baseline"][1].run == newer
    assert chosen.arms["baseline"][2].run != broken
    assert chosen.unreadable == 1
    assert (
        "1 run in the folder could not be read and may be missing here; see: accl runs" in check_claims(chosen).warnings
    )


def test_a_run_that_was_tested_comes_before_a_newer_one_that_was_not(tmp_path: Path) -> None:
    tested = finished_run(tmp_path, "full", seed=1, curves=False)
    untested = finished_run(
        tmp_path, "full", seed=1, curves=False, started=STARTED + 100, overrides=["eval.test=false"], predictions=False
    )
    state = read_state(untested)
    write_state(untested, replace(state, latest={"train/loss": 0.5}))
    assert select_claim_runs(list_runs(tmp_path)).arms["full"][1].run == tested
    only = finished_run(tmp_path, "full", seed=2, curves=False, started=STARTED + 200, overrides=["eval.test=false"])
    assert select_claim_runs(list_runs(tmp_path)).arms["full"][2].run == only


def test_a_run_whose_answers_are_gone_leaves_its_claims_open(tmp_path: Path) -> None:
    grid(tmp_path, STRONG, predictions=False, curves=True)
    found = by_key(check(tmp_path))
    assert found["contrastive"].verdict == "inconclusive"
    assert "no answers to the test split" in found["contrastive"].reason
    assert found["contrastive"].hint
    assert found["curriculum"].evidence, "needs no test"


def test_the_command_to_train_names_every_value_that_was_set(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "full", overrides=["data.permute_options=false", "train.epochs=3", "model.name=a b"])
    command = train_command(read_setup(run), ["baseline"], [4])
    assert command.startswith("accl train baseline --profile demo --set ")
    assert "'model.name=a b'" in command
    assert "data.permute_options=false" in command
    assert "train.epochs=3" in command
    assert command.endswith(" --seeds 4")


# The command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    grid(folder, STRONG, curves=True)
    return folder


def test_the_table_fits_80_columns_and_names_claim_verdict_and_number(root: Path) -> None:
    printed = run_command("claims", "--runs", str(root), COLUMNS="80")
    assert printed.code == 0
    assert max(map(len, printed.text.splitlines())) <= 80
    verdicts, evidence = printed.text.split("What they rest on")
    assert verdicts.count(" supported ") == 2
    assert verdicts.count(" inconclusive ") == 2
    line = next(line for line in evidence.splitlines() if line.startswith("contrastive "))
    assert f"3 × {N:,}" in line
    assert "say nothing about MMLU" in " ".join(printed.text.split())


def test_every_format_holds_the_same_numbers(root: Path) -> None:
    data = json.loads(run_command("claims", "--runs", str(root), "--format", "json").stdout)
    assert [claim["key"] for claim in data["claims"]] == ["contrastive", "curriculum", "full", "overhead"]
    gain = data["claims"][0]["evidence"][0]
    rows = list(csv.DictReader(io.StringIO(run_command("claims", "--runs", str(root), "-f", "csv").stdout.decode())))
    assert float(rows[0]["value"]) == gain["value"]
    assert [row["claim"] for row in rows] == ["contrastive", "curriculum", "full", "full", "full", "overhead"]
    shown = f"{100 * gain['value']:+.2f} [{100 * gain['low']:+.2f}, {100 * gain['high']:+.2f}]"
    assert shown.replace("[", "\\[") in run_command("claims", "--runs", str(root), "--format", "md").text
    assert r"\toprule" in run_command("claims", "--runs", str(root), "--format", "tex").text


def test_a_query_chooses_runs_and_says_when_it_finds_none(root: Path) -> None:
    some = json.loads(run_command("claims", "seed:1,2", "--runs", str(root), "--format", "json").stdout)
    assert some["claims"][0]["evidence"][0]["seeds"] == [1, 2]
    one = run_command("claims", "seed:3", "--runs", str(root)).text
    # The arms of all claims in one line, which has those of each.
    assert [line.count("accl train") for line in one.splitlines() if line.startswith("Train")] == [3]
    none = run_command("claims", "tag:nothing", "--runs", str(root))
    assert "no run of 9" in none.text
    assert "accl ablate --profile demo --seeds 3" in none.text
