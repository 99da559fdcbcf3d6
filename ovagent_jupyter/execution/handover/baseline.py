"""What a namespace in the child received: what changes are told against."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, MutableMapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.backed import FileMatrix
from ovagent_jupyter.execution.handover.blob import SMALL
from ovagent_jupyter.execution.handover.codec import Encoded, same_bytes
from ovagent_jupyter.execution.handover.maps import Maps
from ovagent_jupyter.execution.handover.sealed import Segment
from ovagent_jupyter.execution.handover.segment import Buffer, Bytes, dumps
from ovagent_jupyter.execution.handover.slots import Path, encode_slot
from ovagent_jupyter.execution.handover.texts import Texts, key_of

_BORDER = "__ovagent_border__"
"""Where it is kept: in the namespace it is about, so that two never mix."""


@dataclass(frozen=True, slots=True)
class SentBuffer:
    """One buffer as it came."""

    content: Bytes
    """The bytes, to be read only."""
    number: int | None
    """Its place in the message's table; None for a small one."""


@dataclass(frozen=True, slots=True)
class SentSlot:
    """One slot as it came."""

    node: bytes
    buffers: tuple[SentBuffer, ...]
    digest: bytes | None
    """For a pickled slot; a pickle made here need not have the bytes of one made there."""
    texts: Texts | None = None
    """For many texts: they are known again without being encoded."""
    in_file: FileMatrix | None = None
    """For a matrix that was not sent: where it is."""


@dataclass(slots=True)
class Places:
    """Where the large buffers of a message lie, in the segments and in this process."""

    table: dict[tuple[Segment, int, int], int] = field(default_factory=dict)
    """Segment, offset and size → its place in the message's table."""
    maps: Maps = field(default_factory=Maps)

    def number(self, buffer: Buffer) -> int | None:
        """The place of a buffer in the table when it is for sure one of it, untouched."""
        found = self.maps.untouched(buffer) if buffer.nbytes >= SMALL else None
        return self.table.get((*found, buffer.nbytes)) if found is not None else None


@dataclass(frozen=True, slots=True)
class Baseline:
    """One object as it came."""

    kind: str
    slots: Mapping[Path, SentSlot]
    places: Places

    def stands(self, path: Path, value: object) -> bool:
        """Whether a slot is what was sent, told without encoding it."""
        sent = self.slots.get(path)
        if sent is not None and sent.in_file is not None:
            return not isinstance(value, FileMatrix) and sent.in_file.holds(value)
        return sent is not None and sent.texts is not None and sent.texts.key == key_of(value)

    def unchanged(self, path: Path, encoded: Encoded) -> bool:
        """Whether a slot still is what was sent; what lies untouched where it came is not read."""
        sent = self.slots.get(path)
        if sent is None or sent.digest is not None:
            return sent is not None and sent.digest == digest_of(encoded)
        pairs = list(zip(sent.buffers, encoded.buffers, strict=False))
        return (
            len(encoded.buffers) == len(sent.buffers)
            and all(came.content.nbytes == buffer.nbytes for came, buffer in pairs)
            and dumps(encoded.node) == sent.node
            and all(self._is(came, buffer) for came, buffer in pairs)
        )

    def _is(self, came: SentBuffer, buffer: Buffer) -> bool:
        if came.number is not None and self.places.number(buffer) == came.number:
            return True
        return same_bytes(buffer, came.content)

    def spare(self, path: Path, value: object) -> bool:
        """Whether a slot without a typed form still is what was sent."""
        sent = self.slots.get(path)
        if sent is None or sent.digest is None:
            return False
        try:
            return sent.digest == digest_of(encode_slot(value, allow_pickle=True))
        except HandoverError:
            return False


@dataclass(slots=True)
class Border:
    """What a namespace received."""

    objects: dict[str, Baseline] = field(default_factory=dict)
    built: dict[str, Callable[[], object]] = field(default_factory=dict)
    """The objects as they were built, while they are there."""
    origin: bytes = b""
    """What they were built from."""
    segments: dict[int, Segment] = field(default_factory=dict)
    """What this process has, by the numbers the parent knows."""
    places: Places = field(default_factory=Places)
    texts: dict[Hashable, Texts] = field(default_factory=dict)
    """Texts of the last hand-over, which are slow to build, by what they were built from."""
    known: frozenset[str] = frozenset()
    """Names that existed after the last hand-over."""
    left: list[list[str]] = field(default_factory=list)
    """What came but could not be built here, and why."""


def border_of(namespace: MutableMapping[str, Any]) -> Border:
    """What a namespace received; an empty one at first."""
    border = namespace.get(_BORDER)
    if not isinstance(border, Border):
        border = namespace[_BORDER] = Border()
    return border


def digest_of(encoded: Encoded) -> bytes:
    """What a slot in its travelling form is known by."""
    digest = blake2b(dumps(encoded.node), digest_size=16)
    for buffer in encoded.buffers:
        digest.update(buffer)
    return digest.digest()
