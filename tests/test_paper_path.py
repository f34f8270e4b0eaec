"""The paper recipe from a Hub: a loopback server under the pinned names and revisions."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import SHORT, Accl
from hub_server import MODEL_REVISION, SUBJECTS, make_repos, serve

from accl.data.cache import cache_folder
from accl.kernels.cpu.native import unavailable_reason
from accl.store.columns import RunReader
from accl.store.rundir import list_runs


def test_the_paper_recipe_trains_from_the_hub_and_then_offline(tmp_path: Path, accl: Accl) -> None:
    """Fetch, train; then once more with the server gone."""
    env = {
        "HF_HOME": str(tmp_path / "hf"),
        "ACCL_CACHE": str(tmp_path / "cache"),
        "ACCL_RUNS": str(tmp_path / "runs"),
    }
    shared = cache_folder()
    assert shared is not None
    if unavailable_reason(shared) is None:  # compiled once for all tests
        shutil.copytree(shared / "native", tmp_path / "cache" / "native")
    # The pinned names, on a machine without a GPU and with few subjects.
    command = ["train", "full", "--profile", "paper", "--set=train.device=cpu", *SHORT]
    command += ["--set=sampler.questions_per_task=4", "--set=eval.max_questions=10"]
    with serve(make_repos(tmp_path / "repos")) as hub:
        first = accl(*command, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", **env)
        assert first.returncode == 0, first.stderr
        assert any("parquet" in request for request in hub.requests)
        assert any("pytorch_model.bin" in request for request in hub.requests)
        url = hub.url
    second = accl(*command, HF_ENDPOINT=url, HF_HUB_OFFLINE="0", **env)
    assert second.returncode == 0, second.stderr
    runs = list_runs(tmp_path / "runs")
    assert len(runs) == 2
    reader = RunReader(runs[0])
    reader.refresh()
    assert [task.name for task in reader.last.tasks] == list(SUBJECTS)
    provenance = runs[0].read_json(runs[0].provenance)
    assert provenance["model"]["pretrained"] is True
    assert provenance["model"]["revision"] == MODEL_REVISION
    other = RunReader(runs[1]).read()
    assert other.curves["train/loss"].median.tolist() == reader.last.curves["train/loss"].median.tolist()
