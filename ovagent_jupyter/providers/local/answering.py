"""One answer of a local model: what is done in its thread, and what comes out of it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.messages import Usage
from ovagent_jupyter.providers.client import ModelRequest
from ovagent_jupyter.providers.local.pipe import Pipe
from ovagent_jupyter.providers.local.rendering import wanted_tools, with_schema
from ovagent_jupyter.providers.local.runner import (
    GenerationConfig,
    ModelHandle,
    Progress,
    Runner,
    TokenEvent,
)
from ovagent_jupyter.providers.local.text_filter import Piece, TextFilter

UNBOUNDED = 1 << 20
"""Tokens of an answer where neither the request nor the model says how many there may be."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The model is loaded and begins."""

    handle: ModelHandle


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is whole, or as long as it may be."""

    finish: Literal["stop", "length"]
    stopped_at: str | None
    """The stop text that ended it."""
    call_open: bool
    """Whether it ended within a call."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The model could not be loaded, or failed."""

    error: BaseException


Item = Begun | Piece | Ended | Failed


def closed() -> ProviderError:
    """Says that a model has been given back while somebody still asked it."""
    return ProviderError(
        "The local model was closed.",
        provider="local",
        fault="runner",
        retryable=True,
        next_step="Run it again; the model is loaded anew.",
    )


class Answer:
    """A call of a local model: run by the thread of the model, read by a loop.

    Args:
        request: What is asked.
        pipe: Where the answer goes.
        window: Tokens that the conversation may have, where the model itself does not say.
        smaller: A bound on that, where somebody says so.
        longest: Tokens of an answer where the request does not say; None is what there is room for.
        progress: Is told how far the loading is.
    """

    def __init__(
        self,
        request: ModelRequest,
        pipe: Pipe[Item],
        *,
        window: int,
        smaller: int | None = None,
        longest: int | None,
        progress: Progress | None = None,
    ) -> None:
        self.progress = progress
        self.ended = threading.Event()
        """Set once the thread of the model is done with it."""
        self._request, self._pipe = request, pipe
        self._window, self._smaller, self._longest = window, smaller, longest
        self._read = self._cached = self._made = self._thought = 0

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(
            self._read, self._made, cached_tokens=self._cached, reasoning_tokens=self._thought
        )

    def run(self, runner: Runner, handle: ModelHandle) -> None:
        """Make the answer, unless nobody wants it any more."""
        try:
            if self._pipe.put(Begun(handle)):
                self._answer(runner, handle)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the answer
            self._pipe.put(Failed(error))
        finally:
            self.ended.set()

    def fail(self, error: BaseException | None) -> None:
        """Say that there is no model."""
        self._pipe.push(Failed(error or closed()))
        self.ended.set()

    def stop(self) -> None:
        """The model is closed: say so once, and make no more."""
        self._pipe.push(Failed(closed()))
        self._pipe.close()

    def _answer(self, runner: Runner, handle: ModelHandle) -> None:
        prompt, config = self._prepare(runner, handle)
        sorted_out = TextFilter(
            handle.marks, self._request.stop, thinking=handle.starts_thinking(prompt)
        )
        events = runner.generate(handle, prompt, config, self._pipe.cancel)
        finish: Literal["stop", "length"] = "stop"
        try:
            for event in events:
                self._count(event, sorted_out)
                if not all(map(self._pipe.put, sorted_out.feed(event.text))):
                    return
                if event.finish == "length":
                    finish = "length"
                if sorted_out.stopped is not None:
                    finish = "stop"
                    break
        finally:
            if isinstance(events, Generator):
                events.close()
        if self._pipe.cancel.cancelled:
            return
        if not all(map(self._pipe.put, sorted_out.end())):
            return
        self._pipe.put(Ended(finish, sorted_out.stopped, sorted_out.mode == "call"))

    def _prepare(self, runner: Runner, handle: ModelHandle) -> tuple[list[int], GenerationConfig]:
        """The prompt, and how long its answer may be."""
        request = self._request
        messages = with_schema(request.messages, request.answer_schema)
        thinking = None if not request.reasoning_effort else request.reasoning_effort != "none"
        prompt = runner.render(handle, messages, wanted_tools(request), thinking=thinking)
        self._read = len(prompt)
        window = handle.window or self._window
        window = min(window, self._smaller or window)
        room = window - len(prompt)
        if room <= 0:
            raise ProviderError(
                "The conversation is longer than the window of the local model.",
                provider="local",
                fault="context_full",
                why=f"It has {len(prompt)} tokens, and the model takes {window}.",
                next_step="Start a new session, or choose a model with a larger window.",
            )
        longest = request.max_output_tokens or self._longest or UNBOUNDED
        config = GenerationConfig(
            max_tokens=min(longest, room), temperature=request.temperature, seed=request.seed
        )
        return prompt, config

    def _count(self, event: TokenEvent, sorted_out: TextFilter) -> None:
        self._made += 1
        self._cached = event.cached_tokens
        self._thought += sorted_out.mode == "thought"
