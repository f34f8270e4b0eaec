"""`accl compare`: the ablation in one table."""

from __future__ import annotations

from typing import Annotated

import typer

from accl.cli.completion import complete_arm
from accl.cli.options import RUNS, OneProfileOption, ReferenceOption, RunsOption, Split, SplitOption, run_name
from accl.cli.output import Format, FormatOption
from accl.cli.questions import SHOWN, By
from accl.errors import ConfigError

DEFAULT_NAMES = ["baseline", "contrastive", "full"]


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            parser=run_name,
            metavar="EXPERIMENT|ARM|RECIPE|RUN",
            help="Experiments, arms of one, recipes, or runs by id, a part of it, name or path; the first is the "
            f"reference. Without any: {' '.join(DEFAULT_NAMES)}.",
            autocompletion=complete_arm,
        ),
    ] = None,
    reference: ReferenceOption = None,
    profile: OneProfileOption = None,
    split: SplitOption = Split.TEST,
    all_seeds: Annotated[
        bool | None,
        typer.Option(
            "--all-seeds/--one-seed",
            help="Average over every seed of a recipe, also under other settings; or compare the newest run of each. "
            "Without either: every seed of the newest settings.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        By | None, typer.Option("--by", help="Compare part by part instead, or list the questions that changed.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            help="With --by question: at most N of each arm.",
            show_default=f"{SHOWN}; all in json and csv",
        ),
    ] = None,
    tasks: Annotated[
        int, typer.Option("--tasks", min=0, help="How many tasks with the largest gains, and losses, to list per arm.")
    ] = 5,
    notes: Annotated[
        bool, typer.Option("--notes", help="Print below the tables how the numbers are made; other formats have it.")
    ] = False,
    format: FormatOption = Format.TABLE,
    runs: RunsOption = RUNS,
) -> None:
    """Compare finished runs on the test questions they all answered.

    A recipe stands for its newest finished run that shares profile,
    protocol and data with the others, and for all runs that differ from
    it in nothing but the seed, as far as every arm has that seed. An
    experiment stands for all its arms, named by what tells them apart.

    Every arm is paired with the first one, seed by seed and question by
    question: 95 % interval of the difference, p Holm-adjusted over the
    arms. From two seeds on both cover the choice of seeds as well as of
    questions; with one it is the exact McNemar test. Both floors, the
    accuracies of two rules that never read the question, are shown
    beside the accuracy.

    Hard pairs are the tenth of all task pairs that the first arm tells
    apart least; their accuracy is that on the questions of these tasks.

    Settings are chosen by --split validation, whose numbers are too high
    for having been chosen by, and reported on the test.

    csv holds one row per arm; json holds everything: all tasks,
    categories and subcategories, and every seed.

    Examples:

      accl compare baseline contrastive full

      accl compare baseline full --profile demo --tasks 10 --notes

      accl compare weights --split validation --reference baseline

      accl compare baseline full --by task

      accl compare baseline full --by question --limit 40

      accl compare baseline contrastive full --all-seeds --format md

      accl compare 7f3a 91cc --format csv

      accl compare --one-seed --format json
    """
    if limit is not None and by is not By.QUESTION:
        raise ConfigError("--limit is for --by question.", "How many tasks are listed is said with --tasks.")
    from accl.analysis.named import choose  # here: numpy and duckdb would keep help and completion waiting
    from accl.cli.compare_output import print_breakdown, print_comparison

    chosen = choose(
        runs, names or DEFAULT_NAMES, profile=profile, all_seeds=all_seeds, reference=reference, split=split.value
    )
    if by is not None:
        print_breakdown(chosen, by, split, limit, format)
    else:
        print_comparison(runs, chosen, split, tasks, notes, format)
