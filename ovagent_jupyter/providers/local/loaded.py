"""The models that are loaded: one thread for each, shared by all who use it."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from ovagent_jupyter.providers.local.runner import DeviceConfig, ModelHandle, Progress, Runner

ENDS_WITHIN = 10.0
"""Seconds that a thread is waited for; only the loading of a model can take longer to stop."""


class Call(Protocol):
    """Something to be done with a model."""

    progress: Progress | None
    """Is told how far the loading is, if the model has to be loaded for this call."""

    def run(self, runner: Runner, handle: ModelHandle) -> None:
        """Do it, in the thread of the model; must not raise."""
        ...

    def fail(self, error: BaseException | None) -> None:
        """The model cannot be loaded; without an error, because it was closed."""
        ...

    def stop(self) -> None:
        """End as soon as possible; called from any thread."""
        ...


class _State:
    """What the thread of a model works with; apart from its owner, so that this can be freed."""

    def __init__(self, runner: Runner, model_id: str, device: DeviceConfig) -> None:
        self.runner, self.model_id, self.device = runner, model_id, device
        self.handle: ModelHandle | None = None
        self.thread: threading.Thread | None = None
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._running: Call | None = None
        self._closed = False
        # Keeps a call from being put in after the last one was taken out.
        self._lock = threading.Lock()

    def submit(self, call: Call) -> bool:
        """Put a call in; False when it is closed."""
        with self._lock:
            if self._closed:
                return False
            if self.thread is None:
                name = f"ovagent-model-{self.model_id[-32:]}"
                self.thread = threading.Thread(target=self._work, name=name, daemon=True)
                self.thread.start()
            self._calls.put(call)
        return True

    def end(self) -> None:
        """End the call that runs, and the thread; may be called twice."""
        with self._lock:
            self._closed = True
        running = self._running
        if running is not None:
            running.stop()
        self._calls.put(None)
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(ENDS_WITHIN)
        atexit.unregister(self.end)

    def _work(self) -> None:
        """Take one call after the other: that one thread does it is the lock of the model."""
        while not self._closed:
            try:
                call = self._calls.get(timeout=self.device.idle_unload if self.handle else None)
            except queue.Empty:
                self._unload()
                continue
            if call is None:
                break
            self._running = call
            self._take(call)
            self._running = None
            del call
        self._unload()
        while not self._calls.empty():
            rest = self._calls.get()
            if rest is not None:
                rest.fail(None)
        self.runner.leave()

    def _take(self, call: Call) -> None:
        if self._closed:
            call.fail(None)
            return
        try:
            if self.handle is None:
                self.handle = self.runner.load(self.model_id, self.device, call.progress)
                # Only now, as what is registered last runs first: MLX takes itself down at the
                # end of the process, and a thread that still uses it then aborts all.
                atexit.unregister(self.end)
                atexit.register(self.end)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the answer
            call.fail(error)
            return
        call.run(self.runner, self.handle)

    def _unload(self) -> None:
        """Free the model; the next call loads it again."""
        handle, self.handle = self.handle, None
        if handle is not None:
            self.runner.cleanup(handle)


class LoadedModel:
    """One model with its thread; both come with the first call.

    Args:
        runner: Runs it.
        model_id: What it is.
        device: What it may use, and when it is freed.
    """

    def __init__(self, runner: Runner, model_id: str, device: DeviceConfig) -> None:
        self._state = _State(runner, model_id, device)
        self._end = weakref.finalize(self, self._state.end)

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        return self._state.handle is not None

    def submit(self, call: Call) -> None:
        """Have something done with it, after what was submitted before."""
        if not self._state.submit(call):
            call.fail(None)

    def close(self) -> None:
        """Stop what runs, free the model and end the thread."""
        self._end()


class LoadedModels:
    """All models in memory: who asks for the same one twice gets the same one."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], LoadedModel] = {}
        self._users: dict[tuple[str, str], int] = {}
        # Protects the two tables: clients are made and closed in several threads.
        self._lock = threading.Lock()

    def borrow(
        self, runner: Runner, model_id: str, device: DeviceConfig
    ) -> tuple[LoadedModel, Callable[[], None]]:
        """A model, and how it is given back; the last one to do so closes it.

        Where it is in use already, it keeps the device that it has.
        """
        key = (runner.name, model_id)
        with self._lock:
            if key not in self._models:
                self._models[key] = LoadedModel(runner, model_id, device)
            self._users[key] = self._users.get(key, 0) + 1
        return self._models[key], lambda: self._give_back(key)

    def _give_back(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._users[key] -= 1
            if self._users[key]:
                return
            del self._users[key]
            model = self._models.pop(key)
        model.close()

    def __len__(self) -> int:
        return len(self._models)


MODELS = LoadedModels()
"""Those of this process: its memory holds each model once, whoever uses it."""
