"""Several objects on their way into one file: slots encoded one by one, buffers in one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.codec import Encoded
from ovagent_jupyter.execution.handover.fields import Node, unsendable
from ovagent_jupyter.execution.handover.left_behind import LeftBehind, dotted
from ovagent_jupyter.execution.handover.segment import HEADER_CAP, Buffer, dumps
from ovagent_jupyter.execution.handover.slots import Path, Tree, encode_slot

if TYPE_CHECKING:
    from ovagent_jupyter.execution.handover.table import Place

_SLOT_CAP = HEADER_CAP // 4
_ROOM = 1 << 20
"""Part of the header that is kept for names and places."""

# States of a slot in a header.
KEPT, NEW, STAYED = "k", "n", "s"


@dataclass(slots=True)
class Freight:
    """What is to be written: buffers so far, what was left behind, how long the header is."""

    buffers: list[Buffer] = field(default_factory=list)
    left: list[LeftBehind] = field(default_factory=list)
    header_size: int = _ROOM

    def load(self, encoded: Encoded) -> list[Node]:
        """Take a slot's value aboard; the fields of its entry after path and state.

        Raises:
            HandoverError: It would make the header too long to be read.
        """
        self.header_size += _weight(encoded)
        if self.header_size > HEADER_CAP:
            raise unsendable("together the objects consist of too many small values")
        first = len(self.buffers)
        self.buffers.extend(encoded.buffers)
        return [encoded.node, first, len(encoded.buffers), encoded.pickled]

    def leave(self, name: str, path: Path, reason: str) -> None:
        """Note that something stays where it is."""
        self.left.append(LeftBehind(dotted(name, path), reason))


def _weight(encoded: Encoded) -> int:
    return len(dumps(encoded.node)) + 24 * len(encoded.buffers)


def _bounded(encoded: Encoded) -> Encoded:
    if _weight(encoded) > _SLOT_CAP:
        raise unsendable("it consists of too many small values")
    return encoded


def encode_slots(
    name: str,
    tree: Tree,
    freight: Freight,
    spare: Callable[[Path, object], bool] | None = None,
    stands: Callable[[Path, object], bool] | None = None,
) -> dict[Path, Encoded | None]:
    """Each slot's travelling form; what has none is taken out of the tree and left by name.

    Args:
        name: The variable.
        tree: Its parts; slots that cannot travel are removed from it.
        freight: Takes the notices.
        spare: In the child: whether a slot that cannot travel is as it came; it stays in the
            tree then, with None for its form. Not given in the parent, which may pickle.
        stands: In the child: whether a slot is as it came without a look at its content; its form
            is None too.
    """
    encoded: dict[Path, Encoded | None] = {}
    gone: set[Path] = set()
    for path, value in tree.slots.items():
        if stands is not None and stands(path, value):
            encoded[path] = None
            continue
        try:
            encoded[path] = _bounded(encode_slot(value, allow_pickle=spare is None))
        except HandoverError as error:
            if spare is not None and spare(path, value):
                encoded[path] = None
                continue
            gone.add(path)
            freight.leave(name, path, error.why)
    if gone:
        _take_out(name, tree, gone, freight)
        encoded |= {path: encode_slot(tree.slots[path]) for path in label_paths(tree)}
    return {path: encoded[path] for path in tree.slots}


def _take_out(name: str, tree: Tree, gone: set[Path], freight: Freight) -> None:
    left = set(gone)
    for path in gone:
        del tree.slots[path]
    for place in frame_places(tree):
        if place.index not in tree.slots or place.columns not in tree.slots:
            raise unsendable("the names of its rows or columns have no typed form")
        drop_columns(tree, place, gone)
    for path in gone - left:
        freight.leave(name, path, "another column of the same name cannot travel")


def frame_places(tree: Tree) -> list[Place]:
    """The frames that a tree holds in parts."""
    if tree.kind not in ("anndata", "mudata", "spatialdata", "dataframe"):
        return []
    from ovagent_jupyter.execution.handover.annotated import places

    return places(tree.slots, tree.kind)


def label_paths(tree: Tree) -> list[Path]:
    """The slots that hold the labels of those frames."""
    return [place.columns for place in frame_places(tree)]


def drop_columns(tree: Tree, place: Place, gone: set[Path]) -> None:
    """Remove columns from a frame in a tree, with their labels."""
    from ovagent_jupyter.execution.handover import table

    table.drop_columns(tree.slots, place, gone)
