"""Kernels for the CPU are compiled where they run: what happens when they cannot be, and when two ask at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from accl.kernels.cpu import native
from accl.kernels.cpu.native import CompilerError, load, obstacle


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def libraries(folder: Path) -> list[str]:
    """Everything in it: nothing may be left lying about."""
    return sorted(path.name for path in folder.iterdir())


def test_it_is_compiled_once_and_then_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, calls = tmp_path / "cache", tmp_path / "calls"
    cc = script(tmp_path / "cc", f'echo called >> {calls}\nexec {shutil.which("cc")} "$@"')
    monkeypatch.setenv("CC", cc)
    for _ in range(2):
        native._load.cache_clear()
        assert load(folder).attention_scratch(16, 32) > 0
    assert calls.read_text().splitlines() == ["called"]
    (name,) = libraries(folder)
    assert name.startswith("kernels-")


def test_another_compiler_or_processor_has_a_library_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path)
    monkeypatch.setattr(native, "_processor", lambda: "another")
    native._load.cache_clear()
    load(tmp_path)
    monkeypatch.setenv("CC", "cc -DOTHER")
    load(tmp_path)
    assert len(libraries(tmp_path)) == 3


def test_it_compiles_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -Werror")
    assert obstacle(tmp_path) is None
    monkeypatch.setattr(native, "NATIVE", "-DPLAIN")  # for a processor of which nothing is known
    native._load.cache_clear()
    assert obstacle(tmp_path) is None


def test_a_compiler_that_does_not_know_the_machine_is_asked_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = f'case "$*" in *-march=native*) exit 1;; esac\nexec {shutil.which("cc")} "$@"'
    monkeypatch.setenv("CC", script(tmp_path / "cc", refusing))
    assert obstacle(tmp_path / "cache") is None


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert obstacle(tmp_path) == "no C compiler (cc) was found"
    monkeypatch.setenv("CC", "my-cc -m64")
    assert obstacle(tmp_path) == "no C compiler (my-cc) was found"
    with pytest.raises(CompilerError):
        load(tmp_path)


def test_the_first_error_of_a_compiler_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cc = script(tmp_path / "cc", 'echo "In file x:" >&2\necho "x.c:1: fatal error: no y.h" >&2\nexit 1')
    monkeypatch.setenv("CC", cc)
    assert obstacle(tmp_path / "cache") == f"the C compiler ({cc}) failed: x.c:1: fatal error: no y.h"
    assert libraries(tmp_path / "cache") == []
    silent = script(tmp_path / "silent", "exit 3")
    monkeypatch.setenv("CC", silent)
    assert obstacle(tmp_path / "cache") == f"the C compiler ({silent}) failed: exit status 3"


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = obstacle(tmp_path / "file" / "cache")
    assert said is not None
    assert said.startswith(f"no compiled code can be kept in {tmp_path / 'file' / 'cache'}: ")


def test_two_processes_that_compile_at_once_both_work(tmp_path: Path) -> None:
    # Each waits within the compiler until the other is there too.
    wait = f"mkdir {tmp_path}/$$\nwhile [ $(ls -d {tmp_path}/[0-9]* | wc -l) -lt 2 ]; do :; done"
    waiting = f'{wait}\nexec {shutil.which("cc")} "$@"'
    environment = {**os.environ, "CC": script(tmp_path / "cc", waiting)}
    code = (
        "import sys; from pathlib import Path; from accl.kernels.cpu.native import load\n"
        "print(load(Path(sys.argv[1])).attention_scratch(1, 16))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=120)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(said) == 1
    assert len(libraries(tmp_path / "cache")) == 1
