"""Kernels that are compiled several at a time are those that launches find."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def test_launches_wait_until_all_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton
    from compiling_kernels import fill, fill_as_well

    from accl.kernels.triton.compiling import compile_concurrently

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled: list[str] = []
    monkeypatch.setattr(triton.knobs.runtime, "jit_post_compile_hook", lambda **call: compiled.append(call["fn"].name))
    one, other, at_once, elsewhere = (torch.zeros(128, device="cuda") for _ in range(4))

    def launch_elsewhere() -> None:
        fill[(1,)](elsewhere, 4.0, BLOCK=64)

    with compile_concurrently(launch=("fill_as_well",)) as left_out:
        fill[(1,)](one, 1.0, BLOCK=128)
        fill[(1,)](other, 2.0, BLOCK=128)
        fill_as_well[(1,)](at_once, 3.0, BLOCK=128)
        assert len(compiled) == 1
        thread = threading.Thread(target=launch_elsewhere)
        thread.start()
        thread.join()
        assert len(compiled) == 2
    assert len(compiled) == 3
    assert left_out
    assert [values[0].item() for values in (one, other, at_once, elsewhere)] == [0.0, 0.0, 3.0, 4.0]
    with compile_concurrently() as left_out:
        fill[(1,)](one, 1.0, BLOCK=128)
        fill[(1,)](other, 2.0, BLOCK=128)
    assert not left_out
    assert len(compiled) == 3
    assert torch.equal(one, torch.ones_like(one))
    assert torch.equal(other, torch.full_like(other, 2.0))


def test_a_kernel_that_cannot_be_compiled_is_said() -> None:
    from compiling_kernels import wrong

    from accl.kernels.triton.compiling import compile_concurrently

    with pytest.raises(Exception, match="wrong"), compile_concurrently():
        wrong[(1,)](torch.zeros(128, device="cuda"), BLOCK=128)
