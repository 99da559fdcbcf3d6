"""Stands outside the child and sees what an attack did, without a word of the child's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.sandbox.home import Home
from tests.sandbox.listeners import Listeners
from tests.sandbox.otherkernel import OtherKernel
from tests.sandbox.processes import Processes
from tests.sandbox.segments import Segments
from tests.sandbox.victim import Victim

OWN_SECRETS = ("parent", "other_file", "chatter", "stdin", "inherited")
PARENT_SECRET = "OPENAI_API_KEY"
"""A variable of the user's kernel that no child may get."""


class Witness:
    """Everything the user has that a child must leave alone.

    Args:
        base: A directory of the user's; its name must be short, as sockets lie in it.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.word = f"esc{secrets.token_hex(6)}"
        self.processes = Processes()
        self.home = Home(base / "home")
        self._bus = base / "bus"
        self._bus.mkdir(exist_ok=True)
        self.listeners = Listeners(self._bus, self.word)
        self.segments = Segments(self.word)
        self.victim = self._new_victim()
        self.kernel = OtherKernel(Path(self.home.place))
        self.processes.ours.add(self.kernel.pid)
        self.other_file = base / "tmp" / f"{self.word}-other-program"
        self._own = {name: secrets.token_hex(12) for name in OWN_SECRETS}
        self.other_file.write_text(self._own["other_file"])
        self.granted = base / "granted.txt"
        self.granted.write_text("granted\n")
        # Put there before this process began, as its environment in /proc is that of its start.
        self._own["parent"] = os.environ.get(PARENT_SECRET, "not there")
        self.stdio = base / "stdio.log"
        self._open_descriptors()
        self._signals = 0
        signal.signal(signal.SIGUSR2, self._count_signal)
        self._devices = _times_of_devices()
        self._modes = _modes_of_devices()
        self._chatter = Chatter(Path(self.home.place, "inbox"), self._own["chatter"])
        self._whole = dict(self._granted_state())

    @property
    def tokens(self) -> dict[str, str]:
        """Every secret by name."""
        return {
            **self._own,
            **self.home.tokens,
            **self.victim.tokens,
            **self.segments.tokens,
            **self.kernel.tokens,
        }

    def facts(self, tag: str) -> dict[str, Any]:
        """What the attacker knows: where everything is."""
        return {
            "tag": tag,
            "base": str(self.base),
            "harness": os.getpid(),
            "disk": os.stat("/").st_dev,
            "other_file": str(self.other_file),
            "granted": str(self.granted),
            "chatter": self._chatter.port,
            "stdio": str(self.stdio),
            **self.home.facts,
            **self.listeners.facts,
            **self.segments.facts,
            **self.victim.facts,
            **self.kernel.facts,
        }

    def mark(self) -> None:
        """Look at everything before an attack."""
        self.processes.mark()
        self._devices = _times_of_devices()

    def devices_touched(self) -> str:
        """Which of the shared devices was changed since the mark."""
        now = _times_of_devices()
        changed = [name for name in now if now[name] != self._devices[name]]
        return f"{changed[0]} was changed for everybody" if changed else ""

    def mend_devices(self) -> str:
        """Undo at once what would stop every other program of the machine."""
        now = _modes_of_devices()
        broken = [name for name in DEVICES if now[name] != self._modes[name]]
        for name in broken:
            with contextlib.suppress(OSError):
                os.chmod(name, self._modes[name])
        return f"the mode of {broken[0]} was changed" if broken else ""

    def harm(self, tag: str) -> str:
        """Anything at all that was done to what the user has."""
        return (
            self.home.harm()
            or self.victim.harm()
            or self.listeners.got(tag)
            or self.segments.harm(tag)
            or self.kernel.harm()
            or self._granted_harm()
        )

    def leaked(self, name: str, text: str) -> str:
        """Whether a secret is in a text, as it is or as its hash."""
        token = self.tokens[name]
        return f"the secret {name!r} came out" if token in text else ""

    def hashed(self, path: str, text: str, size: int = 4096) -> str:
        """Whether the beginning of a file of the system was read: its hash is in the text."""
        try:
            with Path(path).open("rb") as file:
                content = file.read(size)
        except OSError:
            return ""
        return f"{path} was read" if hashlib.sha256(content).hexdigest() in text else ""

    def restore(self) -> None:
        """Put everything back for the next attack."""
        if self.home.harm():
            self.home.restore()
        if self.victim.harm():
            self.victim.close()
            self.victim = self._new_victim()
        if self._granted_harm():
            self.granted.unlink(missing_ok=True)
            self.granted.write_text("granted\n")
            self._whole = dict(self._granted_state())
        self.kernel.restore()
        self.segments.restore()

    def close(self) -> None:
        """End and remove everything."""
        self._chatter.close()
        self.kernel.close()
        self.victim.close()
        self.listeners.close()
        self.segments.close()

    def stdio_text(self) -> str:
        """What this process wrote to its own output, or somebody else did."""
        return self.stdio.read_text("utf-8", "replace")

    def _open_descriptors(self) -> None:
        """Have standard streams and careless descriptors, as a user's kernel may."""
        inputs = self.base / "stdin"
        inputs.write_text(self._own["stdin"])
        os.dup2(os.open(inputs, os.O_RDONLY), 0)
        output = os.open(self.stdio, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(output, number)
        careless = self.base / "careless"
        careless.write_text(self._own["inherited"])
        for place in (careless, self.home.place):
            os.set_inheritable(os.open(place, os.O_RDONLY), True)

    def signalled(self) -> bool:
        """Whether this process got the signal that attacks send to a parent, since asked last."""
        time.sleep(0.02)
        signals, self._signals = self._signals, 0
        return signals > 0

    def _count_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def tree(self) -> list[psutil.Process]:
        """The processes of the child."""
        return self.processes.all()

    def _new_victim(self) -> Victim:
        victim = Victim(self.base)
        self.processes.ours.add(victim.pid)
        return victim

    def _granted_state(self) -> dict[str, object]:
        about = self.granted.stat()
        return {
            "text": self.granted.read_bytes(), "mode": about.st_mode, "changed": about.st_mtime_ns,
            "links": about.st_nlink,
        }  # fmt: skip

    def _granted_harm(self) -> str:
        try:
            same = self._granted_state() == self._whole
        except OSError:
            same = False
        return "" if same else "a file granted for reading was changed"


DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def _times_of_devices() -> dict[str, int]:
    """When each device was changed last."""
    return {name: os.stat(name).st_ctime_ns for name in DEVICES}


def _modes_of_devices() -> dict[str, int]:
    """Who may do what with each device; not every machine has them as usual."""
    return {name: stat.S_IMODE(os.stat(name).st_mode) for name in DEVICES}


class Chatter:
    """What happens on the machine while the child runs: packets, and files that come and go."""

    def __init__(self, folder: Path, token: str) -> None:
        self._folder = folder
        self._token = token
        self._stopped = threading.Event()
        self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind(("127.0.0.1", 0))
        self._receiver.setblocking(False)
        self.port = self._receiver.getsockname()[1]
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stopped.set()
        self._thread.join()
        self._receiver.close()

    def _talk(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not self._stopped.wait(0.05):
                with contextlib.suppress(OSError):
                    sender.sendto(self._token.encode(), ("127.0.0.1", self.port))
                    self._receiver.recv(1000)
                path = self._folder / self._token
                path.write_text("mail")
                path.unlink()
