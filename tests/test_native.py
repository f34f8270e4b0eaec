"""Kernels for the CPU are compiled where they run, and loaded only when they are this user's own."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_int
from pathlib import Path

import pytest

from accl.kernels.cpu import compiler, native
from accl.kernels.cpu.compiler import UnavailableError, compiled_library, find_compiler
from accl.kernels.cpu.native import load, unavailable_reason

SOURCES, SIGNATURES = compiler.SOURCES, native._SIGNATURES


@pytest.fixture(autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that compile in no time: what is held here does not depend on what they compute."""
    folder = tmp_path_factory.mktemp("c")
    (folder / "answer.c").write_text('__attribute__((visibility("default"))) int answer(void) { return 42; }\n')
    monkeypatch.setattr(compiler, "SOURCES", folder)
    monkeypatch.setattr(native, "_SIGNATURES", {"answer": (c_int, ())})


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def libraries(cache: Path) -> list[str]:
    """Everything in the folder of libraries: nothing else may be left there."""
    return sorted(path.name for path in (cache / "native").iterdir())


def counting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line at every call of the compiler."""
    calls = folder / "calls"
    calls.touch()
    monkeypatch.setenv("CC", script(folder / "cc", f'echo called >> {calls}\nexec {shutil.which("cc")} "$@"'))
    return calls


def load_anew(cache: Path) -> None:
    """Load as another process would."""
    native._load.cache_clear()
    assert load(cache).answer() == 42


def test_it_is_compiled_once_and_then_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, cache = counting(tmp_path, monkeypatch), tmp_path / "cache"
    for _ in range(2):
        load_anew(cache)
    assert calls.read_text().splitlines() == ["called"]
    (name,) = libraries(cache)
    assert name.startswith("kernels-")


def test_who_starts_at_the_same_moment_waits_for_one_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, folder = counting(tmp_path, monkeypatch), tmp_path / "cache" / "native"
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(compiled_library, folder, find_compiler()) for _ in range(4)]
    assert len({each.result() for each in found}) == 1
    assert calls.read_text().splitlines() == ["called"]


@pytest.mark.parametrize("error", [BlockingIOError(), OSError(errno.ENOLCK, "no locks")])
def test_a_folder_that_cannot_be_locked_is_compiled_into_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(_descriptor: int, _seconds: float) -> None:
        raise error

    monkeypatch.setattr(compiler, "lock_within", refuse)
    load_anew(tmp_path / "cache")


# --- what is not trusted


def test_libraries_and_their_folder_are_this_users_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_anew(tmp_path / "cache")
    finally:
        os.umask(before)
    folder = tmp_path / "cache" / "native"
    (library,) = folder.iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, library)] == [0o700, 0o700]


def make_writable_by_the_group(folder: Path) -> None:
    folder.chmod(0o770)


def make_writable_by_all(folder: Path) -> None:
    folder.chmod(0o707)


def make_a_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def make_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (make_writable_by_the_group, "other users can write to"),
        (make_writable_by_all, "other users can write to"),
        (make_a_link, "is a symbolic link"),
        (make_a_file, "is not a folder"),
        (give_away, "belongs to another user"),
    ],
)
def test_nothing_is_loaded_from_a_folder_that_may_be_another_users(
    tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    load_anew(tmp_path)
    folder = tmp_path / "native"
    change(folder)
    native._load.cache_clear()
    assert unavailable_reason(tmp_path) == (
        f"compiled code is not loaded from {folder}, which {reason}: remove it, or set ACCL_CACHE to another folder"
    )


def test_a_folder_of_this_user_that_others_can_read_is_used(tmp_path: Path) -> None:
    (tmp_path / "native").mkdir(mode=0o755)
    load_anew(tmp_path)


def damage(library: Path) -> None:
    contents = bytearray(library.read_bytes())
    contents[len(contents) // 2] ^= 1
    library.write_bytes(contents)


def cut_short(library: Path) -> None:
    library.write_bytes(library.read_bytes()[:1000])


def link(library: Path) -> None:
    elsewhere = library.parents[1] / "elsewhere.so"
    library.rename(elsewhere)
    library.symlink_to(elsewhere)


def put_a_folder(library: Path) -> None:
    library.unlink()
    library.mkdir()
    (library / "note").touch()


@pytest.mark.parametrize("change", [damage, cut_short, link, put_a_folder, make_writable_by_the_group, give_away])
def test_a_library_that_is_not_as_it_was_compiled_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    calls, folder = counting(tmp_path, monkeypatch), tmp_path / "native"
    # Not loaded before it is changed: a process keeps what it has loaded from a path.
    library = compiled_library(folder, find_compiler())
    whole = library.read_bytes()
    change(library)
    load_anew(tmp_path)
    assert calls.read_text().splitlines() == ["called"] * 2
    (library,) = folder.iterdir()
    assert library.read_bytes() == whole
    assert stat.S_ISREG(library.lstat().st_mode)
    assert compiled_library(folder, find_compiler()) == library
    assert calls.read_text().splitlines() == ["called"] * 2


def test_a_library_that_is_cut_short_while_it_is_used_goes_on_working(tmp_path: Path) -> None:
    library = load(tmp_path)
    (file,) = (tmp_path / "native").iterdir()
    os.truncate(file, 0)  # a library that is mapped from its file ends the process here, with SIGBUS
    assert library.answer() == 42


def test_what_was_checked_is_what_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = native.read_library

    def check_then_swap(library: Path) -> bytes:
        content = check(library)
        library.write_bytes(b"planted")
        return content

    monkeypatch.setattr(native, "read_library", check_then_swap)
    load_anew(tmp_path)


def test_without_files_in_memory_a_library_is_loaded_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    load_anew(tmp_path)


# --- what cannot be compiled


def test_compiled_code_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(tmp_path, monkeypatch)
    monkeypatch.setenv("ACCL_NATIVE", "0")
    reason = "ACCL_NATIVE=0 switches compiled code off; unset it to switch it on"
    assert unavailable_reason(tmp_path) == reason
    assert calls.read_text() == ""
    monkeypatch.delenv("ACCL_NATIVE")
    load_anew(tmp_path)
    monkeypatch.setenv("ACCL_NATIVE", "0")
    assert unavailable_reason(tmp_path) == reason


def test_another_compiler_or_processor_has_a_library_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path)
    monkeypatch.setattr(compiler, "_processor", lambda: "another")
    native._load.cache_clear()
    load(tmp_path)
    monkeypatch.setenv("CC", "cc -DOTHER")
    load(tmp_path)
    assert len(libraries(tmp_path)) == 3


def test_the_kernels_compile_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "SOURCES", SOURCES)
    monkeypatch.setattr(native, "_SIGNATURES", SIGNATURES)
    monkeypatch.setenv("CC", "cc -Werror")
    assert unavailable_reason(tmp_path) is None
    monkeypatch.setattr(compiler, "NATIVE", "-DPLAIN")  # for a processor of which nothing is known
    native._load.cache_clear()
    assert unavailable_reason(tmp_path) is None


def test_a_compiler_that_does_not_know_the_machine_is_asked_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = f'case "$*" in *-march=native*) exit 1;; esac\nexec {shutil.which("cc")} "$@"'
    monkeypatch.setenv("CC", script(tmp_path / "cc", refusing))
    assert unavailable_reason(tmp_path / "cache") is None


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unavailable_reason(tmp_path) == "no C compiler (cc) was found"
    monkeypatch.setenv("CC", "my-cc -m64")
    assert unavailable_reason(tmp_path) == "no C compiler (my-cc) was found"
    with pytest.raises(UnavailableError):
        load(tmp_path)


def test_the_first_error_of_a_compiler_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cc = script(tmp_path / "cc", 'echo "In file x:" >&2\necho "x.c:1: fatal error: no y.h" >&2\nexit 1')
    monkeypatch.setenv("CC", cc)
    assert unavailable_reason(tmp_path / "cache") == f"the C compiler ({cc}) failed: x.c:1: fatal error: no y.h"
    assert libraries(tmp_path / "cache") == []
    silent = script(tmp_path / "silent", "exit 3")
    monkeypatch.setenv("CC", silent)
    assert unavailable_reason(tmp_path / "cache") == f"the C compiler ({silent}) failed: exit status 3"


@pytest.mark.parametrize(
    ("cc", "reason"),
    [
        ("'", "is no command"),
        ("true", "failed: exit status 0"),
        ("false", "failed: exit status 1"),
        ("cc -Danswer=other", "cannot be used"),
    ],
)
def test_a_compiler_that_makes_nothing_of_use_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cc: str, reason: str
) -> None:
    monkeypatch.setenv("CC", cc)
    said = unavailable_reason(tmp_path)
    assert said is not None
    assert reason in said


def test_without_a_home_there_is_no_place_for_compiled_code() -> None:
    said = unavailable_reason(None)
    assert said is not None
    assert "ACCL_CACHE" in said


def test_a_folder_for_temporary_files_that_cannot_be_used_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    load_anew(tmp_path / "cache")


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = unavailable_reason(tmp_path / "file" / "cache")
    assert said is not None
    assert said.startswith(f"no compiled code can be kept in {tmp_path / 'file' / 'cache' / 'native'}: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
@pytest.mark.parametrize("folder", [".", "native"])
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, folder: str) -> None:
    (tmp_path / "native").mkdir()
    if folder == ".":
        (tmp_path / "native").rmdir()
    (tmp_path / folder).chmod(0o500)
    assert unavailable_reason(tmp_path) == f"no compiled code can be kept in {tmp_path / 'native'}: Permission denied"


def test_two_processes_that_compile_at_once_both_work(tmp_path: Path) -> None:
    # Neither waits for the other's library, but within the compiler until the other is there too.
    wait = f"mkdir {tmp_path}/$$\nwhile [ $(ls -d {tmp_path}/[0-9]* | wc -l) -lt 2 ]; do :; done"
    waiting = f'{wait}\nexec {shutil.which("cc")} "$@"'
    environment = {**os.environ, "CC": script(tmp_path / "cc", waiting)}
    code = (
        "import sys; from pathlib import Path; from accl.kernels.cpu import compiler\n"
        "compiler.SOURCES, compiler.LONGEST_WAIT_S = Path(sys.argv[1]), 0.0\n"
        "print(compiler.compiled_library(Path(sys.argv[2]), compiler.find_compiler()))"
    )
    command = [sys.executable, "-c", code, str(compiler.SOURCES), str(tmp_path / "cache" / "native")]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=120)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (library,) = libraries(tmp_path / "cache")
    assert said == {f"{tmp_path / 'cache' / 'native' / library}\n"}
