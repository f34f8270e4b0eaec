"""Words that can be typed next, for the completion of shells: runs, keys and values.

A shell waits for it at a key press, so nothing here reads more than small files, and only text that means nothing to a
shell is offered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from accl.store.rundir import RunDir

# Other text would have to be quoted, each shell in its own way.
_PLAIN = re.compile(r"[A-Za-z0-9][\w.,+/=:@%-]*", re.ASCII)


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer runs: ``last``, names that people gave, and ids without their time; whole ids where one was begun."""
    return _offered(_run_words(_runs(ctx), incomplete), incomplete)


def complete_runs_or_query(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer runs, and the keys of queries with the values that they have there."""
    return [*complete_run(ctx, incomplete), *complete_query(ctx, incomplete)]


def complete_query(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the keys of queries over runs, and after the colon the values that a key has there."""
    from accl.store.config_values import default_values
    from accl.store.vocabulary import CONFIG, RUNS

    key, colon, _ = incomplete.partition(":")
    if incomplete.startswith(CONFIG):
        return _offered((CONFIG + name for name in default_values()), incomplete)
    keys = [known.name for known in RUNS.keys if known.name.startswith(key)]
    if not colon and len(keys) != 1:
        return [f"{name}:" for name in keys]
    name = key if colon else keys[0]
    # A key alone would be followed by a blank: beside its values it is not.
    return _offered([f"{name}:", *(f"{name}:{value}" for value in _query_values(ctx, name))], incomplete)


def complete_trashed(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the runs in the trash."""
    from accl.store.trash import trashed_runs

    return _offered(_run_words([each.run for each in trashed_runs(_folder(ctx))], incomplete), incomplete)


def complete_arm(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer what can be compared: recipes, experiments and runs."""
    runs = _runs(ctx)
    words = [*_available("recipes"), *_experiments(runs), *_run_words(runs, incomplete)]
    return _offered(words, incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Offer the recipes that come with accl."""
    return _offered(_available("recipes"), incomplete)


def complete_profile(incomplete: str) -> list[str]:
    """Offer the profiles that come with accl."""
    return _offered(_available("profiles"), incomplete)


def complete_override(incomplete: str) -> list[str]:
    """Offer ``KEY=``, and after it the values of a key that takes one of a few, or else its default."""
    from accl.store.config_values import default_values

    key, equals, _ = incomplete.partition("=")
    keys = [known for known in default_values() if known.startswith(key)]
    if not equals and len(keys) != 1:
        return [f"{known}=" for known in keys]
    name = key if equals else keys[0]
    return _offered([f"{name}={value}" for value in ("", *_config_values(name))], incomplete)


def complete_axis(incomplete: str) -> list[str]:
    """Offer ``KEY=`` and its values, after a comma another one."""
    before, comma, _ = incomplete.rpartition(",")
    if not comma:
        return complete_override(incomplete)
    taken = before.partition("=")[2].split(",")
    values = [value for value in _config_values(before.partition("=")[0]) if value not in taken]
    return _offered([f"{before},{value}" for value in values], incomplete)


def complete_topic(incomplete: str) -> list[str]:
    """Offer what `accl config explain` explains: keys, sections and metrics."""
    from accl.store.config_values import default_values

    sections = [key.partition(".")[0] for key in default_values()]
    return _offered(["metrics", *sections, *default_values()], incomplete)


def complete_tag(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the tags that runs have."""
    return _offered(_query_values(ctx, "tag"), incomplete)


def _offered(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(incomplete) and _PLAIN.fullmatch(word)]


def _folder(ctx: Any) -> Path:
    """Return the folder of the runs that the line so far names, by --runs of the command or of its group."""
    named = Path()
    while ctx is not None:
        folder = ctx.params.get("runs")
        if isinstance(folder, str):  # typed, or from the environment
            return Path(folder).expanduser()
        named = folder or named  # the default
        ctx = ctx.parent
    return named


def _runs(ctx: typer.Context) -> list[RunDir]:
    """Return the runs of the folder; none where it cannot be read."""
    from accl.errors import AcclError
    from accl.store.rundir import run_folders

    with suppress(AcclError):
        return run_folders(_folder(ctx))
    return []


def _run_words(runs: Sequence[RunDir], incomplete: str) -> list[str]:
    from accl.store.deadline import DEADLINE_S, each_within
    from accl.store.rundir import LAST, given_name, is_id

    shorter = {run: run.id.split("-", 2)[2] if is_id(run.id) else run.id for run in runs}
    counts = Counter(shorter.values())
    words = [short if counts[short] == 1 else run.id for run, short in shorter.items()]
    words += [name for _, name in each_within(DEADLINE_S, given_name, runs) if isinstance(name, str)]
    if incomplete:  # other words for the same runs, when one of them was begun
        words += [run.id for run in runs] + [run.id.rpartition("-")[2] for run in runs if is_id(run.id)]
    return [LAST, *words] if runs else []


def _experiments(runs: Sequence[RunDir]) -> list[str]:
    from accl.store.deadline import DEADLINE_S, each_within
    from accl.store.experiment import read_experiment

    return sorted({name for _, name in each_within(DEADLINE_S, read_experiment, runs) if isinstance(name, str)})


def _available(kind: Any) -> list[str]:
    from accl.config import available

    return available(kind)


def _query_values(ctx: typer.Context, key: str) -> list[str]:
    if key == "state":
        from accl.store.state import State

        return [state.value for state in State]
    if key in ("recipe", "profile"):
        return _available(f"{key}s")
    if key == "experiment":
        return _experiments(_runs(ctx))
    if key in ("tag", "name"):
        from accl.store.deadline import DEADLINE_S, each_within
        from accl.store.labels import Labels, read_labels

        found = [labels for _, labels in each_within(DEADLINE_S, read_labels, _runs(ctx)) if isinstance(labels, Labels)]
        return [labels.name for labels in found] if key == "name" else [tag for each in found for tag in each.tags]
    return []


def _config_values(key: str) -> tuple[str, ...]:
    from accl.config.choosable import choosable
    from accl.store.config_values import default_values

    default = default_values().get(key, "")
    return choosable().get(key) or (default if isinstance(default, str) else f"{default:.15g}",)
