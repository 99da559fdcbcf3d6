"""An object as its parts: what is compared, sent and replaced one by one."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, cast

from ovagent_jupyter.execution.handover.codec import Decoder, Encoded, encode
from ovagent_jupyter.execution.handover.fields import Node, as_list, malformed

Path = tuple[str | int, ...]
"""Where a slot is: ``("obs", "leiden")``, ``("uns", "neighbors", "params")``, ``()``."""

_DEEPEST = 32
_LONGEST_STEP = 4096


class Mark(Enum):
    """What a slot holds when it holds no value."""

    BRANCH = "branch"
    """A dictionary whose entries are slots themselves."""


BRANCH: Final = Mark.BRANCH
_BRANCH_NODE: Final = {"t": "branch"}
Slots = dict[Path, object]


WITHOUT_INDEX: Final = ("arrow", "polars")
"""Kinds of tables whose rows have no names: only their number is known."""
ROWS: Final = ("rows",)
"""Where that number is, as a range."""


_HOLDERS: Final = ("mod", "tables")
"""Slots under which each name is an AnnData of its own."""


@dataclass(frozen=True, slots=True)
class Tree:
    """An object in parts, in order."""

    kind: str
    """``anndata``, ``mudata``, ``spatialdata``, ``dataframe``, ``arrow``, ``polars``, ``dict``, or
    ``value`` for what has no parts."""
    slots: Slots = field(default_factory=dict)


def opens(value: object) -> bool:
    """Whether a value is a dictionary that can be taken apart."""
    return type(value) is dict and all(type(key) in (str, int) for key in value)


def open_dict(
    slots: Slots, at: Path, value: Mapping[Any, object], above: frozenset[int] = frozenset()
) -> None:
    """Add a dictionary and, down to its leaves, what it holds.

    One that cannot be taken apart (odd keys, too deep) is a slot as a whole; one that holds
    itself is too, and then fails to encode by name.
    """
    slots[at] = BRANCH
    above |= {id(value)}
    for key, item in value.items():
        if opens(item) and id(item) not in above and len(at) < _DEEPEST:
            open_dict(slots, (*at, key), cast(dict[object, object], item), above)
        else:
            slots[*at, key] = item


def build_dict(slots: Slots, at: Path) -> dict[object, object]:
    """The dictionary at a path, with all below it."""
    if slots.get(at) is not BRANCH:
        raise malformed("a dictionary is missing")
    made: dict[Path, dict[object, object]] = {at: {}}
    for path, value in below(slots, at):
        parent = made.get(path[:-1])
        if parent is None:
            raise malformed("an entry lies in no dictionary")
        if value is BRANCH:
            made[path] = {}
        parent[path[-1]] = made[path] if value is BRANCH else value
    return made[at]


def below(slots: Slots, at: Path) -> Iterator[tuple[Path, object]]:
    """All slots under a path, without itself."""
    depth = len(at)
    for path, value in slots.items():
        if len(path) > depth and path[:depth] == at:
            yield path, value


def inside(path: Path) -> Path:
    """A path inside the AnnData that it lies in: ``("mod", "rna", "X")`` is its ``("X",)``."""
    held = path[:1] and path[0] in _HOLDERS and len(path) > len(("mod", "name"))
    return path[2:] if held else path


def step_of(label: Hashable) -> str | int:
    """A column label as a step of a path; the label itself travels elsewhere."""
    if type(label) is str:
        return label
    if type(label) is int and abs(label) < 2**62:
        return label
    return repr(label)


def path_node(path: Path) -> Node:
    """A path as JSON."""
    return list(path)


def read_path(node: Node) -> Path:
    """The path of a node."""
    steps = as_list(node)
    for step in steps:
        if type(step) not in (str, int) or len(str(step)) > _LONGEST_STEP:
            raise malformed("a slot has an impossible path")
    if len(steps) > _DEEPEST + 8:
        raise malformed("a slot lies too deep")
    return tuple(steps)


def encode_slot(value: object, *, allow_pickle: bool = False) -> Encoded:
    """A slot's value in its travelling form.

    Raises:
        HandoverError: It has none.
    """
    if value is BRANCH:
        return Encoded(_BRANCH_NODE, ())
    return encode(value, allow_pickle=allow_pickle)


def decode_slot(decoder: Decoder, node: Node) -> object:
    """The value of a slot's node, or the mark that its entries are slots themselves."""
    return BRANCH if node == _BRANCH_NODE else decoder.value(node)
