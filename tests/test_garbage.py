"""Garbage is collected again after a block without, but not looked for in what the block left."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from accl.training.garbage import no_collection


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_collection_is_as_before_afterwards() -> None:
    assert gc.isenabled()
    with no_collection():
        with no_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), no_collection():
        raise KeyError
    assert gc.isenabled()


def test_what_the_block_leaves_is_looked_through_no_more() -> None:
    before = gc.get_freeze_count()
    with no_collection():
        left = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    assert gc.get_freeze_count() >= before + len(left)
