"""Checks of `accl doctor` beyond the machine: the Hub, and models and data of the profiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from accl.config import Config
from accl.data import hub
from accl.data.architectures import RANDOM
from accl.data.hub_cache import endpoint_problem
from accl.data.sources import load_corpus
from accl.errors import AcclError
from accl.launch.check import Check, Level, assess

HUB_SECONDS = 1.0  # a Hub slower than this counts as out of reach


def start_hub_probe() -> Callable[[], bool]:
    """Start a request to the Hub, and return a function that says whether it is answered within `HUB_SECONDS`."""
    wait = hub.start_probe(HUB_SECONDS)
    return lambda: hub.reachable(wait())


def from_hub(config: Config) -> bool:
    """Return whether model or data may have to be fetched from the Hub."""
    name = config.model.name
    return config.data.source == "hub" or not (name.startswith(RANDOM) or hub.is_local(name))


def check_hub(reachable: bool) -> Check:
    """Return the check of the Hub itself."""
    if reachable:
        return assess("Hub", f"{hub.endpoint()} answers")
    advice = "Fine if model and data are cached. Else use local folders: --set data.path=DIR --set model.name=DIR"
    if problem := endpoint_problem():
        return assess("Hub", problem, f"Type: unset HF_ENDPOINT   {advice}")
    return assess("Hub", "HF_HUB_OFFLINE is set" if hub.is_offline() else f"{hub.endpoint()} is out of reach", advice)


def check_sources(configs: Mapping[str, Config], reachable: bool) -> Iterator[Check]:
    """Yield one check for every model and every data set that the profiles name."""
    models: dict[tuple[str, str], list[str]] = {}
    sets: dict[tuple[str, str, str], list[str]] = {}
    for profile, config in configs.items():
        models.setdefault((config.model.name, config.model.revision), []).append(profile)
        sets.setdefault((config.data.source, config.data.path, config.data.revision), []).append(profile)
    for (name, revision), users in models.items():
        if name.startswith(RANDOM):
            yield assess("model", f"{name} comes with accl")
        elif hub.is_local(name):
            yield _local("model", name, partial(hub.local_model, name), users)
        else:
            yield _pinned("model", name, partial(hub.cached_model, name, revision), users, reachable)
    for (source, path, revision), users in sets.items():
        if source == "synthetic":
            yield assess("data", "the built-in benchmark comes with accl")
        elif source == "hub":
            yield _pinned("data", path, partial(hub.cached_data, path, revision), users, reachable)
        else:
            yield _local("data", path, partial(load_corpus, source, path, revision), users)


def _local(part: str, folder: str, load: Callable[[], object], users: Sequence[str]) -> Check:
    try:
        load()
    except AcclError as error:
        return Check(part, Level.FAIL, error.what, error.hint, frozenset(users))
    return assess(part, f"{folder} is complete")


def _pinned(part: str, repo: str, find: Callable[[], Path | None], users: Sequence[str], reachable: bool) -> Check:
    try:
        cached = find()
    except AcclError as error:
        return Check(part, Level.FAIL, error.what, error.hint, frozenset(users))
    if cached is not None or reachable:
        return assess(part, f"{repo} is cached" if cached else f"{repo} is not cached; the first run fetches it")
    key = "model.name" if part == "model" else "data.path"
    finding = f"{repo} is neither cached nor within reach (needed by {' and '.join(users)})"
    return assess(part, finding, f"Connect to the Hub, or use a local folder: --set {key}=DIR", frozenset(users))
