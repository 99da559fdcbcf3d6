"""Answers that have to be JSON: read, checked against their schema, asked for once more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from ovagent_jupyter.errors import ConfigError, ProviderError
from ovagent_jupyter.gateway.layer import Call, Next
from ovagent_jupyter.gateway.transforms import find_json, with_text, without_text
from ovagent_jupyter.messages import Message, TextPart, Usage
from ovagent_jupyter.providers.client import AnswerSchema, ModelDelta, ModelRequest, Reply

SHOWN = 200
"""Characters of what is wrong."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """An answer that is what it has to be."""

    text: str
    value: object


class Validation:
    """Sees to it that an answer to a request with a schema is JSON that fits it.

    The text is passed on once it is known to fit. One that does not is asked for once more, with
    the reason; what both took is added up. The JSON is the whole text of the reply, and as a value
    ``details["json"]``; after a second answer, ``details["repaired"]`` is what was wrong at first.

    Args:
        repairs: How often an answer is asked for again; 0 never.
    """

    def __init__(self, repairs: int = 1) -> None:
        self._repairs = repairs

    def __call__(self, call: Call, call_next: Next) -> AsyncGenerator[ModelDelta, None]:
        """Pass on the answer; one without a schema as it comes."""
        schema = call.request.answer_schema
        return call_next(call) if schema is None else self._checked(call, call_next, schema)

    async def _checked(
        self, call: Call, call_next: Next, schema: AnswerSchema
    ) -> AsyncGenerator[ModelDelta, None]:
        """The answer, checked.

        Raises:
            ConfigError: The schema is none.
            ProviderError: The answer is not what it has to be; ``partial`` is what it is.
        """
        # A schema that is none is told before anything is paid for; imports take a while.
        await asyncio.to_thread(_misfit, {}, schema)
        problems: list[str] = []
        before: list[Reply] = []
        asked = call
        while True:
            last: ModelDelta | None = None
            try:
                async with aclosing(call_next(asked)) as deltas:
                    async for delta in without_text(deltas):
                        last = delta
                        if delta.reply is None:
                            yield delta
            except ProviderError as error:
                _add_spent(error, before)
                raise
            if last is None or last.reply is None:
                return  # no last piece: whoever collects says so
            checked, problem = _check(last.reply, schema)
            if not problem:
                break
            problems.append(problem)
            before.append(last.reply)
            if len(before) > self._repairs or last.reply.finish_reason == "length":
                raise _malformed(problem, before)
            asked = replace(call, request=_again(call.request, last.reply, problem))
        whole = _together(last.reply, before, problems, checked)
        if whole.message.text:
            yield ModelDelta(text=whole.message.text)
        yield replace(last, reply=whole)


def _check(reply: Reply, schema: AnswerSchema) -> tuple[_Checked | None, str]:
    """The JSON of an answer, or what is wrong with it; a call or a refusal is not looked at."""
    if reply.finish_reason not in ("stop", "length"):
        return None, ""
    if not reply.message.text.strip():
        return None, "it is empty."
    try:
        text, value = find_json(reply.message.text)
    except ValueError as error:
        return None, f"it is no JSON: {error}."
    problem = _misfit(value, schema)
    return (None, problem) if problem else (_Checked(text, value), "")


def _misfit(value: object, schema: AnswerSchema) -> str:
    """In what a value does not fit a schema; empty where it does.

    Raises:
        ConfigError: The schema is none.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    rules = dict(schema.schema)
    kind: Any = validator_for(rules, default=Draft202012Validator)
    # Its own registry is empty: a $ref to an address is an error, and nothing is fetched.
    empty: Any = Registry()
    try:
        kind.check_schema(rules)
        worst = best_match(kind(rules, registry=empty).iter_errors(value))
    except (SchemaError, Unresolvable) as error:
        raise ConfigError(
            f"The schema {schema.name!r} cannot be used.",
            why=_short(str(getattr(error, "message", "") or error)),
            next_step="Correct it: a JSON schema whose references are inside of it.",
        ) from error
    return "" if worst is None else f"at {worst.json_path}: {_short(worst.message)}."


def _short(text: str) -> str:
    """The beginning of a text that may quote a whole answer."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@cache
def _repair_prompt() -> str:
    return files(__package__).joinpath("prompts/repair.md").read_text("utf-8").strip()


def _again(request: ModelRequest, reply: Reply, problem: str) -> ModelRequest:
    """The request for a better answer."""
    said = (reply.message,) if reply.message.text.strip() else ()
    wish = Message("user", (TextPart(_repair_prompt().replace("{error}", problem)),))
    choice = "none" if request.tools else request.tool_choice
    return replace(request, messages=(*request.messages, *said, wish), tool_choice=choice)


def _together(
    reply: Reply, before: Sequence[Reply], problems: Sequence[str], checked: _Checked | None
) -> Reply:
    """The last answer, with what all of them took."""
    details = dict(reply.details)
    message = reply.message
    if checked is not None:
        details["json"] = checked.value
        if checked.text != message.text:
            message = with_text(message, checked.text)
    if problems:
        details["repaired"] = "; ".join(problems)
    usage, cost = _spent((*before, reply))
    latency = sum(each.latency for each in (*before, reply))
    return replace(reply, message=message, usage=usage, cost=cost, latency=latency, details=details)


def _spent(replies: Sequence[Reply]) -> tuple[Usage, float | None]:
    usage = sum((reply.usage for reply in replies), Usage())
    costs = [reply.cost for reply in replies if reply.cost is not None]
    return usage, sum(costs) if len(costs) == len(replies) else None


def _add_spent(error: ProviderError, before: Sequence[Reply]) -> None:
    """Add to a failure of the second call what the first one took."""
    if not before:
        return
    usage, cost = _spent(before)
    if not isinstance(error.usage, Usage):
        error.usage, error.cost = usage, cost
    else:
        error.usage = usage + error.usage
        error.cost = None if cost is None or error.cost is None else cost + error.cost
    error.partial = error.partial or before[-1].message


def _malformed(problem: str, replies: Sequence[Reply]) -> ProviderError:
    reply = replies[-1]
    cut = reply.finish_reason == "length"
    usage, cost = _spent(replies)
    error = ProviderError(
        "The model did not give the JSON that it was asked for.",
        provider=reply.provider,
        fault="malformed",
        usage=usage,
        why="The answer was cut at its bound." if cut else f"Of its answer: {problem}",
        next_step="Raise max_output_tokens." if cut else "Ask another model, or a simpler schema.",
    )
    error.cost, error.partial = cost, reply.message
    return error
