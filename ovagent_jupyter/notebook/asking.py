"""Asking the user for a yes: in the notebook's input field, or in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ovagent_jupyter.errors import SandboxDeniedError, TurnInterrupted
from ovagent_jupyter.loop_thread import interruptible

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

YES = frozenset({"y", "yes"})


class Asker:
    """Asks in the thread of the cell; where nobody can answer, nothing is allowed.

    Args:
        shell: IPython.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell

    def __call__(self, question: str) -> bool:
        """Whether the user says yes.

        Raises:
            SandboxDeniedError: Nobody can be asked, as in a notebook that is run headless.
            TurnInterrupted: The user pressed Ctrl-C instead of answering.
        """
        from IPython.core.error import StdinNotImplementedError

        if not hasattr(self._shell, "kernel") and not sys.stdin.isatty():
            raise _nobody(question)
        try:
            with interruptible():
                answer = input(f"{question} [y/N] ")
        except (EOFError, StdinNotImplementedError):
            raise _nobody(question) from None
        except KeyboardInterrupt:
            raise TurnInterrupted("Stopped. Nothing was allowed.") from None
        return answer.strip().lower() in YES


def _nobody(question: str) -> SandboxDeniedError:
    return SandboxDeniedError(
        "This needs your yes, and nobody can be asked here.",
        why=f"The question was: {' '.join(question.split())}",
        next_step="Set it in your settings file or the environment, where only you write: "
        "OVAGENT_SANDBOX_READ, OVAGENT_FALLBACK_FLOOR …; OVAGENT_APPROVE=never approves code.",
    )
