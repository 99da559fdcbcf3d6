"""Puts the filter on itself and becomes another program: its level, an ABI, and a command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))

from ovagent_jupyter.execution.sandbox import linux, seccomp

if __name__ == "__main__":
    level, abi, *command = sys.argv[1:]
    profile = seccomp.profile_for(
        namespaces=level == "3", landlock_abi=int(abi), own_pid=os.getpid()
    )
    linux.drop_capabilities()
    linux.forbid_new_privileges()
    seccomp.install(seccomp.build_filter(linux.machine(), profile))
    os.execv(command[0], command)
