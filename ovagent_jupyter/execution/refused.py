"""The errors for a child that was not started, because its level cannot be set up."""

from __future__ import annotations

from ovagent_jupyter.errors import ConfinementError
from ovagent_jupyter.execution.executor import Isolation

UNAVAILABLE = frozenset({"namespaces", "root", "landlock", "seccomp", "no_new_privs", "seatbelt"})
"""Stages at which a system says that it does not offer a mechanism."""


def setup_failed(error: OSError) -> ConfinementError:
    """What the system refused before there was a child."""
    return ConfinementError(
        "The child kernel cannot be started.",
        cause="setup_failed",
        why=str(error),
        next_step="Check free space and permissions of that path.",
    )


def not_confined(level: Isolation, stage: str, why: str) -> ConfinementError:
    """What could not be set up of a level; nothing of the guest's has run."""
    return ConfinementError(
        f"The level {level.name.lower()!r} cannot be set up here: {stage}.",
        cause="unavailable" if stage in UNAVAILABLE else "setup_failed",
        probe={stage: why},
        why=why,
        next_step="Run `%ovagent doctor` to see what this machine can confine.",
    )
