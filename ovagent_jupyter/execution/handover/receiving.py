"""The child's side of the way there: objects are built on private maps of what was sent."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from hashlib import blake2b
from typing import Any, cast

import numpy as np

from ovagent_jupyter.execution.handover.backed import FileMatrix
from ovagent_jupyter.execution.handover.baseline import (
    Baseline,
    Border,
    Places,
    SentBuffer,
    SentSlot,
    border_of,
    digest_of,
)
from ovagent_jupyter.execution.handover.blob import Blob
from ovagent_jupyter.execution.handover.codec import Decoder
from ovagent_jupyter.execution.handover.exchange import take
from ovagent_jupyter.execution.handover.fields import Node
from ovagent_jupyter.execution.handover.objects import assemble
from ovagent_jupyter.execution.handover.packing import Freight, drop_columns, frame_places
from ovagent_jupyter.execution.handover.saved import BlobSource, Ground
from ovagent_jupyter.execution.handover.sealed import Segment
from ovagent_jupyter.execution.handover.segment import Bytes, dumps, places, read_header
from ovagent_jupyter.execution.handover.sending import is_as_sent
from ovagent_jupyter.execution.handover.slots import Path as SlotPath
from ovagent_jupyter.execution.handover.slots import Tree, decode_slot, encode_slot, read_path
from ovagent_jupyter.execution.handover.texts import Texts, keep


def receive(namespace: MutableMapping[str, Any], end: int, token: str, count: int) -> None:
    """Bind the objects of a message to their names; earlier ones are no longer followed.

    Arrays lie on copy-on-write maps: they are writable, and what was sent stays readable, so
    that changes can be told later without a copy. What came before and still is the same in all
    its parts is not built again.

    Args:
        namespace: The variables of the code to run.
        end: Descriptor of this side's end of the exchange.
        token: The call's token, in hexadecimal.
        count: How many open files belong to the message.

    Raises:
        HandoverError: The message did not arrive, or cannot be read.
    """
    border = border_of(namespace)
    descriptors = take(end, bytes.fromhex(token), count)
    arrived = [Segment(each, os.fstat(each).st_size, in_memory=True) for each in descriptors]
    message = _Message(arrived, border.segments)
    if message.origin == border.origin and not message.header["new"] and _stand(namespace, border):
        border.known = frozenset(namespace)
        return
    border.origin = b""  # until all is built
    border.segments, border.places = message.segments, message.places
    texts, border.texts = border.texts, {}
    border.objects.clear()
    border.built.clear()
    border.left.clear()
    for name, kind, slots in message.header["objects"]:
        freight = Freight()
        tree = Tree(kind)
        building = _Building(message, texts, border.texts)
        border.objects[name] = _unpack(name, tree, slots, building, freight)
        border.left.extend([notice.path, notice.reason] for notice in freight.left)
        if tree.slots:
            namespace[name] = assemble(tree)
            border.built[name] = _reference(namespace[name])
    border.known, border.origin = frozenset(namespace), message.origin


def _stand(namespace: MutableMapping[str, Any], border: Border) -> bool:
    """Whether all that was built before is still there and as it came."""
    return all(
        name in namespace and namespace[name] is reference() and is_as_sent(name, namespace, border)
        for name, reference in border.built.items()
    )


def _reference(value: object) -> Callable[[], object]:
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value  # one of Python's own


class _Message:
    """What arrived, with the buffers by their numbers.

    Args:
        arrived: The message's own segment, then those that are new.
        held: The segments that came earlier, by number.
    """

    def __init__(self, arrived: Sequence[Segment], held: dict[int, Segment]) -> None:
        own, *new = arrived
        self.header, start = read_header(own.descriptor, own.size, own.size)
        fresh = dict(zip(self.header["new"], new, strict=True))
        self.segments: dict[int, Segment] = {
            number: fresh.get(number) or held[number] for number in self.header["segments"]
        }
        self._blobs = [
            Blob(self.segments[number], offset, size)
            for number, offset, size in self.header["blobs"]
        ]
        self.places = Places({(b.segment, b.offset, b.size): n for n, b in enumerate(self._blobs)})
        self._own = own.read()
        self._inline = places(self.header, start, own.size)
        table = {key: self.header[key] for key in ("objects", "segments", "blobs")}
        digest = blake2b(dumps(table), digest_size=32)
        digest.update(memoryview(cast(Any, self._own[start:])))
        self.origin = digest.digest()
        """What the objects are built from, by the numbers of the segments."""
        self._readable: dict[Segment, Bytes] = {}

    def blob(self, number: int) -> Blob | bytes:
        """A buffer of the table, or one of the message's own."""
        if number < len(self._blobs):
            return self._blobs[number]
        offset, size = self._inline[number - len(self._blobs)]
        return self._own[offset : offset + size].tobytes()

    def content(self, blob: Blob | bytes) -> Bytes:
        """What was sent, to be compared with; one map for all of a segment."""
        if isinstance(blob, bytes):
            return np.frombuffer(blob, np.uint8)
        segment = blob.segment
        if segment not in self._readable:
            self._readable[segment] = segment.read()
        return self._readable[segment][blob.offset : blob.offset + blob.size]


