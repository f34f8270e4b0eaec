"""Garbage is collected again after a block without, whatever happens in it."""

from __future__ import annotations

import gc

import pytest

from accl.training.garbage import no_collection


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
