"""The comparison of screens with those that were kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import snapshots
from factory import finished_run
from snapshots import assert_snapshot, freeze, scrub


def test_a_screen_that_changed_fails_with_the_lines_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "FOLDER", tmp_path)
    with pytest.raises(AssertionError, match="ACCL_WRITE_SNAPSHOTS"):
        assert_snapshot("x", ["a", "b"])
    with monkeypatch.context() as writing:
        writing.setenv("ACCL_WRITE_SNAPSHOTS", "1")
        assert_snapshot("x", ["a", "b "])
    assert_snapshot("x", ["a  ", "b"])
    with pytest.raises(pytest.fail.Exception, match=r"(?s)-b\n\+c"):
        assert_snapshot("x", ["a", "c"])


def test_ids_and_paths_are_constant_and_as_wide_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path, curves=False, predictions=False)
    line = f"✓ {run.id} 26 % │ {run.path} x"
    assert len(scrub(line)) == len(line)
    assert scrub(line).startswith("✓ 00000000-000000-baseline-s42-0000 26 % │ /…")
    freeze(monkeypatch)
    assert finished_run(tmp_path, curves=False, predictions=False).id.endswith("-0001")
