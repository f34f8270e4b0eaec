"""Passwords and tokens are neither printed nor stored."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import run_accl

from accl.config import resolve
from accl.errors import AcclError, ConfigError
from accl.launch.process import prepare
from accl.store.state import State, read_state
from accl.text import without_credentials
from accl.training.report import Reporter

ADDRESS = "http://someone:geheim@127.0.0.1:9"
TOKEN = "hf_" + "Geheim0" * 5


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://me:geheim@host/x:", "at https://***@host/x:"),
        ("at https://geheim@host/x", "at https://***@host/x"),
        ("at https://me:ge@he@im@host/x", "at https://***@host/x"),
        ("at https://me:ge/he?im@host/x", "at https://***@host/x"),
        ("'https://me:geheim@a', 'socks5://me:geheim@b'", "'https://***@a', 'socks5://***@b'"),
        ("https://host/a?x=1&X-Amz-Signature=geheim&y=2", "https://host/a?x=1&X-Amz-Signature=***&y=2"),
        ("https://host/a?access_token=geheim", "https://host/a?access_token=***"),
        (f"--token={TOKEN}", "--token=hf_***"),
        (f"{TOKEN}", "hf_***"),
        ("ghp_" + "geheim" * 6, "ghp_***"),
    ],
)
def test_credentials_are_masked_and_the_rest_stays(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    assert without_credentials(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co:443/cais/mmlu@main",
        "https://host:8080/path@v1?page=2",
        "cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe",
        "hf_hub_download, hf_transfer and hf_endpoint",
        "someone@example.org",
        "a key=value and token=1",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert without_credentials(text) == text


def test_long_text_is_searched_in_no_time() -> None:
    for part in ("://", "://a:", "?token", "hf_a", "x@"):
        without_credentials(part * 100_000)


def test_an_error_carries_no_credentials_and_takes_one_line() -> None:
    error = AcclError(f"{ADDRESS} is\nout of reach.", f"Unset {TOKEN}\x1b[2J.")
    assert error.what == str(error.args[0]) == "http://***@127.0.0.1:9 is out of reach."
    assert error.hint == "Unset hf_***␛[2J."


@pytest.mark.parametrize("key", ["data.path", "data.revision", "model.name", "model.revision"])
def test_a_configuration_with_credentials_is_refused_without_naming_them(key: str, tmp_path: Path) -> None:
    for value in (f"{ADDRESS}/x", f"./{TOKEN}"):
        with pytest.raises(ConfigError, match=rf"{key} \(--set\) holds a password or token") as caught:
            resolve("full", "demo", [f"{key}={value}"])
        assert "eheim" not in str(caught.value)
    recipe = tmp_path / "mine.yaml"
    section, leaf = key.split(".")
    recipe.write_text(f"{section}:\n  {leaf}: {ADDRESS}/x\n", encoding="utf-8")
    done = run_accl("train", str(recipe), "--profile", "demo", "--runs", str(tmp_path / "runs"))
    assert done.returncode == ConfigError.exit_code
    assert "recipe mine" in done.stderr
    assert "geheim" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_address_of_the_hub_with_a_password_is_shown_without_it(tmp_path: Path) -> None:
    surroundings = {"HF_ENDPOINT": ADDRESS, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
    for words in (
        ["train", "full", "--profile", "demo", "--set", "model.name=some/model"],
        ["train", "full", "--profile", "demo", "--set", "data.source=hub", "--set", "data.path=some/data"],
        ["doctor", "--profile", "paper"],
        ["--debug", "train", "full", "--profile", "demo", "--set", "model.name=some/model"],
    ):
        done = run_accl(*words, "--runs", str(tmp_path / "runs"), **surroundings)
        assert "geheim" not in done.stdout + done.stderr
        assert "http://***@127.0.0.1:9 is out of reach" in done.stdout + done.stderr


def test_what_was_typed_is_neither_printed_nor_stored_with_its_credentials(tmp_path: Path) -> None:
    for words in (["show", f"{ADDRESS}/x"], ["train", f"{ADDRESS}/x"], [f"{ADDRESS}/x"], ["runs", f"{ADDRESS}>1"]):
        done = run_accl(*words)
        assert done.returncode
        assert "eheim" not in done.stdout + done.stderr
    prepare(tmp_path, resolve("full", "demo").config, [])
    done = run_accl("runs", TOKEN, "--runs", str(tmp_path))
    assert "matches: hf_***" in done.stderr
    assert "eheim" not in done.stdout + done.stderr
    run = prepare(tmp_path, resolve("full", "demo").config, ["accl", "train", "--runs", f"{ADDRESS}/x", TOKEN])
    stored = "".join(path.read_text(encoding="utf-8") for path in run.path.iterdir())
    assert "eheim" not in stored
    assert run.read_json(run.provenance)["command"][-2:] == ["http://***@127.0.0.1:9/x", "hf_***"]


def test_the_reason_of_a_failed_run_has_no_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = prepare(tmp_path, resolve("full", "demo").config, [])
    reporter = Reporter(run)
    reporter.event("error", "failed", f"OSError: {ADDRESS} refused")
    reporter.close(State.FAILED, f"OSError: {ADDRESS} refused", 1)
    assert read_state(run).reason == "OSError: http://***@127.0.0.1:9 refused"
    assert "geheim" not in capsys.readouterr().out
    assert b"geheim" not in run.database.read_bytes()
