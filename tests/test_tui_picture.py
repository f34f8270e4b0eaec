from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from conftest import Accl
from factory import finished_run


def test_a_picture_is_an_svg_of_the_screen_that_the_keys_lead_to(tmp_path: Path, accl: Accl) -> None:
    run = finished_run(tmp_path / "runs")
    file = tmp_path / "screen.svg"
    done = accl("tui", "--runs", str(tmp_path / "runs"), "--picture", str(file), "--press", "enter", "--press", "4")
    assert done.returncode == 0, done.stderr
    words = "".join(ElementTree.parse(file).getroot().itertext()).replace("\xa0", " ")
    assert run.id in words
    assert "anatomy" in words
    assert "@font-face" not in words


def test_a_size_that_cannot_be_read_is_one_clear_line(tmp_path: Path, accl: Accl) -> None:
    done = accl("tui", "--picture", str(tmp_path / "x.svg"), "--size", "big")
    assert done.returncode == 3
    assert "120x36" in done.stderr


def test_a_picture_that_cannot_be_written_is_one_clear_line(tmp_path: Path, accl: Accl) -> None:
    done = accl("tui", "--runs", str(tmp_path), "--picture", str(tmp_path / "nowhere" / "x.svg"))
    assert done.returncode == 1
    assert "x.svg cannot be written (No such file or directory)" in done.stderr
    assert "Traceback" not in done.stderr
