"""Reading one node of a header that nobody vouches for: every field is checked as it is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovagent_jupyter.errors import HandoverError

Node = Any
"""A JSON value: an atom, a list of nodes, or a table whose ``"t"`` names its type."""

LARGEST = 2**63 - 1
_DIMENSIONS = 32  # numpy's limit before 2.0


def malformed(why: str) -> HandoverError:
    """The error for a header or a buffer that does not hold together."""
    return HandoverError(
        "What came over the border is malformed; nothing of it was used.",
        why=why,
        next_step="Run the cell again; if it happens again, restart the child.",
    )


def unsendable(why: str) -> HandoverError:
    """The error for a value that has no form in which it could travel."""
    return HandoverError("A value cannot cross the border.", why=why)


def table(node: Node) -> Mapping[str, Node]:
    """The node as a table."""
    if not isinstance(node, dict):
        raise malformed("a table is missing")
    return node


def field(node: Mapping[str, Node], key: str) -> Node:
    """The node under a key."""
    try:
        return node[key]
    except KeyError:
        raise malformed(f"the field {key!r} is missing") from None


def text(node: Mapping[str, Node], key: str) -> str:
    """The text under a key."""
    value = field(node, key)
    if not isinstance(value, str):
        raise malformed(f"the field {key!r} is not text")
    return value


def items(node: Mapping[str, Node], key: str) -> list[Node]:
    """The list under a key."""
    return as_list(field(node, key))


def as_list(value: Node) -> list[Node]:
    """The node as a list."""
    if not isinstance(value, list):
        raise malformed("a list is missing")
    return value


def flag(node: Mapping[str, Node], key: str) -> bool:
    """The truth value under a key."""
    value = field(node, key)
    if not isinstance(value, bool):
        raise malformed(f"the field {key!r} is not true or false")
    return value


def whole(value: Node, low: int = 0, high: int = LARGEST) -> int:
    """The node as a whole number within bounds."""
    if type(value) is not int or not low <= value <= high:
        raise malformed("a number is missing or out of range")
    return value


def number(node: Mapping[str, Node], key: str, low: int = 0, high: int = LARGEST) -> int:
    """The whole number under a key, within bounds."""
    return whole(field(node, key), low, high)


def shape(node: Mapping[str, Node], key: str = "s") -> tuple[int, ...]:
    """The extents under a key: at most 32 of them, their product a number of ours."""
    extents = tuple(whole(extent) for extent in items(node, key))
    if len(extents) > _DIMENSIONS:
        raise malformed("an array has too many dimensions")
    return extents


def volume(extents: tuple[int, ...]) -> int:
    """How many items an array of that shape has."""
    size = 1
    for extent in extents:
        size *= extent
    return size
