"""Seatbelt, the sandbox of macOS: builds a profile of what is allowed, and gives up the rest.

**Not run on a Mac.** The profile is built and tested as text on Linux; no Mac has loaded it yet.
It counts as the level ``confined``.

Sources: sandbox(7), sandbox-exec(1) and sandbox_init(3) of macOS; Chromium's "The Mac Sandbox" and
"Mac Sandbox V2 Design Doc" (``sandbox/mac/``), and ``sandbox/policy/mac/common.sb`` for what a
program needs on each release; Apple's own profiles in ``/System/Library/Sandbox/Profiles``. The
language is a Scheme: for one operation the last rule that matches decides, and a rule on ``a*``
also covers ``a-b``. An operation that a release does not know makes it refuse the whole profile.
sandbox_init has been marked deprecated since macOS 10.8 and is what browsers still use.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ovagent_jupyter.execution.sandbox.grants import Grants

LIBRARY = "/usr/lib/libSystem.B.dylib"
PROFILE_IS_TEXT = 0
"""Flags of sandbox_init: not the name of a built-in profile."""

SYSTEM = (
    "/Library/Apple/System/Library",
    "/Library/Fonts",
    "/Library/Frameworks",
    "/System/Cryptexes/OS",
    "/System/Library",
    "/System/Volumes/Preboot/Cryptexes/OS",
    "/opt/homebrew/Cellar",
    "/opt/homebrew/Frameworks",
    "/opt/homebrew/lib",
    "/opt/homebrew/opt",
    "/opt/homebrew/share",
    "/opt/local/lib",
    "/private/var/db/dyld",
    "/private/var/db/timezone",
)
"""What programs load besides ``grants.SYSTEM``: libraries of the system and of package managers."""
SYSCTLS = (
    "kern.argmax kern.hostname kern.maxfilesperproc kern.ngroups kern.osproductversion "
    "kern.osrelease kern.ostype kern.osvariant_status kern.osversion kern.secure_kernel "
    "kern.usrstack64 kern.version sysctl.proc_cputype vm.loadavg"
)
"""By name: one of the others shows the command lines of all processes of the user."""
SYSCTL_PREFIXES = ("hw.", "machdep.cpu.")
SERVICES = ("com.apple.system.opendirectoryd.libinfo",)
"""getpwuid(3) asks it; every other service does something on behalf of its caller."""
SEMAPHORES = "^/(mp|loky)-"
SHARED_MEMORY = "^/psm_"
"""As multiprocessing names them; what others have made is not opened."""

READ = "file-read*"
RUN = "file-map-executable process-exec*"
DEVICE = "file-read* file-write-data file-ioctl"


def profile_for(grants: Grants, *, home: Path, sockets: Sequence[Path] = ()) -> str:
    """The profile of one child.

    Args:
        grants: The files it gets.
        home: The user's home: refused before anything in it is granted.
        sockets: The sockets that are bound for it; it takes connections on them and makes none.
    """
    return "\n".join(_rules(grants, home, sockets)) + "\n"


def quoted(text: str) -> str:
    """A string of the profile language; nothing in it can end it early."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def apply(profile: str) -> None:
    """Confine this process and its future children; there is no way back.

    Raises:
        OSError: This is no macOS, or the profile is refused; nothing has changed.
    """
    try:
        library = ctypes.CDLL(LIBRARY, use_errno=True)
        start, free = library.sandbox_init, library.sandbox_free_error
    except (OSError, AttributeError) as error:
        raise OSError(errno.ENOSYS, "This system has no Seatbelt.") from error
    start.argtypes = (ctypes.c_char_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_void_p))
    free.argtypes = (ctypes.c_void_p,)
    free.restype = None
    message = ctypes.c_void_p()
    if start(os.fsencode(profile), PROFILE_IS_TEXT, ctypes.byref(message)) != 0:
        said = ctypes.string_at(message.value).decode("utf-8", "replace") if message.value else ""
        free(message)
        raise OSError(errno.EPERM, f"sandbox_init: {said or 'refused'}")


def cannot_connect() -> bool:
    """Whether a connection to this machine is refused by the sandbox, as seen from inside.

    Making a socket says nothing: Seatbelt looks when it is used.
    """
    import socket  # dear to import, and only a self-test needs it

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        return tried.connect_ex(("127.0.0.1", 9)) in {errno.EPERM, errno.EACCES}


def _rules(grants: Grants, home: Path, sockets: Sequence[Path]) -> Iterator[str]:
    yield "(version 1)"
    yield "(deny default)"
    yield "(allow process-fork)"
    yield "(allow process-info* (target same-sandbox))"
    yield "(allow signal (target same-sandbox))"
    names = _filters("sysctl-name", SYSCTLS.split())
    yield f"(allow sysctl-read {names} {_filters('sysctl-name-prefix', SYSCTL_PREFIXES)})"
    yield f"(allow mach-lookup {_filters('global-name', SERVICES)})"
    yield f'(allow ipc-posix-sem (ipc-posix-name-regex #"{SEMAPHORES}"))'
    yield f'(allow ipc-posix-shm* (ipc-posix-name-regex #"{SHARED_MEMORY}"))'
    # Numba and other compilers at run time; older releases have no such operation.
    yield "(when (defined? 'dynamic-code-generation) (allow dynamic-code-generation))"
    yield '(allow file-read* (literal "/") (subpath "/dev/fd"))'
    yield f"(allow {READ} {RUN} {_filters('subpath', SYSTEM)})"
    yield f"(deny file* process-exec* {_filter('subpath', os.path.realpath(home))})"
    yield from _granted(grants)
    if sockets:
        yield f"(allow network-inbound {_filters('literal', map(os.path.realpath, sockets))})"
    # Last, so that no grant brings them back.
    yield "(deny file-write-setugid)"
    yield "(deny network-outbound network-bind system-socket)"


def _granted(grants: Grants) -> Iterator[str]:
    """One rule a grant; they only add to each other, so their order does not matter."""
    parts = [path for path, _ in (*grants.pairs, *grants.links)]
    parts += [parent for path in parts for parent in _parents(path)]
    yield f"(allow file-read-metadata {_filters('literal', sorted(set(parts)))})"
    for path, kind in sorted(grants.pairs):
        match kind:
            case "read":
                yield f"(allow {READ} {RUN} {_filter('subpath', path)})"
            case "list":
                yield f"(allow {READ} {_filter('literal', path)})"
            case "device":
                yield f"(allow {DEVICE} {_filter('literal', path)})"
            case "write":
                yield f"(allow {READ} file-write* file-map-executable {_filter('subpath', path)})"


def _parents(path: str) -> Iterator[str]:
    """The folders above a path, without the root: resolving the path asks for each of them."""
    while path := path.rpartition("/")[0]:
        yield path


def _filters(name: str, values: Iterable[str]) -> str:
    return " ".join(_filter(name, value) for value in values)


def _filter(name: str, value: str) -> str:
    return f"({name} {quoted(value)})"
