"""`accl train`: resolve, check, start a process, watch it."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from accl.cli.options import RUNS, DetachOption, OverridesOption, ProfileOption, RunsOption
from accl.cli.output import print_notes, say
from accl.config import resolve


def train(
    recipe: Annotated[
        str, typer.Argument(help="baseline, contrastive, full, the path of a recipe file or of a run's config.yaml.")
    ],
    profile: ProfileOption = None,
    overrides: OverridesOption = None,
    seed: Annotated[str | None, typer.Option("--seed", metavar="N", help="Short for --set train.seed=N.")] = None,
    detach: DetachOption = False,
    runs: RunsOption = RUNS,
) -> None:
    """Train a recipe in a process of its own, and show how it goes.

    The process does not belong to this terminal: closing it never ends the run, which goes on by itself.
    Ctrl-C asks it to stop after the current step with a checkpoint; Ctrl-C again, a second later or more,
    kills it.

    SIGTERM, SIGUSR1 and SIGUSR2 to this command, from a scheduler or from timeout, are passed on. A run
    that they stop ends with a checkpoint and exit code 75, so that the scheduler can queue it again:
    accl resume RUN goes on. As PID 1 of a container this command passes SIGHUP on as well, because its
    end would kill the run.

    Examples:

      accl train full --profile demo

      accl train baseline -p minilm --set data.path=mmlu --set model.name=all-MiniLM-L6-v2 --seed 1

      accl train full --detach
    """
    from accl.cli.foreground import end_on_signals
    from accl.cli.progress import show_progress
    from accl.launch import process
    from accl.launch.preflight import check

    end_on_signals()
    extra = [f"train.seed={seed}"] if seed is not None else []
    resolved = resolve(recipe, profile, [*(overrides or ()), *extra])
    print_notes(resolved.notes)
    print_notes(check(resolved.config, lambda words: say(f"{words} …", err=True, style="dim")))
    run = process.prepare(runs, resolved.config, sys.argv)
    start = partial(process.start, run)
    if detach:
        start()
        say(run.id)
        return
    raise typer.Exit(show_progress(run, start))
