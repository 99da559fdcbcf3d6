"""A control group for one child, where this user may make one: a cap that no fork outruns.

The groups are made below the one this process is in, so that its own limits go on to hold, and no
group that is not ours is changed. Source: Documentation/admin-guide/cgroup-v2.rst of the kernel,
and cgroup-v1/pids.rst. The v1 controller for memory is deprecated and not used. Imported by the
supervisor: cheap modules only.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping

from ovagent_jupyter.execution.sandbox.process_tree import process_of, read_bytes

ROOT = "/sys/fs/cgroup"
PREFIX = "ovagent-"
MEMORY_SLACK = 1.1
"""The watchdog comes first, because it can say what was used."""
TASKS_PER_PROCESS = 8
"""The system counts threads where we count processes."""
LEAST_TASKS = 1024
EMPTYING = 1.0
"""Seconds that processes which were killed get to leave a group."""
PAUSE = 0.002
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Cgroup:
    """One group in each hierarchy that there is.

    Args:
        places: Directories of the groups.
        memory: The cap that was set, or 0.
    """

    def __init__(self, places: tuple[str, ...], memory: float) -> None:
        self.places = places
        """Directories of the groups."""
        self._memory = memory
        self._directories = {place: os.open(place, DIRECTORY) for place in places}

    @property
    def descriptors(self) -> frozenset[int]:
        """What must stay open in the process that made the group."""
        return frozenset(self._directories.values())

    def enter(self) -> bool:
        """Put the calling process in; what it starts from then on is in as well."""
        return all(self._put("cgroup.procs", b"0", place) for place in self.places)

    def breach(self) -> tuple[str, float, float] | None:
        """The cap on memory, when the system itself has killed for it."""
        if not self._memory:
            return None
        for place in self.places:
            events = dict(_pairs(self._get("memory.events", place)))
            if events.get(b"oom_kill", 0):
                peak = self._get("memory.peak", place).strip()
                return "memory", self._memory, max(self._memory, float(peak or 0))
        return None

    def kill(self) -> None:
        """End all in it at once, those that are being made as well; Linux 5.14."""
        for place in self.places:
            self._put("cgroup.kill", b"1", place)

    def remove(self) -> None:
        """Remove the groups; processes that are left in them are ended."""
        for place in self.places:
            _remove(place)
        for descriptor in self._directories.values():
            os.close(descriptor)
        self._directories.clear()
        self.places = ()

    def _put(self, name: str, value: bytes, place: str) -> bool:
        # By descriptor: the process may have another root directory by now.
        return _write(name, value, self._directories[place])

    def _get(self, name: str, place: str) -> bytes:
        return _read(name, self._directories[place])


def open_cgroup(limits: Mapping[str, float]) -> Cgroup | None:
    """Make a group for a child, or None where that is not possible; never raises.

    Groups of supervisors that are gone are removed, with what is left in them.

    Args:
        limits: The caps: bytes of ``memory`` and number of ``processes``.
    """
    memory = 0.0
    made = []
    try:
        for parent in _own_groups():
            _sweep(parent)
            place = f"{parent}/{_name()}"
            if _make(place):
                made.append(place)
                memory = memory or _limit(place, limits)
        return Cgroup(tuple(made), memory) if made else None
    except (OSError, ValueError):
        for place in made:
            _remove(place)
        return None


def tasks_for(limits: Mapping[str, float]) -> int:
    """Processes and threads together that a cap on processes allows."""
    return max(LEAST_TASKS, int(limits["processes"]) * TASKS_PER_PROCESS)


def _own_groups() -> Iterator[str]:
    """Directories of the groups that this process is in, of the hierarchies that are of use."""
    for line in read_bytes("/proc/self/cgroup").decode("utf-8", "surrogateescape").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            roots = [ROOT, ROOT + "/unified"]
        elif "pids" in controllers.split(","):
            roots = [f"{ROOT}/{controllers}", ROOT + "/pids"]
        else:
            continue
        for root in roots:
            place = root + path.rstrip("/")
            if os.access(place + "/cgroup.procs", os.W_OK):
                yield place
                break


def _name() -> str:
    """A name that tells whether its maker still lives, to those who can see it."""
    own = process_of(os.getpid())
    return f"{_prefix()}{os.getpid()}-{own.started if own is not None else 0}"


def _prefix() -> str:
    """Makers in another pid namespace cannot be told alive or dead: their groups are not ours."""
    return f"{PREFIX}{os.stat('/proc/self/ns/pid').st_ino}-"


def _make(place: str) -> bool:
    try:
        os.mkdir(place, 0o755)
    except OSError:
        return False
    return True


def _limit(place: str, limits: Mapping[str, float]) -> float:
    """Set the caps as far as the group has them; the cap on memory that holds, or 0."""
    directory = os.open(place, DIRECTORY)
    try:
        _write("pids.max", str(tasks_for(limits)).encode(), directory)
        _write("memory.oom.group", b"1", directory)
        cap = int(limits["memory"] * MEMORY_SLACK)
        return cap if _write("memory.max", str(cap).encode(), directory) else 0
    finally:
        os.close(directory)


def _sweep(parent: str) -> None:
    """Remove the groups whose makers are gone."""
    prefix = _prefix()
    for name in os.listdir(parent):
        pid, _, started = name.removeprefix(prefix).partition("-")
        if not name.startswith(prefix) or not (pid.isdecimal() and started.isdecimal()):
            continue
        maker = process_of(int(pid))
        if maker is None or maker.started != int(started):
            _remove(f"{parent}/{name}")


def _remove(place: str) -> None:
    """Remove one group, and end what is in it for as long as it is not empty."""
    deadline = time.monotonic() + EMPTYING
    while True:
        try:
            os.rmdir(place)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return
        else:
            return
        _kill_all_in(place)
        time.sleep(PAUSE)


def _kill_all_in(place: str) -> None:
    try:
        directory = os.open(place, DIRECTORY)
    except OSError:
        return
    try:
        if _write("cgroup.kill", b"1", directory):
            return
        for pid in _read("cgroup.procs", directory).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except OSError:
                continue
    finally:
        os.close(directory)


def _write(name: str, value: bytes, directory: int) -> bool:
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return False
    try:
        os.write(descriptor, value)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _read(name: str, directory: int) -> bytes:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _pairs(text: bytes) -> Iterator[tuple[bytes, int]]:
    for line in text.splitlines():
        name, _, value = line.partition(b" ")
        yield name, int(value)
