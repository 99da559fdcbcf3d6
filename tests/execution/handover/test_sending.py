"""What the child sends back: only what changed, in memory or beside it, each buffer once."""

from __future__ import annotations

import gc
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover import read_changes
from ovagent_jupyter.execution.handover.exchange import TOKEN, Exchange
from ovagent_jupyter.execution.handover.pages import is_clean
from ovagent_jupyter.execution.handover.references import MOST_TIMES
from ovagent_jupyter.execution.handover.sealed import is_sealed
from ovagent_jupyter.execution.handover.sending import send
from tests.execution.handover.border import Border

LARGE = 100_000


@pytest.fixture
def border(tmp_path: Path) -> Border:
    frame = pd.DataFrame(
        {"a": np.arange(LARGE), "b": np.arange(LARGE) / 2},
        index=[f"row {number}" for number in range(LARGE)],
    )
    return Border(tmp_path, {"x": np.arange(LARGE), "y": np.arange(LARGE), "frame": frame})


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Exchange()
    yield made
    made.close()


def answered(border: Border, exchange: Exchange, **how: Any) -> int:
    token = secrets.token_bytes(TOKEN)
    where = {"disk": str(border.directory), **how}
    send(border.namespace, border.names, (), exchange.end, token.hex(), **where)
    return exchange.fetch(token)


def size(descriptor: int) -> int:
    with os.fdopen(descriptor, "rb") as file:
        return os.fstat(file.fileno()).st_size


def test_nothing_changed_is_a_few_bytes(border: Border) -> None:
    assert size(border.answer()) < 5000


def test_a_changed_part_goes_alone(border: Border) -> None:
    border.namespace["frame"].insert(0, "new", np.ones(LARGE, "u1"))
    descriptor = border.answer()
    assert is_sealed(descriptor)
    assert LARGE < size(descriptor) < LARGE + 20_000


def test_what_was_written_with_the_same_value_is_unchanged(border: Border) -> None:
    border.namespace["x"][:] = border.namespace["x"].copy()
    assert {diff.kind for diff in border.run("").diffs} == {"unchanged"}


def test_one_changed_value_is_seen_wherever_it_is(border: Border) -> None:
    for position in (0, LARGE // 2, LARGE - 1):
        border.namespace["x"][position] += 1
        changes = border.run("")
        assert [*changes.objects] == ["x"]
        assert changes.objects["x"][position] == position + 1  # type: ignore[index]
        border.namespace["x"][position] -= 1


def test_an_array_that_took_the_place_of_one_that_went(border: Border) -> None:
    for _ in range(20):
        del border.namespace["x"]
        border.namespace["x"] = np.arange(LARGE) + 1
        assert border.run("").objects["x"][0] == 1  # type: ignore[index]


def test_one_object_under_the_name_of_another(border: Border) -> None:
    changes = border.run("x, y = y, x + 1")
    assert [*changes.objects] == ["y"]
    assert changes.objects["y"][0] == 1  # type: ignore[index]


def test_copies_of_what_was_received_are_told_not_sent(border: Border) -> None:
    copies = ", ".join(["x.copy()"] * (MOST_TIMES + 1))
    exec(f"y = [x, {copies}]", border.namespace)
    descriptor = border.answer()
    # All but those that would be too many maps in the parent.
    assert 2 * LARGE * 8 < os.fstat(descriptor).st_size < 3 * LARGE * 8
    changes = read_changes(descriptor, border.handed, border.store)
    arrays: Any = changes.objects["y"]
    assert len(arrays) == MOST_TIMES + 2
    for number, array in enumerate(arrays):
        assert np.array_equal(array, np.arange(LARGE))
        array[:] = number
    assert [array[0] for array in arrays] == [*range(MOST_TIMES + 2)]


def test_a_copy_that_was_changed_is_sent(border: Border) -> None:
    changes = border.run("z = x.copy(); z[-1] = 0", ["z"])
    assert changes.objects["z"][-1] == 0  # type: ignore[index]
    assert changes.objects["z"][-2] == LARGE - 2  # type: ignore[index]


def index_after(border: Border, code: str) -> Any:
    changes = border.run(code)
    return changes.objects["frame"].index if changes.objects else None  # type: ignore[attr-defined]


def writeable(index: Any) -> bool:
    return isinstance(index.values, np.ndarray) and index.values.flags.writeable


def test_an_index_is_known_again_and_its_changes_are_seen(border: Border) -> None:
    assert index_after(border, "frame.index = type(frame.index)(list(frame.index))") is None
    assert index_after(border, "frame.index.name = 'cell'").name == "cell"
    if not writeable(border.namespace["frame"].index):
        return
    # pandas says that nobody does this; before its version 3 it can be done.
    assert index_after(border, "frame.index.values[-1] = 'mine'")[-1] == "mine"
    assert border.objects["frame"].index[-1] == f"row {LARGE - 1}"  # type: ignore[attr-defined]
    assert border.objects["frame"].index.name is None  # type: ignore[attr-defined]


def test_what_was_kept_of_an_index_is_not_what_a_user_wrote_to_it(border: Border) -> None:
    saved = border.saved["frame"]
    once: Any = saved.restore()
    if not writeable(once.index):
        return
    once.index.values[0] = "mine"
    assert saved.restore().index[0] == "row 0"  # type: ignore[attr-defined]
    assert saved.differs(once)


def test_memory_is_short_so_it_goes_to_disk(border: Border, exchange: Exchange) -> None:
    border.namespace["x"][0] = 7
    descriptor = answered(border, exchange, cap=1)
    assert not is_sealed(descriptor)
    assert os.fstat(descriptor).st_nlink == 0
    assert list(border.directory.iterdir()) == []
    changes = read_changes(descriptor, border.handed, border.store)
    assert changes.objects["x"][0] == 7  # type: ignore[index]
    descriptor = answered(border, exchange, cap=1 << 40)
    assert is_sealed(descriptor)
    os.close(descriptor)


def test_no_room_is_told(border: Border, exchange: Exchange) -> None:
    with pytest.raises(HandoverError, match="cannot be sent") as refused:
        answered(border, exchange, cap=1, disk="/nowhere")
    assert refused.value.next_step


def test_nobody_takes_it(border: Border, exchange: Exchange) -> None:
    exchange._near.close()
    with pytest.raises(HandoverError, match="cannot be sent"):
        send(border.namespace, (), (), exchange.end, "00", disk="/")


def test_what_came_back_lies_untouched_on_maps(border: Border) -> None:
    changes = border.run("x += 1")
    array: Any = changes.objects["x"]
    assert is_clean(array.ctypes.data, array.nbytes)
    saved = border.store.save({"x": array})["x"]
    (blob,) = saved.blobs
    assert blob is border.store.save({"x": array})["x"].blobs[0]
    array[0] = 5
    assert saved.differs(array)


def test_many_turns_leave_nothing_behind(border: Border) -> None:
    def turn() -> None:
        changes = border.run("x += 1; frame['n'] = x; z = y.copy()", ["z"])
        assert len(changes.objects) == 3

    def held() -> tuple[int, int]:
        gc.collect()
        return len([*Path("/proc/self/fd").iterdir()]), len(Path("/proc/self/maps").read_text())

    turn()
    descriptors, maps = held()
    for _ in range(20):
        turn()
    assert held()[0] == descriptors
    assert held()[1] < maps * 1.1
