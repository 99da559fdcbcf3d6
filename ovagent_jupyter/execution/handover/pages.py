"""Whether memory on a private map is still what was mapped, asked of the system."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_PAGE = os.sysconf("SC_PAGE_SIZE")
_ENTRY = 8

# linux/fs.h (Linux 6.7): PAGEMAP_SCAN, struct pm_scan_arg, the categories of a page.
_SCAN = 0xC0606610
_ARGUMENT = struct.Struct("12Q")
_REGION = struct.Struct("3Q")
_FILE, _PRESENT, _SWAPPED = 1 << 2, 1 << 3, 1 << 4

# Documentation/admin-guide/mm/pagemap.rst: bits of an entry of /proc/pid/pagemap.
_BIT_FILE, _BIT_SWAPPED, _BIT_PRESENT = 61, 62, 63


def is_clean(address: int, size: int) -> bool | None:
    """Whether no page of this process's memory was written to since it was mapped privately.

    A page that was written to is a copy of its own and no page of the file any more; one written
    with the value it had counts as changed. Bytes outside of a private map of a file or of
    shared memory always count as changed.

    Args:
        address: Where it begins.
        size: Bytes.

    Returns:
        None where the system cannot tell.
    """
    if size == 0:
        return True
    start = address // _PAGE * _PAGE
    end = -(-(address + size) // _PAGE) * _PAGE
    try:
        with _pagemap() as descriptor:
            found = _scan(descriptor, start, end)
            return _read(descriptor, start, end) if found is None else found
    except OSError:
        return None


@contextmanager
def _pagemap() -> Iterator[int]:
    if sys.platform != "linux":
        raise OSError("only Linux has it")
    # Opened for each question: a descriptor belongs to the memory of the process that opened it.
    descriptor = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _scan(descriptor: int, start: int, end: int) -> bool | None:
    """The answer of PAGEMAP_SCAN: it looks for one page that is somewhere and not the file's."""
    region = ctypes.create_string_buffer(_REGION.size)
    argument = bytearray(
        _ARGUMENT.pack(
            _ARGUMENT.size, 0, start, end, 0, ctypes.addressof(region), 1, 1,
            _FILE, _FILE, _PRESENT | _SWAPPED, _PRESENT | _SWAPPED,
        )
    )  # fmt: skip
    try:
        return bool(fcntl.ioctl(descriptor, _SCAN, argument) == 0)
    except OSError:
        return None  # an older kernel


def _read(descriptor: int, start: int, end: int) -> bool:
    """The same, from an entry for each page."""
    length = (end - start) // _PAGE * _ENTRY
    raw = os.pread(descriptor, length, start // _PAGE * _ENTRY)
    if len(raw) != length:
        raise OSError("the page map ends early")
    entries = np.frombuffer(raw, np.uint64)
    of_file = entries >> np.uint64(_BIT_FILE) & np.uint64(1)
    elsewhere = (entries >> np.uint64(_BIT_SWAPPED) | entries >> np.uint64(_BIT_PRESENT)) & (
        np.uint64(1)
    )
    return not bool((elsewhere & (of_file ^ np.uint64(1))).any())
