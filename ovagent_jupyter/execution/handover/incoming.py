"""The way back: what the child wrote is copied, checked and built; nothing in it is executed."""

from __future__ import annotations

import keyword
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.codec import Decoder
from ovagent_jupyter.execution.handover.diff import diff_delta, diff_whole
from ovagent_jupyter.execution.handover.fields import (
    Node,
    as_list,
    items,
    malformed,
    table,
    text,
    whole,
)
from ovagent_jupyter.execution.handover.objects import assemble, open_object
from ovagent_jupyter.execution.handover.packing import CHANGES_FILE, NEW
from ovagent_jupyter.execution.handover.rebuild import Delta, Entry, rebuild
from ovagent_jupyter.execution.handover.report import Changes, LeftBehind, ObjectDiff, shown
from ovagent_jupyter.execution.handover.segment import HEADER_CAP, FileSource, places, read_header
from ovagent_jupyter.execution.handover.slots import Slots, Tree, decode_slot, read_path

SIZE_CAP = 32 << 30
"""Largest file that is read, in bytes; never more than three quarters of the memory."""
_MOST_NAMES = 1000
_MOST_NOTICES = 1000
_LONGEST_NAME = 200


def read_changes(
    outbox: Path | int,
    sent: Mapping[str, object],
    *,
    outputs: Collection[str] | None = None,
    size_cap: int = SIZE_CAP,
) -> Changes:
    """What the child wrote to its outbox, against what it was sent; the file is removed.

    Everything in the file is untrusted: it is opened by name below the directory, copied
    before it is checked, and used only when all of it holds together.

    Args:
        outbox: The directory the child writes to, or an open descriptor of it.
        sent: The parent's own objects, by name; they are not changed.
        outputs: Names that may be new; None allows any public name.
        size_cap: Largest file to read, in bytes.

    Raises:
        HandoverError: There is nothing, or it is malformed; nothing of it was used.
    """
    with _opened(outbox) as directory, _changes_file(directory) as descriptor:
        try:
            return _read(descriptor, sent, outputs, size_cap)
        except HandoverError:
            raise
        except Exception as error:
            raise malformed(shown(f"{type(error).__name__}: {error}")) from error


@contextmanager
def _opened(outbox: Path | int) -> Iterator[int]:
    if isinstance(outbox, int):
        yield outbox
        return
    try:
        directory = os.open(outbox, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(error) from error
    try:
        yield directory
    finally:
        os.close(directory)


@contextmanager
def _changes_file(directory: int) -> Iterator[int]:
    # NONBLOCK: a pipe in the file's place must not make us wait.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(CHANGES_FILE, flags, dir_fd=directory)
    except OSError as error:
        _remove(directory)
        raise _unreadable(error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        _remove(directory)


def _remove(directory: int) -> None:
    # An old answer must not be taken for that of a later turn.
    with suppress(OSError):
        os.unlink(CHANGES_FILE, dir_fd=directory)


def _unreadable(error: OSError) -> HandoverError:
    return HandoverError(
        "The child's results cannot be read.",
        why=str(error.strerror or error),
        next_step="Run the cell again; if it happens again, restart the child.",
    )


def _read(
    descriptor: int, sent: Mapping[str, object], outputs: Collection[str] | None, cap: int
) -> Changes:
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
        raise malformed("the results are not a file of their own")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if about.st_size > min(cap, memory * 3 // 4):
        raise malformed(f"the results claim {about.st_size / 1e9:.1f} GB")
    header, start = read_header(descriptor, about.st_size, HEADER_CAP)
    source = FileSource(descriptor, places(header, start, about.st_size), about.st_size)
    reading = _Reading(source, sent, outputs)
    nodes = items(header, "objects")
    if len(nodes) > _MOST_NAMES:
        raise malformed("there are too many objects")
    for node in nodes:
        reading.read(table(node))
    reading.notices(items(header, "left"))
    return Changes(reading.objects, tuple(reading.diffs), tuple(reading.left))


class _Reading:
    """The objects of one file, read one after the other.

    Args:
        source: Gives private copies of the file's buffers.
        sent: The parent's own objects.
        outputs: Names that may be new.
    """

    def __init__(
        self, source: FileSource, sent: Mapping[str, object], outputs: Collection[str] | None
    ) -> None:
        self._source = source
        self._sent = sent
        self._outputs = outputs
        self._seen: set[str] = set()
        self.objects: dict[str, object] = {}
        self.diffs: list[ObjectDiff] = []
        self.left: list[LeftBehind] = []

    def read(self, node: Mapping[str, Node]) -> None:
        """Take in one object of the header."""
        name, state = text(node, "name"), text(node, "state")
        self._check_name(name, new=state == "whole")
        if state == "same":
            self.diffs.append(ObjectDiff(name, "unchanged"))
        elif state == "removed":
            self.diffs.append(ObjectDiff(name, "removed"))
        elif state == "delta":
            self._delta(name, node)
        elif state == "whole":
            self._whole(name, node)
        elif state != "stays":
            raise malformed("an object is in an unknown state")

    def _check_name(self, name: str, *, new: bool) -> None:
        if name in self._seen:
            raise malformed("an object is listed twice")
        self._seen.add(name)
        if name in self._sent:
            return
        allowed = self._outputs is None or name in self._outputs
        public = name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
        if not (allowed and public and len(name) <= _LONGEST_NAME) and new:
            raise malformed("an object has a name that was not asked for")

    def _entries(self, node: Mapping[str, Node]) -> list[Entry]:
        return [self._entry(as_list(entry)) for entry in items(node, "slots")]

    def _entry(self, entry: list[Node]) -> Entry:
        match entry:
            case [path, "k" | "s" as state]:
                return Entry(read_path(path), state)
            case [path, "n", node, first, count, False]:
                decoder = Decoder(self._source, first=whole(first), count=whole(count))
                return Entry(read_path(path), NEW, decode_slot(decoder, node))
            case _:
                raise malformed("a slot is in an unknown state, or pickled")

    def _delta(self, name: str, node: Mapping[str, Node]) -> None:
        if name not in self._sent:
            raise malformed("changes were sent for an object that the child was not sent")
        gone = frozenset(read_path(path) for path in items(node, "gone"))
        delta = Delta(name, text(node, "kind"), self._entries(node), gone)
        own = open_object(self._sent[name])
        rebuilt = rebuild(delta, own)
        self.objects[name] = rebuilt.value
        self.left.extend(rebuilt.left)
        self.diffs.append(diff_delta(delta, own, rebuilt))

    def _whole(self, name: str, node: Mapping[str, Node]) -> None:
        slots: Slots = {}
        for entry in self._entries(node):
            if entry.path in slots or entry.state != NEW:
                raise malformed("a slot of a new object is listed twice or not there")
            slots[entry.path] = entry.value
        value = assemble(Tree(text(node, "kind"), slots))
        self.objects[name] = value
        self.diffs.append(diff_whole(name, value, self._sent))

    def notices(self, nodes: list[Node]) -> None:
        """Take in what the child says it could not send."""
        for node in nodes[:_MOST_NOTICES]:
            match node:
                case [str() as path, str() as reason]:
                    self.left.append(LeftBehind(shown(path), shown(reason)))
                case _:
                    raise malformed("a notice is not two texts")
