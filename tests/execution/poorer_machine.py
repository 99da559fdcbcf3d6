"""Runs code with some settings on a machine that lacks some system calls, and says how it went.

Only a process of its own can be such a machine: a filter that refuses calls cannot be taken off.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ovagent_jupyter.events import AgentEvent

NAMESPACES = {"unshare": errno.EPERM}
"""Without them no process can make namespaces, as in many containers."""
LANDLOCK = {"landlock_create_ruleset": errno.ENOSYS}
"""Without it there is no Landlock, as in kernels before 5.13."""
CODE = "print(6 * 7)"


def run_without(calls: Mapping[str, int], settings: Mapping[str, object]) -> dict[str, Any]:
    """How ``CODE`` went, run in a fresh process that lacks these system calls."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.execution.poorer_machine"],
        input=json.dumps([calls, settings]),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refuse(calls: Mapping[str, int]) -> None:
    """Let system calls fail from now on, in this process and all it starts."""
    from ovagent_jupyter.execution.sandbox import bpf, linux, seccomp

    numbers = seccomp.TABLES[os.uname().machine]
    program = bpf.Program()
    program.load(bpf.NUMBER)
    program.choose(
        {numbers[name]: bpf.fail(number) for name, number in calls.items()}, bpf.RET_ALLOW
    )
    linux.LIBC.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, linux/prctl.h
    seccomp.install(program.assemble())


async def attempt(settings: Mapping[str, object]) -> dict[str, object]:
    """Start what the settings want, run the code, and tell all."""
    from ovagent_jupyter.config import AgentConfig
    from ovagent_jupyter.errors import OVAgentError
    from ovagent_jupyter.execution.executor import ExecutionRequest
    from ovagent_jupyter.loop_thread import CallerThread
    from ovagent_jupyter.runtime import build_executor

    events: list[AgentEvent] = []
    config = AgentConfig.from_flat_kwargs(**settings)
    executor = build_executor(config, events.append, CallerThread())
    answer: dict[str, object] = {"stdout": "", "error": "", "lines": []}
    try:
        await executor.start()
        answer["stdout"] = (await executor.execute(ExecutionRequest(CODE, timeout=60))).stdout
    except OVAgentError as error:
        answer |= {"error": type(error).__name__, "lines": error.lines()}
    finally:
        await executor.shutdown()
    steps = [(e.data["requested"], e.data["actual"], e.level.value) for e in events]
    return answer | {"level": executor.isolation.name.lower(), "steps": steps}


def main(given: Sequence[Mapping[str, Any]]) -> None:
    """Be that machine, and print what happened as JSON."""
    calls, settings = given
    refuse(calls)
    json.dump(asyncio.run(attempt(settings)), sys.stdout)


if __name__ == "__main__":
    main(json.load(sys.stdin))
