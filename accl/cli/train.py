"""`accl train` and `accl restart`: resolve, check, start a process, watch it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from accl.cli.completion import complete_run
from accl.cli.experiment import DryRunOption, NameOption, Order, carry_out, checked_steps, read_speeds
from accl.cli.experiment_tables import Shares, show_plan
from accl.cli.options import (
    RUNS,
    DetachOption,
    JobsOption,
    OverridesOption,
    PerGpuOption,
    ProfileOption,
    RecipeArgument,
    RunArgument,
    RunsOption,
    run_name,
)
from accl.cli.output import print_notes, say
from accl.errors import ConfigError

if TYPE_CHECKING:
    from accl.config import Config, Resolved
    from accl.store.rundir import RunDir


def train(
    recipe: RecipeArgument = None,
    profile: ProfileOption = None,
    overrides: OverridesOption = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Short for --set train.seed=N.")] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            parser=run_name,
            metavar="RUN",
            help="Take the configuration of this run instead of a recipe.",
            autocompletion=complete_run,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="LIST", help="Train these seeds (1,2,3) as one experiment, through the queue."),
    ] = None,
    name: NameOption = None,
    jobs: JobsOption = None,
    per_gpu: PerGpuOption = 1,
    dry_run: DryRunOption = False,
    detach: DetachOption = False,
    runs: RunsOption = RUNS,
) -> None:
    """Train a recipe in a process of its own, and show how it goes.

    The process does not belong to this terminal: closing it never ends the run, which goes on by itself.
    Ctrl-C asks it to stop after the current step with a checkpoint; Ctrl-C again, a second later or more,
    kills it.

    With --like a run's own configuration takes the place of recipe and profile, and --set changes single
    values of it; the new run says which one it is based on.

    SIGTERM, SIGUSR1 and SIGUSR2 to this command, from a scheduler or from timeout, are passed on. A run
    that they stop ends with a checkpoint and exit code 75, so that the scheduler can queue it again:
    accl resume RUN goes on. As PID 1 of a container this command passes SIGHUP on as well, because its
    end would kill the run.

    With --seeds the runs are one experiment, as those of accl ablate are: they wait in the queue, Ctrl-C
    leaves them going, and the same command again finishes what is missing. So is a single run with --name,
    --jobs or --per-gpu.

    Examples:

      accl train full --profile demo

      accl train full --profile demo --seeds 1,2,3

      accl train full -p demo --seeds 1,2,3,4 --name pilot --jobs 2 --per-gpu 2 --dry-run

      accl train baseline -p minilm --set data.path=mmlu --set model.name=all-MiniLM-L6-v2 --seed 1

      accl train --like full-s42 --set optim.lr=5e-5 --detach
    """
    from accl.launch.plan import SEED, Action, Member, read_seeds

    sets = list(overrides or ())
    if seed is not None:
        if seeds is not None:
            raise ConfigError("--seed and --seeds are both given.", f"Write: --seeds {seeds}")
        sets.append(f"{SEED}={seed}")
    resolved, base = resolve_arguments(recipe, profile, like, sets, runs)
    order = Order("train", name, Shares(jobs, per_gpu), dry_run, detach, base.id if base else "")
    if seeds is None and name is None and jobs is None and per_gpu == 1:
        print_notes(resolved.notes)
        if base is not None:
            say(_changes(base, resolved.config), err=True)
        if dry_run:
            steps, member = checked_steps([resolved.config]), Member(resolved.config, Action.TRAIN)
            show_plan("one run, of no experiment", [member], steps, read_speeds(runs), order.shares)
            return
        _train(resolved.config, base, detach, runs)
    if seeds is None:
        chosen: tuple[int, ...] = (resolved.config.train.seed,)
        sets = [item for item in sets if item.partition("=")[0].strip() != SEED]
    else:
        chosen = read_seeds(seeds, counted=False)
    like_path = str(base.path) if base else None

    def resolve_again(overrides: Sequence[str]) -> Resolved:
        return resolve_arguments(recipe, profile, like_path, overrides, runs)[0]

    raise typer.Exit(carry_out(order, [resolve_again], [], chosen, sets, runs))


def restart(run: RunArgument, detach: DetachOption = False, runs: RunsOption = RUNS) -> None:
    """Train a run again from its first step, as a new run.

    Configuration and seed are those of the run, which stays as it is. To go on from its last checkpoint
    instead, type: accl resume RUN

    Example:

      accl restart last --detach
    """
    from accl.store.rundir import find_run

    chosen = find_run(runs, run)
    resolved, _ = resolve_arguments(None, None, str(chosen.path), [], runs)
    print_notes(resolved.notes)
    say(f"again, from the first step: {chosen.id}", err=True)
    _train(resolved.config, chosen, detach, runs)


def resolve_arguments(
    recipe: str | None, profile: str | None, like: str | None, overrides: Sequence[str], runs: Path
) -> tuple[Resolved, RunDir | None]:
    """Resolve a recipe, or the configuration of the run that ``--like`` names, which is returned as well.

    Raises:
        ConfigError: both or none of the two is given, or as `accl.config.resolve`.
        RunError: there is no such run, or its configuration cannot be read.
    """
    from accl.config import available, resolve, resolve_like
    from accl.store.rundir import find_run

    if like is None:
        if recipe is None:
            there = ", ".join(available("recipes"))
            raise ConfigError(
                "There is no recipe.", f"Recipes are {there}; for example: accl train full --profile demo"
            )
        return resolve(recipe, profile, overrides), None
    for given, what in ((recipe, f"the recipe {recipe}"), (profile, f"--profile {profile}")):
        if given is not None:
            raise ConfigError(
                f"--like {like} takes the configuration of a run, which {what} would replace.",
                "Give one of the two; --set KEY=VALUE changes single values.",
            )
    run = find_run(runs, like)
    return resolve_like(run.config_text(), run.config, overrides), run


def _changes(base: RunDir, config: Config) -> str:
    """Say by which values a configuration differs from that of the run that it is based on."""
    from accl.config import difference, resolve_like

    found = difference(resolve_like(base.config_text(), base.config).config, config)
    if not found:
        return f"as {base.id}, with nothing changed"
    return f"as {base.id}, with " + ", ".join(f"{key} {old} → {new}" for key, (old, new) in found.items())


def _train(config: Config, base: RunDir | None, detach: bool, runs: Path) -> NoReturn:
    """Make a run of a configuration that is based on another run or on none, train it, show how it goes, and exit."""
    from accl.cli.foreground import end_on_signals
    from accl.cli.progress import show_progress
    from accl.launch import process
    from accl.launch.preflight import check

    end_on_signals()
    print_notes(check(config, lambda words: say(f"{words} …", err=True, style="dim")))
    run = process.prepare(runs, config, sys.argv, based_on=base.id if base else "")
    start = partial(process.start, run)
    if detach:
        start()
        say(run.id)
        raise typer.Exit
    raise typer.Exit(show_progress(run, start))
