"""What the sandbox did not let a step do, and the grant that would allow it.

The text of the error comes from the child and may be made up: it is a hint to the user, who
decides, and nothing is run again because of it.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.errors import ConfigError
from ovagent_jupyter.execution.executor import ExecutionStatus

if TYPE_CHECKING:
    from ovagent_jupyter.agent.turn import StepRecord
    from ovagent_jupyter.execution.executor import CodeError, Isolation

LONGEST = 300
"""Characters of a path or host that are worth showing."""
_REFUSED = re.compile(r"\[?errno\s*(?:=\s*)?(1|13|30)\b", re.IGNORECASE)
"""EPERM, EACCES, EROFS."""
_ABSENT = re.compile(r"\[?errno\s*(?:=\s*)?2\b", re.IGNORECASE)
"""ENOENT: with namespaces, what is not granted is not there at all."""
_PATH = re.compile(r"""(?:denied|permitted|system|directory): (['"])(?P<plain>/.*?)\1|"""
                   r"""name = '(?P<hdf5>/.*?)', errno""", re.DOTALL)  # fmt: skip
_NETWORK_ERRORS = frozenset(
    {
        *("gaierror", "herror", "URLError", "MaxRetryError", "NewConnectionError"),
        *("ConnectionError", "ConnectTimeout", "ConnectError", "ProxyError"),
        *("ClientConnectorError", "ClientProxyConnectionError"),
    }
)
_NETWORK_WORDS = re.compile(r"\b(urlopen|socket|name resolution|HTTPS?ConnectionPool)\b")
_GRANT_IN_MESSAGE = re.compile(r"%ovagent policy network ([\w.*:-]+)")
"""What our own proxy answers for a host that is not granted."""
_HOST_IN_MESSAGE = re.compile(r"host='([\w.-]+)'")
_HOST_IN_CODE = re.compile(r"(?:https?|ftp)://([\w.-]+)")
_WRITING = re.compile(
    r"""\b(?:to_\w+|write\w*|save\w*|mkdir|makedirs|touch|unlink|rename|remove)\(|"""
    r"""['"][rwaxbt]*[wax+][bt+]*['"]"""
)


@dataclass(frozen=True, slots=True)
class Denial:
    """One thing that the sandbox did not allow."""

    what: str
    """What the code wanted, such as ``read /data/ref.h5ad``."""
    grant: str
    """What ``%ovagent policy`` takes to allow it; empty when that cannot be granted."""

    @property
    def message(self) -> str:
        """One line for a reader."""
        said = f"The sandbox did not let the code {self.what}."
        if not self.grant:
            return f"{said} That is never granted."
        return f"{said} To allow it: %ovagent policy {self.grant} (in a shell: --{self.grant})"


def denied(step: StepRecord, isolation: Isolation) -> Denial | None:
    """What the sandbox had to do with a step that failed; None when nothing.

    Args:
        step: The step.
        isolation: Where it ran; below the boundary of the system nothing is denied.
    """
    error = step.error
    if error is None or step.status is not ExecutionStatus.ERROR or not isolation.guarded:
        return None
    return _denied_path(step, error) or _denied_network(step, error)


def _denied_path(step: StepRecord, error: CodeError) -> Denial | None:
    found = _PATH.search(error.message)
    if found is None:
        return None
    text = found["plain"] or found["hdf5"]
    if len(text) > LONGEST or not text.isprintable():
        return None
    path = Path(text)
    refused = _REFUSED.search(error.message) or error.name == "PermissionError"
    if not refused and not _ABSENT.search(error.message):
        return None
    if _exists(path):
        return _grant("write" if _writes(step, text) else "read", path, path)
    if _writes(step, text) and _exists(path.parent):
        return _grant("write", path, path.parent)
    return None


def _denied_network(step: StepRecord, error: CodeError) -> Denial | None:
    named = _GRANT_IN_MESSAGE.search(error.message)
    by_name = named is not None or error.name in _NETWORK_ERRORS
    if not by_name and not (
        _REFUSED.search(error.message) and _NETWORK_WORDS.search(f"{error.message}\n{step.code}")
    ):
        return None
    host = named or _HOST_IN_MESSAGE.search(error.message) or _HOST_IN_CODE.search(step.code)
    if host is None:
        return Denial("use the network", "network HOST")
    what = f"reach {host[1]}"
    try:
        SandboxSpec(network=(host[1],)).check(Path.home())
    except ConfigError:
        return Denial(what, "")
    return Denial(what, f"network {host[1]}")


def _grant(kind: str, wanted: Path, granted: Path) -> Denial:
    """The denial of a path, with the grant if it is one that the user can give."""
    what = f"{kind} {wanted}"
    try:
        SandboxSpec(**{kind: (granted,)}).check(Path.home())  # type: ignore[arg-type]
    except ConfigError:
        return Denial(what, "")
    return Denial(what, f"{kind} {shlex.quote(str(granted))}")


def _writes(step: StepRecord, path: str) -> bool:
    """Whether the code seems to write there: the line with the path, else all of it, decides."""
    name = Path(path).name
    lines = [line for line in step.code.splitlines() if name in line]
    return _WRITING.search("\n".join(lines) if lines else step.code) is not None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or a folder that is closed to this user too
        return False
