"""The child's side: bind what was handed over, and send back what changed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.codec import Decoder, Encoded, same_bytes
from ovagent_jupyter.execution.handover.fields import Node
from ovagent_jupyter.execution.handover.objects import assemble, open_object
from ovagent_jupyter.execution.handover.packing import (
    CHANGES_FILE,
    KEPT,
    NEW,
    STAYED,
    Freight,
    drop_columns,
    encode_slots,
    frame_places,
)
from ovagent_jupyter.execution.handover.segment import (
    MappedSource,
    dumps,
    places,
    read_header,
    write,
)
from ovagent_jupyter.execution.handover.slots import Path as SlotPath
from ovagent_jupyter.execution.handover.slots import (
    Tree,
    decode_slot,
    encode_slot,
    path_node,
    read_path,
)

_BORDER = "__ovagent_border__"
"""Where the baseline is kept: in the namespace it is about, so that two never mix."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """One slot as it came: its node and, in the parcel, its buffers."""

    node: bytes
    first: int
    count: int
    digest: bytes | None
    """For a pickled slot; a pickle made here need not have the bytes of one made there."""


@dataclass(frozen=True, slots=True)
class _Baseline:
    """One object as it came."""

    kind: str
    slots: Mapping[SlotPath, _Sent]
    source: MappedSource

    def unchanged(self, path: SlotPath, encoded: Encoded) -> bool:
        """Whether a slot still is what was sent; large buffers are compared, not hashed."""
        sent = self.slots.get(path)
        if sent is None or sent.digest is not None:
            return sent is not None and sent.digest == _digest(encoded)
        return (
            len(encoded.buffers) == sent.count
            and dumps(encoded.node) == sent.node
            and all(
                same_bytes(buffer, self.source.sent(sent.first + number))
                for number, buffer in enumerate(encoded.buffers)
            )
        )

    def spare(self, path: SlotPath, value: object) -> bool:
        """Whether a slot without a typed form still is what was sent."""
        sent = self.slots.get(path)
        if sent is None or sent.digest is None:
            return False
        try:
            return sent.digest == _digest(encode_slot(value, allow_pickle=True))
        except HandoverError:
            return False


@dataclass(slots=True)
class Border:
    """What a namespace received: the baseline that changes are told against."""

    objects: dict[str, _Baseline] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    """Names that existed after the last hand-over."""
    left: list[list[str]] = field(default_factory=list)
    """What came but could not be built here, and why."""


def receive(namespace: MutableMapping[str, Any], parcel_path: str) -> None:
    """Bind the objects of a parcel to their names; earlier ones are no longer followed.

    Arrays lie on a copy-on-write map of the parcel: they are writable, and what was sent stays
    readable, so that changes can be told later without a copy.

    Args:
        namespace: The variables of the code to run.
        parcel_path: The file; it may be removed once this has returned.

    Raises:
        HandoverError: The parcel cannot be read.
    """
    border = _border(namespace)
    descriptor = os.open(parcel_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        header, start = read_header(descriptor, size, size)
        source = MappedSource(descriptor, places(header, start, size))
    finally:
        os.close(descriptor)
    border.objects.clear()
    border.left.clear()
    for entry in header["objects"]:
        name = entry["name"]
        tree = _unpack(border, entry, source)
        if tree.slots:
            namespace[name] = assemble(tree)
    border.known = frozenset(namespace)


def _border(namespace: MutableMapping[str, Any]) -> Border:
    border = namespace.get(_BORDER)
    if not isinstance(border, Border):
        border = namespace[_BORDER] = Border()
    return border


def _unpack(border: Border, entry: Node, source: MappedSource) -> Tree:
    freight = Freight()
    tree = Tree(entry["kind"])
    sent: dict[SlotPath, _Sent] = {}
    gone: set[SlotPath] = set()
    for path_steps, _, node, first, count, pickled in entry["slots"]:
        path = read_path(path_steps)
        decoder = Decoder(source, first=first, count=count, allow_pickle=True)
        try:
            value = decode_slot(decoder, node)
            digest = _digest(encode_slot(value, allow_pickle=True)) if pickled else None
        except Exception as error:  # noqa: BLE001 - a foreign object's unpickling may raise anything
            gone.add(path)
            freight.leave(entry["name"], path, f"{type(error).__name__} in the child: {error}")
            continue
        tree.slots[path] = value
        sent[path] = _Sent(dumps(node), first, count, digest)
    if gone:
        for place in frame_places(tree):
            drop_columns(tree, place, gone)
            labels = encode_slot(tree.slots[place.columns])
            sent[place.columns] = _Sent(b"", 0, 0, _digest(labels))
    border.left.extend([notice.path, notice.reason] for notice in freight.left)
    border.objects[entry["name"]] = _Baseline(tree.kind, sent, source)
    return tree


def _digest(encoded: Encoded) -> bytes:
    digest = blake2b(dumps(encoded.node), digest_size=16)
    for buffer in encoded.buffers:
        digest.update(buffer)
    return digest.digest()


def new_names(namespace: Mapping[str, Any]) -> tuple[str, ...]:
    """Variables made since the last hand-over that can travel: data, not code."""
    border = namespace.get(_BORDER)
    known = border.known if isinstance(border, Border) else frozenset()
    return tuple(
        name
        for name, value in namespace.items()
        if name not in known and not name.startswith("_") and name.isidentifier()
        if _is_data(value)
    )


def _is_data(value: object) -> bool:
    if isinstance(value, type | ModuleType | FunctionType) or callable(value):
        return False
    root = type(value).__module__.partition(".")[0]
    return root in _DATA


_DATA = frozenset({"builtins", "datetime", "numpy", "pandas", "scipy", "anndata", "mudata"})


def send(
    namespace: Mapping[str, Any],
    names: Iterable[str],
    outputs: Iterable[str],
    outbox_dir: str,
    *,
    discover: bool = False,
) -> None:
    """Write what changed to the outbox, for the parent to read.

    Args:
        namespace: The variables of the code that ran.
        names: Objects that were received: only their changed slots are written.
        outputs: New variables to write as a whole.
        outbox_dir: Where the file goes; it appears there complete or not at all.
        discover: Add the new variables that hold data.

    Raises:
        HandoverError: The file cannot be written.
    """
    border = namespace.get(_BORDER)
    border = border if isinstance(border, Border) else Border()
    freight = Freight()
    received = list(dict.fromkeys(names))
    fresh = [*outputs, *(new_names(namespace) if discover else ())]
    nodes = [_changes(name, namespace, border, freight) for name in received]
    for name in dict.fromkeys(fresh):
        if name in received:
            continue
        if name in namespace:
            nodes.append(_whole(name, namespace[name], freight))
        else:
            freight.leave(name, (), "the code made no such variable")
    notices = [[notice.path, notice.reason] for notice in freight.left]
    header = {"objects": nodes, "left": (border.left + notices)[:_MOST_NOTICES]}
    _write(Path(outbox_dir), header, freight)


_MOST_NOTICES = 500


def _changes(
    name: str, namespace: Mapping[str, Any], border: Border, freight: Freight
) -> dict[str, Node]:
    if name not in namespace:
        return {"name": name, "state": "removed"}
    baseline = border.objects.get(name)
    aboard, weight = len(freight.buffers), freight.header_size
    try:
        tree = open_object(namespace[name])
        if baseline is None or baseline.kind != tree.kind:
            return _whole(name, namespace[name], freight)
        return _delta(name, tree, baseline, freight)
    except Exception as error:  # noqa: BLE001 - the code's objects may raise anything
        del freight.buffers[aboard:]
        freight.header_size = weight
        return _stays(name, error, freight)


def _delta(name: str, tree: Tree, baseline: _Baseline, freight: Freight) -> dict[str, Node]:
    present = list(tree.slots)
    encoded = encode_slots(name, tree, freight, baseline.spare)
    entries: list[Node] = []
    for path in present:
        form = encoded.get(path)
        if path not in encoded:
            entries.append([path_node(path), STAYED])
        elif form is None or baseline.unchanged(path, form):
            entries.append([path_node(path), KEPT])
        else:
            entries.append([path_node(path), NEW, *freight.load(form)])
    gone = [path_node(path) for path in baseline.slots if path not in set(present)]
    states = {entry[1] for entry in entries}
    can_go = [path for path in present if path in encoded or path in baseline.slots]
    if NEW not in states and not gone and can_go == list(baseline.slots):
        return {"name": name, "state": "same" if states == {KEPT} else "stays"}
    return {"name": name, "state": "delta", "kind": tree.kind, "slots": entries, "gone": gone}


def _whole(name: str, value: object, freight: Freight) -> dict[str, Node]:
    aboard, weight = len(freight.buffers), freight.header_size
    try:
        tree = open_object(value)
        encoded = encode_slots(name, tree, freight, _nothing_spared)
        entries = [
            [path_node(path), NEW, *freight.load(form)]
            for path, form in encoded.items()
            if form is not None
        ]
    except Exception as error:  # noqa: BLE001 - the code's objects may raise anything
        del freight.buffers[aboard:]
        freight.header_size = weight
        return _stays(name, error, freight)
    if not entries:
        return {"name": name, "state": "stays"}
    return {"name": name, "state": "whole", "kind": tree.kind, "slots": entries}


def _nothing_spared(_: SlotPath, __: object) -> bool:
    return False


def _stays(name: str, error: Exception, freight: Freight) -> dict[str, Node]:
    why = error.why if isinstance(error, HandoverError) else f"{type(error).__name__}: {error}"
    freight.leave(name, (), why)
    return {"name": name, "state": "stays"}


def _write(outbox: Path, header: dict[str, Node], freight: Freight) -> None:
    temporary = outbox / f".{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write(descriptor, header, freight.buffers)
        finally:
            os.close(descriptor)
        temporary.replace(outbox / CHANGES_FILE)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise HandoverError(
            "The results cannot be written for the notebook.",
            why=str(error),
            next_step="Free disk space, or bring back fewer objects.",
        ) from error
