"""A decoy home directory, and what was changed in it since it was looked at last."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

SECRETS = {
    "ssh_key": ".ssh/id_ed25519",
    "cloud_key": ".aws/credentials",
    "netrc": ".netrc",
    "shell_history": ".bash_history",
    "cookies": ".mozilla/firefox/a.default/cookies.sqlite",
    "notebook": "project/analysis.ipynb",
    "data": "project/patients.csv",
    "session_log": ".ovagent/sessions/other.jsonl",
    "checkpoint": ".ovagent/sessions/other.checkpoint",
    "server_token": ".local/share/jupyter/runtime/jpserver-1.json",
    "cookie_secret": ".local/share/jupyter/runtime/jupyter_cookie_secret",
    "download": "Downloads/letter.txt",
}
"""Files that hold a token that nobody may get to know."""

STARTUP = {
    "bashrc": ".bashrc",
    "profile": ".profile",
    "ipython_startup": ".ipython/profile_default/startup/00-mine.py",
    "ipython_config": ".ipython/profile_default/ipython_config.py",
    "jupyter_config": ".jupyter/jupyter_server_config.py",
    "kernelspec": ".local/share/jupyter/kernels/mine/kernel.json",
    "autostart": ".config/autostart/sync.desktop",
    "user_unit": ".config/systemd/user/sync.service",
    "matplotlib_style": ".config/matplotlib/matplotlibrc",
    "git_hook": "project/.git/hooks/post-commit",
    "git_config": ".gitconfig",
    "ssh_config": ".ssh/config",
    "authorized_keys": ".ssh/authorized_keys",
    "path_file": ".local/lib/decoy-packages/decoy.pth",
    "package": ".local/lib/decoy-packages/decoymodule.py",
    "settings": ".ovagent/config/config.toml",
}
"""Files that are run or obeyed later."""

KERNEL_FILE = ".local/share/jupyter/runtime/kernel-other.json"
NOISE = (".cache", "inbox", "run", "tmp", ".ovagent/cache", ".ovagent/run", KERNEL_FILE)
"""Places where our own programs write, or the witness does."""


def drop_tree(place: Path) -> None:
    """Remove a directory whatever its modes and flags are."""
    if shutil.which("chattr") and os.getuid() == 0:
        subprocess.run(["chattr", "-R", "-f", "-i", str(place)], capture_output=True, check=False)
    for folder, names, _ in os.walk(place):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
    subprocess.run(["rm", "-rf", "--", str(place)], capture_output=True, check=False)


class Home:
    """The tree, made anew whenever an attack changed it.

    Args:
        place: Its directory.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.tokens = {name: secrets.token_hex(12) for name in SECRETS}
        size = secrets.randbelow(10**10) + 10**10
        self.tokens |= {"name": secrets.token_hex(12), "size": str(size)}
        self._seen: dict[str, object] = {}
        self.restore()
        self.facts: dict[str, Any] = {
            "home": str(place),
            "private": str(place / "private"),
            "sized": str(place / "sized"),
            **{name: str(place / path) for name, path in {**SECRETS, **STARTUP}.items()},
        }

    def restore(self) -> None:
        """Make the tree as it should be."""
        wanted = {
            **{path: self._content(name) for name, path in SECRETS.items()},
            **{path: f"# {name}\n" for name, path in STARTUP.items()},
            f"private/{self.tokens['name']}": "nothing\n",
            "sized": "",
        }
        self.place.mkdir(mode=0o700, exist_ok=True)
        (self.place / "inbox").mkdir(exist_ok=True)
        for entry in [path for path in self._tree() if path not in wanted]:
            path = self.place / entry
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
            elif not any(name.startswith(f"{entry}/") for name in wanted):
                drop_tree(path)
        for name, text in wanted.items():
            path = self.place / name
            if not _is_plain(path):
                drop_tree(path)
            elif _flags(str(path)) & 0x10:
                _flags(str(path), put=0)
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"{path.name}.fresh")
            fresh.write_text(text)
            fresh.chmod(0o600)
            if name == "sized":
                os.truncate(fresh, int(self.tokens["size"]))
            fresh.replace(path)
        self._seen = self._tree()

    def accept(self) -> None:
        """Take the tree for what it should be: the witness itself put something there."""
        self._seen = self._tree()

    def harm(self) -> str:
        """What was changed, or nothing."""
        now = self._tree()
        if now == self._seen:
            return ""
        paths = sorted(now.keys() | self._seen.keys())
        changed = [path for path in paths if now.get(path) != self._seen.get(path)]
        return f"changed: {', '.join(changed[:4])}"

    def _content(self, name: str) -> str:
        token = self.tokens[name]
        if name == "notebook":
            return json.dumps({"cells": [], "metadata": {"token": token}})
        return f"secret={token}\n"

    def _tree(self) -> dict[str, object]:
        entries: dict[str, object] = {}
        pending = [self.place]
        while pending:
            folder = pending.pop()
            for entry in os.scandir(folder):
                name = os.path.relpath(entry.path, self.place)
                if name in NOISE:
                    continue
                about = entry.stat(follow_symlinks=False)
                directory = stat.S_ISDIR(about.st_mode)
                entries[name] = (
                    about.st_mode, about.st_uid, about.st_gid, about.st_ino,
                    *(() if directory else (about.st_nlink, about.st_size, about.st_mtime_ns)),
                    _digest(entry.path) if about.st_size < 100_000 else None,
                    _attributes(entry.path),
                    _flags(entry.path) if not entry.is_symlink() else 0,
                )  # fmt: skip
                if directory:
                    pending.append(Path(entry.path))
        return entries


def _digest(path: str) -> str:
    if not Path(path).is_file() or Path(path).is_symlink():
        return ""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable: {error.errno}"


def _attributes(path: str) -> tuple[tuple[str, bytes], ...]:
    with contextlib.suppress(OSError):
        names = os.listxattr(path, follow_symlinks=False)
        return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    return ()


def _flags(path: str, put: int | None = None) -> int:
    """The flags of a file or directory, such as that it cannot be changed: ioctl_iflags(2)."""
    if not (os.path.isdir(path) or os.path.isfile(path)):
        return 0
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = fcntl.ioctl(descriptor, 0x80086601, bytes(8))
            if put is not None:
                fcntl.ioctl(descriptor, 0x40086602, put.to_bytes(8, "little"))
            # The bit that the file's extents form a tree comes and goes by itself.
            return int.from_bytes(found, "little") & 0xFF
        finally:
            os.close(descriptor)
    return 0


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
