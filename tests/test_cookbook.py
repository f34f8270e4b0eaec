"""Every line of the README's cookbook is run, in order, in an empty folder; only the demo is shorter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
SHORTER = "--set train.max_steps=60 --set eval.every=20"


def lines() -> list[str]:
    text = (HOME / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- cookbook -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return block[1].splitlines()


def test_the_cookbook_has_the_jobs_of_a_week() -> None:
    assert len(lines()) >= 10
    text = "\n".join(lines())
    for command in ("sweep", "train --like", "runs", "note", "rm", "compare", "figure", "show", "ask", "export"):
        assert f"accl {command} " in text


@pytest.mark.slow
def test_every_line_of_the_cookbook_runs(tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, words in (("accl", "-m accl.cli.main"), ("python", "")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (bin_folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(HOME), "COLUMNS": "80"}
    for line in lines():
        command = line.replace("-p demo", f"-p demo {SHORTER}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    for made in ("table.tex", "curves.pdf", "report.html", "model/config.json", "all.tgz"):
        assert (tmp_path / made).stat().st_size > 0
