"""Where our files lie: the platform's own places, or all of them below ``OVAGENT_HOME``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ovagent_jupyter.errors import StorageError

APP = "ovagent"
HOME_VARIABLE = "OVAGENT_HOME"
RUNTIME_PATH_LIMIT = 60
"""Characters of the directory of sockets: with a file name it stays below the 104 of macOS."""


def home_dir(env: Mapping[str, str]) -> Path:
    """The directory of the history: ``OVAGENT_HOME``, else ``~/.ovagent``."""
    return _override(env) or Path.home() / ".ovagent"


def history_file(env: Mapping[str, str]) -> Path:
    """The history of all sessions: ``~/.ovagent/history.jsonl`` by default."""
    return home_dir(env) / "history.jsonl"


def sessions_dir(env: Mapping[str, str], storage_dir: Path | None = None) -> Path:
    """The directory of session notebooks and logs; the setting ``storage_dir`` names another."""
    if storage_dir is not None:
        return storage_dir
    home = _override(env)
    if home is not None:
        return home / "sessions"
    import platformdirs  # only asked for where it decides

    return Path(platformdirs.user_data_dir(APP, appauthor=False)) / "sessions"


def cache_dir(env: Mapping[str, str]) -> Path:
    """The directory of what can be made again, such as compiled numba code."""
    home = _override(env)
    if home is not None:
        return home / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir(APP, appauthor=False))


def config_dir(env: Mapping[str, str]) -> Path:
    """The directory of ``config.toml``."""
    home = _override(env)
    if home is not None:
        return home / "config"
    import platformdirs

    return Path(platformdirs.user_config_dir(APP, appauthor=False))


def config_file(env: Mapping[str, str]) -> Path:
    """The settings file; it need not exist."""
    return config_dir(env) / "config.toml"


def ensure_dir(path: Path) -> Path:
    """Make a directory that only its owner can enter; one that exists is left as it is.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error("The directory", path, "cannot be made", error) from error
    return path


def runtime_dir(env: Mapping[str, str]) -> Path:
    """A private directory for sockets, made when it is missing; its path is short.

    The first of ``OVAGENT_HOME/run``, ``XDG_RUNTIME_DIR/ovagent`` and ``/tmp/ovagent-<uid>``
    that is short enough and belongs to this user alone.

    Raises:
        StorageError: None of them can be used.
    """
    reasons = []
    for candidate in _runtime_candidates(env):
        if len(os.fsencode(candidate)) > RUNTIME_PATH_LIMIT:
            reasons.append(f"{candidate}: longer than {RUNTIME_PATH_LIMIT} characters")
            continue
        try:
            ensure_dir(candidate)
            _make_private(candidate)
        except StorageError as error:
            reasons.append(error.why)
        except OSError as error:
            reasons.append(f"{candidate}: {error.strerror}")
        else:
            return candidate
    raise StorageError(
        "There is no private directory for the sockets of the child kernel.",
        why="; ".join(reasons),
        next_step=f"Set {HOME_VARIABLE} to a short path that you can write to.",
    )


def storage_error(kind: str, path: Path, failed: str, error: OSError) -> StorageError:
    """The error for a file of ours: which one, the system's reason, and what to do."""
    reason = "a file is in its way" if isinstance(error, FileExistsError) else error.strerror
    return StorageError(
        f"{kind} {path} {failed}.",
        why=f"{error.filename or path}: {reason or error}",
        next_step=f"Free space or permissions there, or set {HOME_VARIABLE} to another directory.",
    )


def _override(env: Mapping[str, str]) -> Path | None:
    home = env.get(HOME_VARIABLE, "").strip()
    return Path(home).expanduser().absolute() if home else None


def _runtime_candidates(env: Mapping[str, str]) -> Iterator[Path]:
    home = _override(env)
    if home is not None:
        yield home / "run"
    elif env.get("XDG_RUNTIME_DIR") and Path(env["XDG_RUNTIME_DIR"]).is_dir():
        yield Path(env["XDG_RUNTIME_DIR"]) / APP
    # Not tempfile.gettempdir(): on macOS that is a path of 49 characters and more.
    yield Path(f"/tmp/{APP}-{os.getuid()}")  # noqa: S108 - checked to be ours and private below


def _make_private(path: Path) -> None:
    """Check that a directory is this user's own, no link, and closed to others.

    Raises:
        StorageError: It belongs to somebody else, or is not a directory.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise StorageError(f"{path} cannot be used.", why=f"{path}: not a directory")
    if status.st_uid != os.getuid():
        raise StorageError(f"{path} cannot be used.", why=f"{path}: belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(0o700)
