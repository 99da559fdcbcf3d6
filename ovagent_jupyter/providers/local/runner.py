"""What runs a model in this process: the protocol of a runner, its data, and the table of them."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from ovagent_jupyter.errors import RunnerNotAvailable
from ovagent_jupyter.messages import Message
from ovagent_jupyter.providers.client import ToolSchema
from ovagent_jupyter.registry import Registry

HUB_FOLDERS = ("mlx-community/",)
"""Where on the model hub weights for MLX are; an id of theirs needs no ``mlx/`` before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerCapabilities:
    """What a runner can do."""

    tools: bool = True
    """Whether it renders tools and parses calls of them."""
    thinking: bool = True
    """Whether it tells thoughts from answers."""
    prompt_cache: bool = False
    """Whether it remembers what it has read, for the next turn."""
    max_concurrency: int = 1
    """Calls of one model at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """What a model may use of the machine."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where it computes."""
    memory: int | None = None
    """Bytes it may fill with weights; None is what the machine has free."""
    cached_prompts: int = 4
    """Conversations whose prompts are remembered."""
    idle_unload: float | None = 900.0
    """Seconds after its last call until the model is freed; None keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """How an answer is made; None is the model's own way."""

    max_tokens: int = 4096
    """Bound on the answer."""
    temperature: float | None = None
    """0 takes the likeliest token each time."""
    top_p: float | None = None
    """Share of the probability that tokens are drawn from."""
    top_k: int | None = None
    """Number of likeliest tokens that are drawn from."""
    min_p: float | None = None
    """Least probability, as a share of the likeliest one's."""
    repetition_penalty: float | None = None
    """Above 1 makes tokens that were said already less likely."""
    seed: int | None = None
    """For the same answer again."""


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far the loading of a model is."""

    model_id: str
    done: int
    """Bytes."""
    total: int
    """Bytes."""


Progress = Callable[[LoadProgress], None]
"""Takes the progress of a load; called in the model's thread."""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One token that was made."""

    text: str
    """What can be shown of the answer since the last one; may be empty."""
    token: int
    finish: Literal["", "stop", "length"] = ""
    """Set on the last one: it ended by itself, or at the bound."""
    cached_tokens: int = 0
    """Tokens of the prompt that did not have to be read again."""


class CancelToken:
    """A flag that ends a generation; looked at between two tokens."""

    __slots__ = ("_flag",)

    def __init__(self) -> None:
        self._flag = threading.Event()

    def cancel(self) -> None:
        """End the generation; may be called in any thread, and twice."""
        self._flag.set()

    @property
    def cancelled(self) -> bool:
        """Whether it shall end."""
        return self._flag.is_set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What a model writes around its thoughts and its calls."""

    think_start: str = "<think>"
    think_end: str = "</think>"
    call_start: str = "<tool_call>"
    call_end: str = "</tool_call>"
    """Empty where a call ends with the answer."""


class ModelHandle(Protocol):
    """A model that is loaded."""

    @property
    def model_id(self) -> str:
        """What it was loaded by."""
        ...

    @property
    def marks(self) -> Marks:
        """What it writes around thoughts and calls."""
        ...

    @property
    def window(self) -> int | None:
        """Tokens that a conversation may have; None when the model does not say."""
        ...

    def starts_thinking(self, prompt: Sequence[int]) -> bool:
        """Whether an answer to this prompt begins as a thought, without a mark."""
        ...

    def parse_call(
        self, text: str, tools: Sequence[ToolSchema]
    ) -> Sequence[tuple[str, Mapping[str, object]]]:
        """Name and arguments of each call in the text between the marks.

        Raises:
            ValueError: It is none.
        """
        ...


class Runner(Protocol):
    """An engine that runs models in this process; called from one thread for each model."""

    name: ClassVar[str]
    capabilities: RunnerCapabilities

    def load(
        self, model_id: str, device: DeviceConfig, progress: Progress | None = None
    ) -> ModelHandle:
        """Load a model, by its folder or its name on the model hub. Blocks.

        Raises:
            RunnerNotAvailable: A package, the model or memory is missing.
        """
        ...

    def render(
        self,
        handle: ModelHandle,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        thinking: bool | None = None,
    ) -> list[int]:
        """The tokens of a conversation up to where the answer begins.

        Raises:
            ProviderError: The model's chat template cannot say this conversation.
        """
        ...

    def count(self, handle: ModelHandle, what: str | Sequence[Message]) -> int:
        """Number of tokens of a text or a conversation."""
        ...

    def generate(
        self,
        handle: ModelHandle,
        prompt: Sequence[int],
        config: GenerationConfig,
        cancel: CancelToken,
    ) -> Iterator[TokenEvent]:
        """The answer, token by token, until its end or until it is cancelled."""
        ...

    def cleanup(self, handle: ModelHandle) -> None:
        """Free what a model holds; it cannot be used any more."""
        ...

    def leave(self) -> None:
        """Free what the engine holds for this thread, which ends."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRunner:
    """An engine that runs models in a server of its own, which the user starts."""

    name: str
    provider: str
    """Id of the provider whose wire it speaks."""
    base_url: str
    """Where it is, unless the user says otherwise."""
    start: str
    """Command that starts it; ``{model}`` is the model's id."""
    strict_names: bool = False
    """Whether it answers only for the models that it lists."""
    capabilities: RunnerCapabilities = field(
        default_factory=lambda: RunnerCapabilities(prompt_cache=True, max_concurrency=256)
    )


