"""Objects with parts in the place of a value: a frame in obsm, an AnnData in uns."""

from __future__ import annotations

from collections.abc import Callable

from ovagent_jupyter.execution.handover.codec import Decoder, Encoder
from ovagent_jupyter.execution.handover.fields import Node, items, malformed, text
from ovagent_jupyter.execution.handover.objects import assemble, kind_of, open_object
from ovagent_jupyter.execution.handover.slots import (
    BRANCH,
    Slots,
    Tree,
    decode_slot,
    encode_slot,
    path_node,
    read_path,
)

_KINDS = ("anndata", "mudata", "dataframe")


def encode(encoder: Encoder, value: object) -> Node:
    """The node of a DataFrame, an AnnData or a MuData, or None when it is none of them."""
    if kind_of(value) not in _KINDS:
        return None
    tree = open_object(value)
    return {
        "t": "tree",
        "k": tree.kind,
        "v": [
            [path_node(path), encode_slot(BRANCH).node if item is BRANCH else encoder.node(item)]
            for path, item in tree.slots.items()
        ],
    }


def _read_tree(decoder: Decoder, node: Node) -> object:
    kind = text(node, "k")
    if kind not in _KINDS:
        raise malformed("an object is of an unknown kind")
    slots: Slots = {}
    for entry in items(node, "v"):
        match entry:
            case [path, slot]:
                slots[read_path(path)] = decode_slot(decoder, slot)
            case _:
                raise malformed("a slot is not a pair")
    return assemble(Tree(kind, slots))


DECODERS: dict[str, Callable[[Decoder, Node], object]] = {"tree": _read_tree}
