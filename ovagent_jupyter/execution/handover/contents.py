"""Which run of bytes holds which content, so that the same bytes are written once."""

from __future__ import annotations

import secrets
from weakref import WeakKeyDictionary, WeakSet

import xxhash

from ovagent_jupyter.execution.handover.blob import Blob
from ovagent_jupyter.execution.handover.segment import Buffer

_START = 1 << 16


class Contents:
    """Blobs by their content. The seed is secret, so nobody can make two contents look the same."""

    def __init__(self) -> None:
        self._seed = secrets.randbits(64)
        self._by_start: dict[tuple[int, bytes], WeakSet[Blob]] = {}
        # From the blob, not from what was written to it: that may have changed meanwhile.
        self._digests: WeakKeyDictionary[Blob, bytes] = WeakKeyDictionary()

    def start(self, data: Buffer) -> tuple[int, bytes]:
        """Size and digest of the first bytes: all of different contents that most often differ."""
        return data.nbytes, self.digest(data[:_START])

    def digest(self, data: Buffer) -> bytes:
        """The digest of all bytes."""
        return xxhash.xxh3_128_digest(data, seed=self._seed)

    def find(self, data: Buffer) -> Blob | None:
        """A blob of the same content, or None."""
        alike = list(self._by_start.get(self.start(data), ()))
        digest = self.digest(data) if alike else b""
        return next((blob for blob in alike if self._digest_of(blob) == digest), None)

    def same(self, blob: Blob, data: Buffer) -> bool:
        """Whether a blob holds these bytes; of one that was asked about before, none is read."""
        return self.start(data) == self.start(blob.read()) and (
            self.digest(data) == self._digest_of(blob)
        )

    def add(self, blob: Blob) -> None:
        """Remember a blob for as long as somebody holds it."""
        for key in [key for key, blobs in self._by_start.items() if not blobs]:
            del self._by_start[key]
        self._by_start.setdefault(self.start(blob.read()), WeakSet()).add(blob)

    def _digest_of(self, blob: Blob) -> bytes:
        found = self._digests.get(blob)
        if found is None:
            found = self._digests[blob] = self.digest(blob.read())
        return found
