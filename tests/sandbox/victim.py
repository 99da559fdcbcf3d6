"""Another process of the same user, with secrets, that nobody may read, signal or limit."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCRIPT = """
import ctypes, json, os, signal, sys, threading, time
memory, unlinked, hidden = json.loads(sys.stdin.readline())
seen = []
for number in range(1, 65):
    try:
        signal.signal(number, lambda number, frame: seen.append(number))
    except (OSError, ValueError):
        pass
buffer = ctypes.create_string_buffer(memory.encode(), 256)
file = os.open(unlinked, os.O_RDWR | os.O_CREAT, 0o600)
os.write(file, hidden.encode())
os.unlink(unlinked)
reading, writing = os.pipe()
os.write(writing, b"pipe-" + hidden.encode())
print(json.dumps({"address": ctypes.addressof(buffer), "file": file, "pipe": reading}), flush=True)
def answer():
    while line := sys.stdin.readline():
        kept = os.pread(file, 200, 0).decode("latin-1") == hidden
        text = {"signals": seen, "memory": buffer.value.decode("latin-1"), "file": kept}
        print(json.dumps(text), flush=True)
    os._exit(0)
threading.Thread(target=answer, daemon=True).start()
while True:
    time.sleep(0.2)
"""
"""Keeps three secrets, records every signal, and answers each line on its input."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_IOPRIO_GET = 252 if os.uname().machine == "x86_64" else 31
_LIMITS = ("RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_NPROC")


class Victim:
    """The process and what it was like when it was left alone.

    Args:
        place: A directory for the file it unlinks.
        silent: It answers nothing: for attacks that end it.
    """

    def __init__(self, place: Path) -> None:
        self.tokens = {
            f"victim_{name}": secrets.token_hex(12)
            for name in ("environment", "arguments", "memory", "file")
        }
        token = self.tokens
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", SCRIPT, token["victim_arguments"]],
            env={"API_TOKEN": token["victim_environment"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self._tell([token["victim_memory"], str(place / "unlinked"), token["victim_file"]])
        facts = self._heard()
        self.facts: Mapping[str, Any] = {
            "victim": self._process.pid,
            "victim_address": facts["address"],
            "victim_descriptor": facts["file"],
            "victim_pipe": facts["pipe"],
        }
        self._before = self._state()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def harm(self) -> str:
        """What was done to it, or nothing."""
        if self._process.poll() is not None:
            return f"the victim ended with {self._process.returncode}"
        try:
            now = self._state()
        except OSError:
            return "the victim is ending"
        before = self._before
        changed = {name: (before[name], now[name]) for name in now if now[name] != before[name]}
        if now["state"] == "stopped":
            return f"the victim is stopped; {changed}"
        try:
            self._tell("how are you")
            said = self._heard()
        except (OSError, ValueError):
            # It was alive when it was looked at.
            return "the victim ended"
        if said["signals"]:
            return f"the victim got signals {said['signals']}"
        if said["memory"] != self.tokens["victim_memory"] or not said["file"]:
            return "the victim's memory or file was changed"
        return f"the victim was changed: {changed}" if changed else ""

    def close(self) -> None:
        """End it."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # a debugger that still holds it is told first

    def _tell(self, thing: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(thing) + "\n")
        self._process.stdin.flush()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _state(self) -> dict[str, object]:
        place = Path("/proc", str(self.pid))
        status = dict(
            line.split(":\t", 1)
            for line in (place / "status").read_text().splitlines()
            if ":\t" in line
        )
        return {
            "state": "stopped" if status["State"][:1] in "tT" else "running",
            "traced": status["TracerPid"],
            "nice": os.getpriority(os.PRIO_PROCESS, self.pid),
            "processors": sorted(os.sched_getaffinity(self.pid)),
            "scheduler": os.sched_getscheduler(self.pid),
            "oom": (place / "oom_score_adj").read_text().strip(),
            "io": _LIBC.syscall(_IOPRIO_GET, 1, self.pid),
            "limits": [resource.prlimit(self.pid, getattr(resource, name)) for name in _LIMITS],
            "cgroup": (place / "cgroup").read_text(),
        }
