"""A question to a model: what it is told, its answer as it comes, and what that took."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from importlib.resources import files
from typing import Protocol

from ovagent_jupyter.agent.choose_data import choose_inputs
from ovagent_jupyter.agent.turn import TurnRequest
from ovagent_jupyter.config.schema import AgentConfig
from ovagent_jupyter.events import Category, Emitter, Level
from ovagent_jupyter.gateway.layer import Call
from ovagent_jupyter.messages import Message, Role, TextPart
from ovagent_jupyter.providers.client import FinishReason, ModelDelta, ModelRequest, Reply

REMEMBERED = 12
"""Messages of earlier questions and answers of a session that go along."""
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

    def call(self, call: Call) -> AsyncGenerator[ModelDelta, None]:
        """The answer to one call as it comes; raises ``ProviderError``."""
        ...

    def estimate(self, request: ModelRequest) -> str:
        """What asking would cost, as a sentence."""
        ...

    async def aclose(self) -> None:
        """End what is open."""
        ...


ModelSource = Callable[[AgentConfig], Model]
"""Gives the model that settings name; raises ``ProviderError`` or ``ConfigError``."""


class Conversation:
    """The questions of one session and their answers."""

    def __init__(self) -> None:
        self._said: list[Message] = []

    def request(self, model: Model, asked: TurnRequest) -> ModelRequest:
        """What the model is asked: rules, what is known of the data, what was said, the question.

        Raises:
            DataError: A name of the question is not there, or several objects could be meant.
        """
        rules = files(__package__).joinpath("prompts/ask.md").read_text("utf-8")
        known = describe_data(asked)
        system = f"{rules}\nThe data of the user:\n\n{known}" if known else rules
        said = [_message("system", system), *self._said, _message("user", asked.text)]
        return ModelRequest(model=model.name, messages=tuple(said))

    def remember(self, question: str, answer: str) -> None:
        """Keep a question and its answer for the next one."""
        said = [_message("user", question[:QUOTED]), _message("assistant", answer[:QUOTED])]
        self._said = [*self._said, *said][-REMEMBERED:]


async def ask(model: Model, request: ModelRequest, ids: tuple[str, str], emit: Emitter) -> Reply:
    """Ask, and tell of each piece as it comes.

    Args:
        model: Who is asked.
        request: What is asked.
        ids: Of the session and of the turn.
        emit: Hears of it.

    Raises:
        ProviderError: There is no whole answer; of what came, everything was told.
    """
    call = Call(request=request, session_id=ids[0], turn_id=ids[1], tell=emit)
    emit(Category.MODEL_ASKED, f"asking {model.name} …", model=model.name, call_id=call.call_id)
    reply: Reply | None = None
    async with aclosing(model.call(call)) as deltas:
        async for delta in deltas:
            if delta.text or delta.reasoning:
                emit(Category.MODEL_DELTA, "", text=delta.text, reasoning=delta.reasoning)
            reply = delta.reply or reply
    assert reply is not None  # the contract of a stream, which the gateway keeps
    if reply.finish_reason in _CUT:
        emit(Category.NOTICE, _CUT[reply.finish_reason], level=Level.WARNING)
    refusal = reply.details.get("refusal")
    if refusal and not reply.message.text:
        emit(Category.MODEL_DELTA, "", text=str(refusal), reasoning="")
    return reply


_CUT: dict[FinishReason, str] = {
    "length": "The answer was cut at its longest; --max-tokens N allows another length.",
    "context_full": "The conversation has filled the model's window; the answer is cut. "
    "%ovagent session NAME begins anew.",
    "refused": "The model, or a filter of its service, has refused to answer.",
}
"""What a reader has to know of an answer that is not whole."""


def describe_data(asked: TurnRequest) -> str:
    """What a model is told of the data: names, sizes and levels, no values of cells."""
    main, _ = choose_inputs(asked.text, asked.namespace, asked.inputs)
    if main is None:
        return ""
    from ovagent_jupyter.omics import describe
    from ovagent_jupyter.omics.summary import summarize

    return summarize(describe(asked.namespace[main], main))


def _message(role: Role, text: str) -> Message:
    return Message(role, (TextPart(text),))
