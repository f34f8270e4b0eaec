"""Selection of the runs on which the claims of the method are checked: its three arms, alike in all else."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from accl.analysis.candidates import finished_runs, is_tested
from accl.analysis.results import Setup
from accl.config import difference, resolve
from accl.config.resolution import flat
from accl.errors import AcclError
from accl.store.rundir import RunDir
from accl.text import typed

ARMS = ("baseline", "contrastive", "full")
# What makes an arm; contrastive and full have the weights in common all the same.
_WEIGHTS = ("loss.classification_weight", "loss.contrastive_weight")
_ARM_KEYS = {"recipe", "train.seed", "curriculum.policy", *_WEIGHTS}
# What changes neither training nor which weights are tested.
_IDLE_KEYS = {
    *("train.device", "train.backend", "train.checkpoint_every", "train.max_unsaved_minutes"),
    *("eval.test", "alerts.command"),
}


@dataclass(frozen=True)
class ClaimRuns:
    """Runs of the method's arms on equal terms.

    Attributes:
        arms: newest finished run by seed, by recipe of `ARMS`, one that was tested if there is any; arms without a run
            are left out.
        others: number of finished runs of these recipes on other terms, or with other values.
        unreadable: number of runs, of unknown recipe, that could not be read.
    """

    arms: Mapping[str, Mapping[int, Setup]]
    others: int
    unreadable: int

    def shared_seeds(self, recipes: Sequence[str]) -> tuple[int, ...]:
        """Return the seeds that all of these arms have, ascending."""
        return tuple(sorted(set.intersection(*(set(self.arms.get(recipe, {})) for recipe in recipes))))

    @property
    def anchor(self) -> Setup | None:
        """Return one of the runs, to say the terms; None where there is none."""
        return next((setup for runs in self.arms.values() for setup in runs.values()), None)


def select_claim_runs(runs: Sequence[RunDir], profile: str | None = None) -> ClaimRuns:
    """Choose, among runs from the oldest to the newest, those that show most of the claims.

    Arms belong together when profile, protocol, data, number of steps and every value are equal that does not make the
    arm; contrastive and full have equal weights of the losses. Of several such groups the one with the most arms is
    taken, then with the most shared seeds, then with the newest run.
    """
    every, unreadable = finished_runs(runs[::-1])
    found = [each for each in every if profile in (None, each[0].config.profile)]
    # group -> recipe -> variant (all values but the seed) -> seed -> newest run, and the rank of the newest
    groups: dict[Any, dict[str, dict[Any, dict[int, Setup]]]] = defaultdict(lambda: defaultdict(dict))
    rank: dict[RunDir, int] = {}
    for index, (setup, state) in sorted(enumerate(found), key=lambda item: not is_tested(*item[1])):
        if setup.config.recipe not in ARMS:
            continue
        rank[setup.run] = index
        values = {key: value for key, value in flat(setup.config).items() if key not in _IDLE_KEYS}
        group = (*setup.terms.values(), state.step, _key({k: v for k, v in values.items() if k not in _ARM_KEYS}))
        variant = _key({k: v for k, v in values.items() if k != "train.seed"})
        groups[group][setup.config.recipe].setdefault(variant, {}).setdefault(setup.config.train.seed, setup)
    best: dict[str, dict[int, Setup]] = {}
    best_score: tuple[int, int, int] = (0, 0, 0)
    for recipes in groups.values():
        present = [recipe for recipe in ARMS if recipe in recipes]
        for runs_of in product(*(recipes[recipe].values() for recipe in present)):
            arms = _alike(dict(zip(present, runs_of, strict=True)))
            shared = set.intersection(*map(set, arms.values()))
            newest = -min(rank[setup.run] for by_seed in arms.values() for setup in by_seed.values())
            if not best or (len(arms), len(shared), newest) > best_score:
                best, best_score = arms, (len(arms), len(shared), newest)
    return ClaimRuns(best, len(rank) - sum(map(len, best.values())), unreadable)


def train_command(anchor: Setup | None, recipes: Sequence[str], seeds: Sequence[int]) -> str:
    """Return the commands that train recipes under seeds as ``anchor`` was; a whole ablation where there is none."""
    if anchor is None:
        return "accl ablate --profile demo --seeds 3"
    config = anchor.config
    try:
        changed = difference(resolve(config.recipe, config.profile).config, config)
    except AcclError:  # a profile that is no longer there
        changed = {}
    sets = [
        f" --set {shlex.quote(f'{key}={typed(now)}')}"
        for key, (_, now) in changed.items()
        if key not in _IDLE_KEYS | {"recipe", "train.seed"}
    ]
    ending = f" --profile {config.profile}{''.join(sets)} --seeds {','.join(map(str, seeds))}"
    return " && ".join(f"accl train {recipe}{ending}" for recipe in recipes)


def _key(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, repr(value)) for key, value in sorted(values.items()))


def _alike(arms: dict[str, dict[int, Setup]]) -> dict[str, dict[int, Setup]]:
    """Leave full out where its weights of the losses are not those of contrastive."""
    if {"contrastive", "full"} <= arms.keys():
        one, other = (flat(next(iter(arms[recipe].values())).config) for recipe in ("contrastive", "full"))
        if any(one[key] != other[key] for key in _WEIGHTS):
            return {recipe: runs for recipe, runs in arms.items() if recipe != "full"}
    return arms
