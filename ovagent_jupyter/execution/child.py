"""What runs as a child: ``python -P -m ovagent_jupyter.execution.child -f <connection file>``.

The supervisor starts it with a scrubbed environment, confined; see ``sandbox/launcher.py``. It is
nothing to start by hand: without that it would be a kernel like any other.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ovagent_jupyter.execution.environment import MARK

MODULE = "ovagent_jupyter.execution.child"


def command(python: str, connection_file: Path) -> list[str]:
    """The command that starts a child; ``-P`` keeps the working directory off ``sys.path``."""
    return [python, "-P", "-m", MODULE, "-f", str(connection_file)]


def main(arguments: list[str] | None = None) -> None:
    """Run the kernel, unless nobody has confined it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if MARK not in os.environ:
        sys.exit(
            "This kernel runs only below its supervisor, which confines it.\n"
            "Next: start the kernel 'ovagent-sandbox' with jupyter_client 7 or later."
        )
    from ovagent_jupyter.execution.child_kernel import run_kernel

    run_kernel(arguments)


if __name__ == "__main__":
    main()
