"""A model client that runs a model in this process."""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from collections.abc import AsyncIterator
from uuid import uuid4

from ovagent_jupyter.errors import OVAgentError, ProviderError, RunnerNotAvailable
from ovagent_jupyter.messages import ToolCall
from ovagent_jupyter.providers.assembly import Assembly
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import ModelDelta, ModelRequest
from ovagent_jupyter.providers.local.answering import Answer, Begun, Ended, Failed, Item
from ovagent_jupyter.providers.local.call_text import CallProgress, whole_calls
from ovagent_jupyter.providers.local.loaded import MODELS, LoadedModel, LoadedModels
from ovagent_jupyter.providers.local.pipe import Pipe
from ovagent_jupyter.providers.local.readiness import runner_of
from ovagent_jupyter.providers.local.runner import (
    DeviceConfig,
    ModelHandle,
    Progress,
    Runner,
    RunnerChoice,
    ServerRunner,
    get_runner,
)
from ovagent_jupyter.providers.local.text_filter import Piece


class LocalClient:
    """Asks a model that runs in a thread of this process; made without loading anything.

    Calls of one model are answered one after the other, also those of several clients: they share
    the model and its thread, which end when the last client is closed or gone.

    Args:
        backend: Its model's id names the runner and the model: ``mlx/<folder or hub name>``.
        connections: Not needed; there is no network.
        device: What the model may use of the machine, and when it is freed.
        progress: Is told how far the loading is; called in the thread of the model.
        models: Those in memory.
    """

    def __init__(
        self,
        backend: Backend,
        connections: object = None,
        *,
        device: DeviceConfig | None = None,
        progress: Progress | None = None,
        models: LoadedModels = MODELS,
    ) -> None:
        del connections
        self.backend = backend
        self._device = device or DeviceConfig()
        self._progress = progress
        self._models = models
        self._borrowed: LoadedModel | None = None
        self._runner_name = ""
        # Protects the three fields above: first calls may come from two loops at once.
        self._lock = threading.Lock()
        self._give_back: weakref.finalize[[], LocalClient] | None = None

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelDelta]:
        """The answer as it is made.

        Raises:
            RunnerNotAvailable: A package, the model or memory is missing.
            StreamInterrupted: The model failed after a part of the answer.
            ProviderError: It failed before, or cannot take the request.
        """
        reader = _Reader(request, self.backend)
        pipe: Pipe[Item] = Pipe()
        model = self.backend.model
        call = Answer(
            request,
            pipe,
            window=model.window,
            smaller=model.window if model.window_known else None,
            longest=model.max_output,
            progress=self._progress,
        )
        try:
            loaded = self._model()
            reader.assembly.details["runner"] = self._runner_name
            loaded.submit(call)
            # Waiting for the model has no bound: it is loaded once, and its progress is told.
            reader.read(await pipe.get())
            clock = asyncio.get_running_loop().time
            end = clock() + self.backend.timeouts.total
            while not reader.ended:
                async with asyncio.timeout_at(end):
                    item = await pipe.get()
                reader.read(item)
                for delta in reader.assembly.take():
                    yield delta
                if clock() > end:  # what waits already comes without a wait
                    raise TimeoutError
            for delta in reader.close(call):
                yield delta
        except TimeoutError as error:
            raise reader.broken(self._too_slow(), call) from error
        except OVAgentError as error:
            raise reader.broken(error, call) from error.__cause__
        finally:
            pipe.close()

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._borrowed is not None and self._borrowed.loaded

    async def aclose(self) -> None:
        """Give the model back; the last one to do so ends its thread."""
        if self._give_back is not None:
            try:
                await asyncio.to_thread(self._give_back)
            except RuntimeError:
                # The process ends and begins no more threads: nothing else needs the loop.
                self._give_back()
        self._borrowed = None

    def _model(self) -> LoadedModel:
        """The loaded model, borrowed with the first call."""
        with self._lock:
            if self._borrowed is None:
                runner, choice = self._runner()
                self._runner_name = choice.runner
                self._borrowed, back = self._models.borrow(runner, choice.model_id, self._device)
                self._give_back = weakref.finalize(self, back)
            return self._borrowed

    def _runner(self) -> tuple[Runner, RunnerChoice]:
        choice = runner_of(self.backend)
        runner = get_runner(choice.runner)
        if isinstance(runner, ServerRunner):
            raise RunnerNotAvailable(
                f"The model {self.backend.model.id!r} does not run in this process.",
                why=f"{choice.runner} is a server, asked as the provider {runner.provider!r}.",
                next_step=f"Start it with `{runner.start.format(model=choice.model_id)}`, and "
                f"choose '{runner.provider}/{choice.model_id}'.",
            )
        return runner, choice

    def _too_slow(self) -> ProviderError:
        return ProviderError(
            "The local model took too long.",
            provider=self.backend.provider.id,
            fault="timeout",
            why=f"It had not ended its answer after {self.backend.timeouts.total:g} s.",
            next_step="Choose a smaller model, bound the answer, or raise the total timeout.",
        )


