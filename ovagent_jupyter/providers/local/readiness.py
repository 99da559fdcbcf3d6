"""Whether a model of this machine can be run: the packages, its files, and room for it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.local.memory import free_memory, gib, require_room, weights_size
from ovagent_jupyter.providers.local.model_files import look_for_model, window
from ovagent_jupyter.providers.local.runner import (
    RunnerChoice,
    ServerRunner,
    choose_runner,
    get_runner,
    runners,
)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is known of a model of this machine without loading it."""

    parts: tuple[str, ...]
    """What was found."""
    remedy: str = ""
    """What can be done; empty where all is well."""


def examine_local(backend: Backend) -> Readiness:
    """Look for what a model needs; loads and fetches nothing.

    Raises:
        RunnerNotAvailable: A package, the model or memory is missing.
    """
    choice = runner_of(backend)
    if choice.runner != "mlx":
        return Readiness((f"run by {choice.runner}",))
    from ovagent_jupyter.providers.local.mlx import require_packages

    require_packages()
    folder = look_for_model(choice.model_id)
    if folder is None:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
            remedy = "HF_HUB_OFFLINE is set: unset it, or fetch the model beforehand."
        else:
            remedy = "The first question fetches it; that can take minutes."
        return Readiness(("not on this machine yet",), remedy)
    size, free = weights_size(folder), free_memory()
    require_room(choice.model_id, size, None)
    told = window(folder)
    return Readiness(
        (
            f"window {told:,}, by its files" if told else "its files tell no window",
            f"weights {gib(size)}" + (f" of {gib(free)} free memory" if free is not None else ""),
        )
    )


def how_to_start(backend: Backend) -> str:
    """What starts the server of a model, where it is one that we know; else empty."""
    if backend.provider.id not in runners():
        return ""
    runner = get_runner(backend.provider.id)
    return runner.start.format(model=backend.model.id) if isinstance(runner, ServerRunner) else ""


def runner_of(backend: Backend) -> RunnerChoice:
    """The runner: the provider's, where it is called like one; else by the model.

    Raises:
        RunnerNotAvailable: Nothing tells which one.
    """
    if backend.provider.id in runners():
        return RunnerChoice(backend.provider.id, backend.model.id)
    return choose_runner(backend.model.id)