AnyRunner = Runner | ServerRunner
_RUNNERS: Registry[AnyRunner] = Registry("runner")
_RUNNERS.register_lazy("mlx", "ovagent_jupyter.providers.local.mlx:RUNNER")
_RUNNERS.register_lazy("vllm", "ovagent_jupyter.providers.local.vllm:RUNNER")
_RUNNERS.register_lazy("llamacpp", "ovagent_jupyter.providers.local.servers:LLAMACPP")
_RUNNERS.register_lazy("ollama", "ovagent_jupyter.providers.local.servers:OLLAMA")
_RUNNERS.register_lazy("lmstudio", "ovagent_jupyter.providers.local.servers:LMSTUDIO")


def register_runner(name: str, runner: AnyRunner | str) -> None:
    """Add a runner under a name, or the ``"module:attribute"`` it is imported from.

    Raises:
        RegistryError: The name is taken.
    """
    if isinstance(runner, str):
        _RUNNERS.register_lazy(name, runner)
    else:
        _RUNNERS.register(name, runner)


def get_runner(name: str) -> AnyRunner:
    """The runner of that name.

    Raises:
        RegistryError: The name is unknown.
    """
    return _RUNNERS.get(name)


def runners() -> tuple[str, ...]:
    """Names of all runners."""
    return tuple(_RUNNERS)


@dataclass(frozen=True, slots=True)
class RunnerChoice:
    """Which runner runs a model, and what the model is called there."""

    runner: str
    model_id: str


def choose_runner(model_id: str) -> RunnerChoice:
    """The runner of a model: the one named before the first slash, or by what the model is.

    Args:
        model_id: ``mlx/<folder or name on the model hub>``, ``vllm/<name>``, or a folder with
            ``config.json`` and safetensors.

    Raises:
        RunnerNotAvailable: Nothing tells which one.
    """
    prefix, _, rest = model_id.partition("/")
    if rest and prefix in _RUNNERS:
        return RunnerChoice(prefix, rest)
    if is_model_folder(model_folder(model_id)) or model_id.startswith(HUB_FOLDERS):
        return RunnerChoice("mlx", model_id)
    if model_id.lower().endswith(".gguf"):
        raise RunnerNotAvailable(
            f"The file {model_id!r} cannot be run here.",
            why="GGUF files are run by llama.cpp, which is a server.",
            next_step=f"Run `llama-server -m {model_id}` and use the model as 'llamacpp/default'.",
        )
    raise RunnerNotAvailable(
        f"There is no local model {model_id!r}.",
        why="It is no folder with config.json and safetensors, and names no runner.",
        next_step=f"Write it as '<runner>/<model>'; runners: {', '.join(sorted(runners()))}.",
    )


def model_folder(model_id: str) -> Path:
    """The folder that an id means, if it means one."""
    return Path(os.path.expanduser(model_id))  # noqa: PTH111 - an unknown ~user stays as it is


def one_name(model_id: str) -> str:
    """The one way to write a model of this machine: a folder by its whole path, once each slash."""
    plain = re.sub("/{2,}", "/", model_id).rstrip("/") or model_id
    if plain.startswith((".", "~", "/")) or is_model_folder(model_folder(plain)):
        # Not resolved: links are as the user knows them.
        return os.path.abspath(model_folder(plain))  # noqa: PTH100
    return plain


def is_model_folder(folder: Path) -> bool:
    """Whether a model lies there."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