class _Reader:
    """Turns what comes out of the thread into pieces of an answer."""

    def __init__(self, request: ModelRequest, backend: Backend) -> None:
        self.assembly = Assembly(request, backend)
        self.assembly.response_id = f"local-{uuid4().hex[:12]}"
        self.ended = False
        self._request = request
        self._handle: ModelHandle | None = None
        self._call: CallProgress | None = None
        self._number: int | None = None

    def read(self, item: Item) -> None:
        """Take one item."""
        if isinstance(item, Failed):
            raise _fault(item.error, self.assembly.backend)
        if isinstance(item, Begun):
            self._handle = item.handle
        elif isinstance(item, Ended):
            self._end(item)
        elif item.kind == "text":
            self.assembly.text(item.text)
        elif item.kind == "thought":
            self.assembly.reasoning(item.text)
        else:
            self._call_piece(item)

    def close(self, call: Answer) -> list[ModelDelta]:
        """The last pieces of an answer that has ended."""
        self.assembly.usage = call.usage
        return self.assembly.close()

    def broken(self, error: OVAgentError, call: Answer) -> OVAgentError:
        """The failure of the answer, with what had come."""
        if not isinstance(error, ProviderError):
            return error
        # The runner does not know by which of our names it is asked.
        error.provider = self.assembly.backend.provider.id
        if call.usage.input_tokens:
            self.assembly.usage = call.usage
        return self.assembly.broken(error)

    def _call_piece(self, piece: Piece) -> None:
        if self._call is None:
            self._call = CallProgress()
        if piece.kind == "call_end":
            self._whole_call()
            return
        arguments = self._call.feed(piece.text)
        if self._number is None and self._call.name:
            self._number = self.assembly.begin_call(self._call.name)
        if self._number is not None:
            self.assembly.call_arguments(self._number, arguments)

    def _whole_call(self) -> None:
        """The text of a call is whole: read it, by the model's own format."""
        written, number = self._call, self._number
        self._call = self._number = None
        assert written is not None
        assert self._handle is not None
        handle = self._handle
        calls = whole_calls(written, lambda text: handle.parse_call(text, self._request.tools), str)
        if not calls and number is None:
            marks = handle.marks
            self.assembly.text(f"{marks.call_start}{written.text}{marks.call_end}")
        for call in calls:
            if number is None:
                number = self.assembly.begin_call(call.name)
            self.assembly.call_named(number, name=call.name)
            self._arguments(number, call)
            number = None

    def _arguments(self, number: int, call: ToolCall) -> None:
        """Set a call's arguments, unless what has come already is the same."""
        wanted = call.unreadable or json.dumps(dict(call.arguments), ensure_ascii=False)
        so_far = self.assembly.call_so_far(number)[2]
        try:
            same = json.loads(so_far) == dict(call.arguments) and not call.unreadable
        except ValueError:
            same = False
        if not same:
            self.assembly.call_arguments_whole(number, wanted)

    def _end(self, item: Ended) -> None:
        self.ended = True
        if item.call_open and item.finish == "stop":
            # Some models end a call with the answer, without its mark.
            self._call = self._call or CallProgress()
            self._whole_call()
        elif item.call_open and self._number is None:
            # The call is dropped, and told of.
            self.assembly.begin_call(self._call.name if self._call else "")
        if item.stopped_at is not None:
            self.assembly.details["stopped_at"] = item.stopped_at
        self.assembly.finish(item.finish)


def _fault(error: BaseException, backend: Backend) -> OVAgentError:
    """A failure in the thread as one of ours."""
    if isinstance(error, OVAgentError):
        return error
    memory = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
    return ProviderError(
        "The local model failed.",
        provider=backend.provider.id,
        fault="runner",
        why=f"{type(error).__name__}: {error}"[:300],
        next_step="Choose a smaller model or a shorter conversation."
        if memory
        else "Run it again; if it stays, look for the message in the runner's issues.",
    )