class _Building:
    """Builds the parts of one object.

    Args:
        message: Where the buffers are.
        earlier: Texts that were built for the last hand-over.
        now: Takes those that are built, or built no more, for this one.
    """

    def __init__(
        self, message: _Message, earlier: Mapping[Hashable, Texts], now: dict[Hashable, Texts]
    ) -> None:
        self.message = message
        self._earlier = earlier
        self._now = now
        self._ground = Ground(message.places.maps)

    def value(self, node: Node, blobs: Sequence[Blob | bytes]) -> tuple[object, Texts | None]:
        """The value of a slot, and the texts it consists of."""
        origin = _origin(node, blobs)
        texts = self._now.get(origin) or self._earlier.get(origin)
        value = texts.again() if texts is not None else None
        if value is None:
            decoder = Decoder(BlobSource(blobs, self._ground), allow_pickle=True, trusted=True)
            value = decode_slot(decoder, node)
            texts = keep(value) if origin is not None else None
            value = value if texts is None else texts.again()
        if texts is not None:
            self._now[origin] = texts
        return value, texts


def _origin(node: Node, blobs: Sequence[Blob | bytes]) -> Hashable | None:
    """What a value is built from; None for one that has no large buffer."""
    if not any(isinstance(blob, Blob) for blob in blobs):
        return None
    places = [b if isinstance(b, bytes) else (b.segment, b.offset, b.size) for b in blobs]
    return (dumps(node), *places)


def _unpack(
    name: str, tree: Tree, slots: Sequence[Node], building: _Building, freight: Freight
) -> Baseline:
    """Build the parts of one object; what cannot be built here is left out and told."""
    message = building.message
    sent: dict[SlotPath, SentSlot] = {}
    gone: set[SlotPath] = set()
    for steps, node, numbers, pickled in slots:
        path = read_path(steps)
        blobs = [message.blob(number) for number in numbers]
        try:
            value, texts = building.value(node, blobs)
            digest = digest_of(encode_slot(value, allow_pickle=True)) if pickled else None
            buffers = [
                SentBuffer(message.content(blob), number if isinstance(blob, Blob) else None)
                for number, blob in zip(numbers, blobs, strict=True)
            ]
            in_file = value if isinstance(value, FileMatrix) else None
            sent[path] = SentSlot(dumps(node), tuple(buffers), digest, texts, in_file)
        except Exception as error:  # noqa: BLE001 - a foreign object's unpickling may raise anything
            gone.add(path)
            freight.leave(name, path, f"{type(error).__name__} in the child: {error}")
            continue
        tree.slots[path] = value
    if gone:
        for place in frame_places(tree):
            drop_columns(tree, place, gone)
            labels = encode_slot(tree.slots[place.columns])
            sent[place.columns] = SentSlot(b"", (), digest_of(labels))
    return Baseline(tree.kind, sent, message.places)
