"""What the code of a plan does to the user's work, said before it runs: advice, not a boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovagent_jupyter.execution.preflight import EffectKind, effects_of

if TYPE_CHECKING:
    from ovagent_jupyter.agent.prepare import Prepared


def effects_of_plan(prepared: Prepared) -> tuple[str, ...]:
    """The effects in a few words each, in the order of the code, each once."""
    named = [str(path) for path in prepared.read]
    texts = [
        effect.text
        for effect in effects_of(prepared.plan.code, inputs=named)
        # The user named the file in the request: to say so again is no news.
        if effect.kind is not EffectKind.READ_OUTSIDE
        or not any(path in effect.text for path in named)
    ]
    texts += [f"writes {file.target}" for file in prepared.saved]
    return tuple(dict.fromkeys(texts))
