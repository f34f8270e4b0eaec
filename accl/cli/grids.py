"""`accl ablate` and `accl sweep`: experiments of many runs, each one command."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from accl.cli.completion import complete_axis
from accl.cli.experiment import DryRunOption, NameOption, Order, carry_out
from accl.cli.experiment_tables import Shares
from accl.cli.options import (
    RUNS,
    DetachOption,
    JobsOption,
    NeededRecipeArgument,
    OverridesOption,
    PerGpuOption,
    ProfileOption,
    RunsOption,
)
from accl.cli.output import print_notes

ARMS = ("baseline", "contrastive", "full")
SeedsOption = Annotated[
    str, typer.Option("--seeds", metavar="N|LIST", help="A number N means the seeds 1 to N, a list (1,2,5) these.")
]


def ablate(
    profile: ProfileOption = None,
    seeds: SeedsOption = "5",
    overrides: OverridesOption = None,
    name: NameOption = None,
    jobs: JobsOption = None,
    per_gpu: PerGpuOption = 1,
    dry_run: DryRunOption = False,
    detach: DetachOption = False,
    runs: RunsOption = RUNS,
) -> None:
    """Train baseline, contrastive and full with several seeds.

    The runs are one experiment: they wait in the queue, and go on whatever becomes of this terminal. The
    same command again, or with more seeds, is the same experiment: what has finished is kept, what was
    stopped or failed is resumed, and only what is missing is trained. At the end the arms are printed by
    their best validation accuracy.

    Ctrl-C leaves the runs going; accl wait waits for them again, accl queue and accl tui show them.

    Small encoders leave most of a GPU idle. With --per-gpu N, N runs share it, as threads of few processes:
    what these load is loaded once, and each run is still stopped, resumed and recorded by itself.

    Examples:

      accl ablate --profile demo --seeds 3

      accl ablate -p demo --set train.max_steps=200 --dry-run

      accl ablate --profile demo --seeds 1,2 --jobs 2 --detach

      accl ablate -p demo --seeds 2 --name pilot --per-gpu 3
    """
    from accl.config import resolve
    from accl.launch.plan import read_seeds

    order = Order("ablate", name, Shares(jobs, per_gpu), dry_run, detach)
    bases = [partial(resolve, arm, profile) for arm in ARMS]
    raise typer.Exit(carry_out(order, bases, [], read_seeds(seeds, counted=True), overrides or (), runs))


def sweep(
    recipe: NeededRecipeArgument,
    grid: Annotated[
        list[str],
        typer.Option(
            "--grid",
            "-g",
            metavar="KEY=VALUE,VALUE",
            help="A key and its values; may be repeated.",
            autocompletion=complete_axis,
        ),
    ],
    profile: ProfileOption = None,
    seeds: SeedsOption = "3",
    overrides: OverridesOption = None,
    name: NameOption = None,
    jobs: JobsOption = None,
    per_gpu: PerGpuOption = 1,
    dry_run: DryRunOption = False,
    detach: DetachOption = False,
    runs: RunsOption = RUNS,
) -> None:
    """Train a recipe with all combinations of values and seeds.

    The runs are one experiment, as those of accl ablate are: the same command again finishes what is
    missing, and keeps what has finished. At the end the combinations are printed by their best validation
    accuracy.

    Choosing is done on validation. The test split stays unread (eval.test=false) until accl test RUN asks
    for it; --set eval.test=true tests all of them, which makes the best test accuracy too good to be true.

    Examples:

      accl sweep full -p demo --grid loss.contrastive_weight=0.03,0.1,0.3 --grid optim.lr=1e-3,2e-3 --seeds 2

      accl sweep contrastive -p demo --grid loss.temperature=0.07,0.2 --seeds 1,2 --name temperature --detach

      accl sweep full -p demo -g optim.lr=1e-3,2e-3 --set eval.test=true --jobs 4 --per-gpu 2 --dry-run
    """
    from accl.config import resolve
    from accl.launch.plan import TEST, read_axes, read_seeds

    axes, notes = read_axes(grid)
    sets = list(overrides or ())
    if TEST not in {axis.key for axis in axes} | {item.partition("=")[0].strip() for item in sets}:
        sets.append(f"{TEST}=false")
        notes.append("the test split stays unread (eval.test=false) until you type: accl test RUN")
    print_notes(notes)
    order = Order("sweep", name, Shares(jobs, per_gpu), dry_run, detach)
    chosen = read_seeds(seeds, counted=True)
    raise typer.Exit(carry_out(order, [partial(resolve, recipe, profile)], axes, chosen, sets, runs))
