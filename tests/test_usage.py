"""A command line that cannot be read ends as any other mistake does: one line, and what to type."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run_command


@pytest.mark.parametrize(
    ("line", "what", "hint"),
    [
        ("train --sed 1", "accl train has no option --sed.", "Did you mean: --seed, --seeds, --set? "),
        ("config show --zzz", "accl config show has no option --zzz.", "How it is typed: accl config show --help"),
        ("show", "accl show needs RUN.", "For example: accl show last "),
        ("export last --to csv", "accl export needs RUN... and DIR.", "For example: accl export full-s1 my-model "),
        ("rename", "accl rename needs RUN and NAME.", "For example: accl rename last "),
        ("sweep full", "accl sweep needs --grid.", "For example: accl sweep full "),
        ("ablate --jobs 0", "--jobs should be greater than or equal to 1.", "How it is typed: accl ablate --help"),
        ("ablate --jobs x", "--jobs should be a valid integer.", "How it is typed: accl ablate --help"),
        ("compare --format x", "--format: 'x' is not one of 'table'", "How it is typed: accl compare --help"),
        (
            "train full --set a.b=1 optim.lr=2",
            "accl train does not take: optim.lr=2",
            "Did you mean: --set optim.lr=2? ",
        ),
        ("figure curvs last", "accl figure: No such command 'curvs'.", "Did you mean 'curves'? It has: curves, "),
        ("rename a b c", "accl rename does not take: c", "How it is typed: accl rename --help"),
        ("show last --format", "Option '--format' requires an argument.", "How it is typed: accl show --help"),
        ("queue foo", "accl queue: No such command 'foo'.", "It has: list, add, move, pause, resume, cancel. "),
        ("bench train --together --apart", "--together and --apart exclude each other.", "How it is typed: "),
        ("show last --\x1b[31mred", "accl show has no option --", "How it is typed: accl show --help"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_clear_line(tmp_path: Path, line: str, what: str, hint: str) -> None:
    done = run_command(*line.split(), cwd=tmp_path)
    assert done.code == 2
    assert done.stdout == b""
    first, second = done.stderr.decode().splitlines()
    assert first.startswith(f"error: {what}")
    assert second.startswith(hint)
    assert "\x1b" not in done.text


def test_without_a_command_the_help_is_shown(tmp_path: Path) -> None:
    done = run_command(cwd=tmp_path)
    assert done.code == 2
    assert "Start with:  accl demo" in done.text
    assert "error: " not in done.text
