"""A question to a model: what it is told, its answer as it comes, and what that took."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.resources import files
from time import monotonic
from typing import Protocol

from ovagent_jupyter.agent.data_description import describe_data
from ovagent_jupyter.agent.turn import TurnRequest
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.events import Category, Emitter, Level
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.messages import Message, Role, TextPart
from ovagent_jupyter.providers.client import FinishReason, ModelDelta, ModelRequest, Reply

REMEMBERED = 12
"""Messages of earlier questions and answers of a session that go along."""
SHARE = 0.6
"""Of a model's window: what a request may take; the rest is for the answer."""
QUOTED = 4_000
"""Characters of each of them."""


class Model(Protocol):
    """What answers: ``gateway.Gateway`` is one."""

    name: str
    """For people: the model that is asked first."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user has to know of it, told once in a session."""
        ...

    @property
    def window(self) -> int:
        """Tokens that a conversation may have, its answer included."""
        ...

    def call(self, call: Call) -> AsyncGenerator[ModelDelta, None]:
        """The answer to one call as it comes; raises ``ProviderError``."""
        ...

    def estimate(self, request: ModelRequest) -> str:
        """What asking would cost, as a sentence."""
        ...

    async def aclose(self) -> None:
        """End what is open."""
        ...


class ModelSource(Protocol):
    """Gives the model that settings name."""

    def __call__(self, config: AgentConfig, *, dry: bool = False) -> Model:
        """The model; ``dry`` is for an estimate, which needs no key.

        Raises:
            ProviderError: It is not known, or has no key.
            ConfigError: An address cannot be used.
        """
        ...


class Conversation:
    """The questions of one session and their answers."""

    def __init__(self) -> None:
        self._said: list[Message] = []

    def request(self, model: Model, asked: TurnRequest) -> ModelRequest:
        """What the model is asked: rules, what is known of the data, what was said, the question.

        Raises:
            DataError: A name of the question is not there.
        """
        rules = files(__package__).joinpath("prompts/ask.md").read_text("utf-8")
        known = describe_data(asked)
        system = f"{rules}\nThe data of the user:\n\n{known}" if known else rules
        first, last = _message("system", system), _message("user", asked.text)
        said = list(self._said)
        while said and _tokens([first, *said, last]) > model.window * SHARE:
            del said[:2]  # the oldest question and its answer
        return ModelRequest(model=model.name, messages=(first, *said, last))

    def remember(self, question: str, answer: str) -> None:
        """Keep a question and its answer for the next one."""
        said = [_message("user", question[:QUOTED]), _message("assistant", answer[:QUOTED])]
        self._said = [*self._said, *said][-REMEMBERED:]


async def ask(
    model: Model,
    request: ModelRequest,
    ids: tuple[str, str],
    emit: Emitter,
    *,
    seconds: float | None = None,
) -> Reply:
    """Ask, and tell of each piece as it comes.

    Args:
        model: Who is asked.
        request: What is asked.
        ids: Of the session and of the turn.
        emit: Hears of it.
        seconds: The most that all of it may take; None for the gateway's own limit.

    Raises:
        ProviderError: There is no whole answer; of what came, everything was told.
    """
    deadline = None if seconds is None else monotonic() + seconds
    call = Call(request=request, session_id=ids[0], turn_id=ids[1], tell=emit, deadline=deadline)
    emit(Category.MODEL_ASKED, f"asking {model.name} …", model=model.name, call_id=call.call_id)
    reply: Reply | None = None
    async with aclosing(model.call(call)) as deltas:
        async for delta in deltas:
            if delta.text or delta.reasoning:
                emit(Category.MODEL_DELTA, "", text=delta.text, reasoning=delta.reasoning)
            reply = delta.reply or reply
    assert reply is not None  # the contract of a stream, which the gateway keeps
    refusal = reply.details.get("refusal")
    if refusal and not reply.message.text:
        emit(Category.MODEL_DELTA, "", text=str(refusal), reasoning="")
    for note in _notes(reply):
        emit(Category.NOTICE, note, level=Level.WARNING)
    return reply


def _notes(reply: Reply) -> list[str]:
    """What a reader has to know of an answer that is not as it should be."""
    notes = [_CUT[reply.finish_reason]] if reply.finish_reason in _CUT else []
    calls = [call.name for call in reply.message.tool_calls]
    if calls:
        notes.append(f"It wanted to call {', '.join(map(str, calls))}: an answer in words cannot.")
    if not reply.message.text and not calls and reply.finish_reason == "stop":
        notes.append("The answer is empty.")
    return notes


_CUT: dict[FinishReason, str] = {
    "length": "The answer was cut at its longest: as max_output_tokens says, or the window allows.",
    "context_full": "The conversation has filled the model's window; the answer is cut. "
    "Another session begins anew.",
    "paused": "The model has paused; what it said so far is not the whole answer.",
    "refused": "The model, or a filter of its service, has refused to answer.",
}
"""What a reader has to know of an answer that is not whole."""


def _tokens(messages: list[Message]) -> int:
    from ovagent_jupyter.gateway.partial import estimated_input

    return estimated_input(ModelRequest(model="", messages=tuple(messages)))


def _message(role: Role, text: str) -> Message:
    return Message(role, (TextPart(text),))
