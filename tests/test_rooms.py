"""Memory that is used again and again."""

from __future__ import annotations

from accl.kernels.cpu.rooms import Rooms


def test_a_room_is_taken_again_when_it_is_large_enough() -> None:
    rooms = Rooms()
    first = rooms.take(100)
    assert len(first) >= 100
    rooms.give(first)
    assert rooms.take(110) is first


def test_nobody_gets_a_room_that_is_taken() -> None:
    rooms = Rooms()
    assert rooms.take(10).data_ptr() != rooms.take(10).data_ptr()


def test_a_room_that_is_too_small_makes_way() -> None:
    rooms = Rooms()
    small = rooms.take(10)
    rooms.give(small)
    large = rooms.take(1000)
    assert len(large) >= 1000
    rooms.give(large)
    assert rooms.take(10) is large
    assert rooms.take(10) is not small
