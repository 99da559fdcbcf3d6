"""A DataFrame in parts: index, labels, and each column on its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from ovagent_jupyter.execution.handover.columns import as_column, column_values
from ovagent_jupyter.execution.handover.fields import malformed
from ovagent_jupyter.execution.handover.frames import as_attrs, as_index, build_series
from ovagent_jupyter.execution.handover.slots import BRANCH, Path, Slots, step_of


@dataclass(frozen=True, slots=True)
class Place:
    """Under which paths the parts of a frame lie."""

    index: Path
    columns: Path
    attrs: Path
    column: Path
    """The path above each column's own."""

    def under(self, at: Path) -> Place:
        """The same place inside another object."""
        return Place(
            (*at, *self.index), (*at, *self.columns), (*at, *self.attrs), (*at, *self.column)
        )


_MOST_COLUMNS = 1 << 20
FRAME = Place(("index",), ("columns",), ("attrs",), ("column",))
OBS = Place(("obs_names",), ("obs_columns",), ("obs_attrs",), ("obs",))
VAR = Place(("var_names",), ("var_columns",), ("var_attrs",), ("var",))


def open_frame(slots: Slots, place: Place, frame: Any) -> None:
    """Add the parts of a frame."""
    slots[place.index] = frame.index
    slots[place.columns] = frame.columns
    if frame.attrs:
        slots[place.attrs] = dict(frame.attrs)
    for position, path in enumerate(column_paths(place, frame.columns)):
        slots[path] = column_values(frame.iloc[:, position])


def open_table(slots: Slots, value: object) -> None:
    """Add the parts of a frame that is an object of its own."""
    open_frame(slots, FRAME, value)


def build_table(slots: Slots) -> object:
    """The frame of its parts, where it is an object of its own."""
    return build_frame(slots, FRAME)


def column_paths(place: Place, columns: pd.Index[Any]) -> Iterator[Path]:
    """The path of each column; a repeated label is told apart by a count."""
    seen: Counter[str | int] = Counter()
    for label in columns.tolist():
        step = step_of(label)
        repeat = seen[step]
        seen[step] += 1
        yield (*place.column, step, repeat) if repeat else (*place.column, step)


def own_columns(slots: Slots, place: Place) -> list[Path]:
    """The paths of a frame's columns, in order."""
    depth = len(place.column)
    return [path for path in slots if len(path) > depth and path[:depth] == place.column]


def build_frame(slots: Slots, place: Place) -> pd.DataFrame:
    """The frame of its parts; columns keep exactly the type they travelled with."""
    index = as_index(slots.get(place.index))
    columns = as_index(slots.get(place.columns))
    paths = own_columns(slots, place)
    if len(paths) != len(columns) or list(column_paths(place, columns)) != paths:
        raise malformed("a table's columns do not fit its labels")
    # Series, because a bare array of objects would have its type inferred.
    parts = {
        position: build_series(as_column(_value(slots, path)), index)
        for position, path in enumerate(paths)
    }
    frame = pd.DataFrame(parts, index=index, copy=False)
    frame.columns = columns
    attrs = slots.get(place.attrs)
    if attrs is not None:
        frame.attrs = as_attrs(attrs)
    return frame


def _value(slots: Slots, path: Path) -> object:
    value = slots[path]
    if value is BRANCH:
        raise malformed("a column is a dictionary")
    return value


def relabel(slots: Slots, place: Place, *others: pd.Index[Any]) -> None:
    """Make a frame's labels those of its columns, taken by path from its own or other labels.

    Args:
        slots: The parts; the labels are replaced when they do not fit the columns.
        place: Where the frame lies.
        others: Labels to look in for columns that its own labels do not have.
    """
    came = as_index(slots[place.columns])
    if len(came) > _MOST_COLUMNS:
        raise malformed("a table claims more columns than there can be")
    known = dict(zip(column_paths(place, came), came.tolist(), strict=True))
    paths = own_columns(slots, place)
    if list(known) == paths:
        return
    for other in others:
        for path, label in zip(column_paths(place, other), other.tolist(), strict=True):
            known.setdefault(path, label)
    labels = [known[path] for path in paths if path in known]
    slots[place.columns] = _like(came, labels)


def _like(came: pd.Index[Any], labels: list[Any]) -> pd.Index[Any]:
    if isinstance(came, pd.MultiIndex):
        return pd.MultiIndex.from_tuples(labels, names=came.names)
    kind: Any = pd.Index
    try:
        index = kind(labels, dtype=came.dtype, name=came.name)
    except (TypeError, ValueError):
        index = kind(labels, dtype=object, name=came.name)
    return cast("pd.Index[Any]", index)


def drop_columns(slots: Slots, place: Place, gone: set[Path]) -> None:
    """Remove columns that cannot travel, and all that share their label."""
    depth = len(place.column) + 1
    steps = {path[:depth] for path in gone}
    for path in own_columns(slots, place):
        if path[:depth] in steps:
            del slots[path]
            gone.add(path)
    relabel(slots, place)
