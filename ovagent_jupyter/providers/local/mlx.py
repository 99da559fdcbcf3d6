"""Runs models with mlx-lm: on the GPU of a Mac, and on the processor of any Linux."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, cast

from ovagent_jupyter.errors import ProviderError, RunnerNotAvailable
from ovagent_jupyter.messages import Message
from ovagent_jupyter.providers.client import ToolSchema
from ovagent_jupyter.providers.local.call_text import named_calls, parse_json_call
from ovagent_jupyter.providers.local.memory import require_room, weights_size
from ovagent_jupyter.providers.local.model_files import find_model, sampling_defaults, window
from ovagent_jupyter.providers.local.progress_bars import choose_text_bars
from ovagent_jupyter.providers.local.prompt_memory import PromptMemory, Reading
from ovagent_jupyter.providers.local.rendering import (
    Rendered,
    template_messages,
    template_tools,
    without_system,
)
from ovagent_jupyter.providers.local.runner import (
    CancelToken,
    DeviceConfig,
    GenerationConfig,
    LoadProgress,
    Marks,
    ModelHandle,
    Progress,
    RunnerCapabilities,
    TokenEvent,
)

PIP = 'pip install "ovagent-jupyter[mlx]"'
READ_AT_ONCE = 512
"""Tokens of a prompt between two looks at whether it is cancelled."""
LOAD_AT_ONCE = 256 << 20
"""Bytes of weights between two words on progress."""


@dataclass(slots=True, kw_only=True)
class MlxModel:
    """A model that mlx-lm has loaded."""

    model_id: str
    model: Any
    tokenizer: Any
    window: int | None
    marks: Marks
    defaults: GenerationConfig
    """How its makers want it to be sampled."""
    memory: PromptMemory

    def starts_thinking(self, prompt: Sequence[int]) -> bool:
        """Whether the prompt ends within a thought: its last mark opens one."""
        start, end = (
            _last(prompt, self.tokenizer.encode(mark, add_special_tokens=False))
            for mark in (self.marks.think_start, self.marks.think_end)
        )
        return start > end

    def parse_call(
        self, text: str, tools: Sequence[ToolSchema]
    ) -> Sequence[tuple[str, Mapping[str, object]]]:
        """The calls in a text, read by the parser that mlx-lm has for the model.

        Raises:
            ValueError: It is none.
        """
        parser = getattr(self.tokenizer, "tool_parser", None)
        if parser is None:
            return parse_json_call(text)
        try:
            return named_calls(parser(text, template_tools(tools)))
        except (SyntaxError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error


class MlxRunner:
    """The runner of mlx-lm."""

    name: ClassVar[str] = "mlx"
    capabilities = RunnerCapabilities(prompt_cache=True)

    def load(
        self, model_id: str, device: DeviceConfig, progress: Progress | None = None
    ) -> ModelHandle:
        """Load a model from its folder, or from the model hub's cache, or from the hub.

        Raises:
            RunnerNotAvailable: A package, the model or memory is missing.
        """
        _require_mlx(device)
        from mlx_lm import load

        folder = find_model(model_id)
        size = weights_size(folder)
        require_room(model_id, size, device.memory)
        try:
            model, tokenizer = load(str(folder), lazy=True)[:2]
            _read_weights(model, model_id, progress)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise RunnerNotAvailable(
                f"The model {model_id!r} cannot be loaded.",
                why=_short(error),
                next_step="Check that its files are whole and that mlx-lm knows its architecture.",
            ) from error
        return MlxModel(
            model_id=model_id,
            model=model,
            tokenizer=tokenizer,
            window=window(folder),
            marks=_marks(tokenizer),
            defaults=sampling_defaults(folder),
            memory=_memory(model, most=device.cached_prompts, cap=max(size, 64 << 20)),
        )

    def render(
        self,
        handle: ModelHandle,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        thinking: bool | None = None,
    ) -> list[int]:
        """The tokens of a conversation, by the model's chat template.

        Raises:
            ProviderError: The template is missing or cannot say this conversation.
        """
        said = template_messages(messages)
        options: dict[str, object] = {} if thinking is None else {"enable_thinking": thinking}
        options |= {"tools": template_tools(tools)} if tools else {}
        try:
            return _rendered(_own(handle), said, options)
        except Exception as error:
            folded = without_system(said)
            if folded == said:
                raise _unsaid(handle.model_id, error) from error
        try:
            return _rendered(_own(handle), folded, options)
        except Exception as error:
            raise _unsaid(handle.model_id, error) from error

    def count(self, handle: ModelHandle, what: str | Sequence[Message]) -> int:
        """Number of tokens of a text or a conversation."""
        if isinstance(what, str):
            return len(_own(handle).tokenizer.encode(what, add_special_tokens=False))
        return len(self.render(handle, what))

    def generate(
        self,
        handle: ModelHandle,
        prompt: Sequence[int],
        config: GenerationConfig,
        cancel: CancelToken,
    ) -> Iterator[TokenEvent]:
        """The answer, token by token; what was read and made is remembered."""
        from mlx_lm import stream_generate

        own = _own(handle)
        reading = own.memory.take(prompt)
        cached = len(reading.tokens)
        made: list[int] = []

        def keep_on(_done: int, _total: int) -> None:
            if cancel.cancelled:
                raise CancelledError

        stream = stream_generate(
            own.model,
            own.tokenizer,
            list(prompt[cached:]),
            max_tokens=config.max_tokens,
            prompt_cache=reading.cache,
            prefill_step_size=READ_AT_ONCE,
            prompt_progress_callback=keep_on,
            **_sampling(config, own.defaults),
        )
        try:
            for each in stream:
                made.append(int(each.token))
                finish = cast(Literal["", "stop", "length"], each.finish_reason or "")
                yield TokenEvent(each.text, made[-1], finish, cached)
                if cancel.cancelled:
                    break
        except CancelledError:
            made.clear()
        except Exception:
            # What the engine holds after a failure is not known.
            made.clear()
            raise
        finally:
            stream.close()
            if made:
                _remember(own.memory, Reading(reading.cache, [*prompt, *made]))

    def cleanup(self, handle: ModelHandle) -> None:
        """Free the weights and what was remembered."""
        import mlx.core as mx

        own = _own(handle)
        own.model = own.tokenizer = None
        own.memory = _memory(None, most=1, cap=0)
        gc.collect()
        mx.clear_cache()

    def leave(self) -> None:
        """End the streams of this thread.

        A thread that ends with them has them ended by the system, at a time of its own; where the
        process ends just then, MLX aborts it.
        """
        core = sys.modules.get("mlx.core")
        if core is not None and hasattr(core, "clear_streams"):
            core.clear_streams()


RUNNER = MlxRunner()


def _own(handle: ModelHandle) -> MlxModel:
    assert isinstance(handle, MlxModel), "a handle of another runner"
    return handle


# -- finding and loading -----------------------------------------------------------------------


def _require_mlx(device: DeviceConfig) -> None:
    choose_text_bars()
    try:
        import mlx.core as mx
        import mlx_lm  # noqa: F401
    except ImportError as error:
        raise _no_mlx(_short(error)) from error
    if device.device == "auto":
        return
    wanted = mx.Device(mx.cpu if device.device == "cpu" else mx.gpu)
    if device.device == "gpu" and not mx.is_available(wanted):
        raise RunnerNotAvailable(
            "MLX has no GPU here.",
            why="It computes on the GPU of a Mac, or with CUDA where that build is installed.",
            next_step="Leave the device at 'auto'.",
        )
    mx.set_default_device(wanted)


def require_packages() -> None:
    """Check that MLX is there and fits this machine, without loading mlx-lm, which takes seconds.

    Raises:
        RunnerNotAvailable: It is not.
    """
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        raise _no_mlx(_short(error)) from error
    if find_spec("mlx_lm") is None:
        raise _no_mlx("there is no mlx_lm")


def _no_mlx(why: str) -> RunnerNotAvailable:
    return RunnerNotAvailable(
        "MLX models cannot be run here.",
        why=f"The package is missing or does not fit this machine: {why}",
        next_step=f"Run `{PIP}`, or use a server: 'ollama/<model>', 'vllm/<model>'.",
    )


def _read_weights(model: Any, model_id: str, progress: Progress | None) -> None:
    """Bring the weights into memory part by part, so that one can see how far it is."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    weights = [weight for _, weight in cast(Any, tree_flatten(model.parameters()))]
    total = sum(weight.nbytes for weight in weights)
    tell = progress or (lambda _: None)
    tell(LoadProgress(model_id, 0, total))
    done, part = 0, 0
    for number, weight in enumerate(weights, 1):
        mx.eval(weight)
        part += weight.nbytes
        if part >= LOAD_AT_ONCE or number == len(weights):
            done, part = done + part, 0
            tell(LoadProgress(model_id, done, total))


def _marks(tokenizer: Any) -> Marks:
    """What the model writes, as far as mlx-lm found out; else the usual."""
    usual = Marks()
    call_start = getattr(tokenizer, "tool_call_start", None)
    return Marks(
        think_start=getattr(tokenizer, "think_start", None) or usual.think_start,
        think_end=getattr(tokenizer, "think_end", None) or usual.think_end,
        call_start=call_start or usual.call_start,
        call_end=(tokenizer.tool_call_end or "") if call_start else usual.call_end,
    )


# -- generating --------------------------------------------------------------------------------


def _sampling(config: GenerationConfig, own: GenerationConfig) -> dict[str, Any]:
    import mlx.core as mx
    from mlx_lm.sample_utils import make_logits_processors, make_sampler

    def choose(name: str) -> Any:
        wanted = getattr(config, name)
        return getattr(own, name) if wanted is None else wanted

    if config.seed is not None:
        mx.random.seed(config.seed % (1 << 64))
    sampler = make_sampler(
        temp=choose("temperature") or 0.0,
        top_p=choose("top_p") or 0.0,
        min_p=choose("min_p") or 0.0,
        top_k=choose("top_k") or 0,
    )
    penalty = choose("repetition_penalty")
    processors = make_logits_processors(repetition_penalty=penalty) if penalty else []
    return {"sampler": sampler, "logits_processors": processors or None}


def _rendered(own: MlxModel, said: list[Rendered], options: Mapping[str, Any]) -> list[int]:
    return list(own.tokenizer.apply_chat_template(said, add_generation_prompt=True, **options))


def _memory(model: Any, *, most: int, cap: int) -> PromptMemory:
    from mlx_lm.models.cache import (
        can_trim_prompt_cache,
        make_prompt_cache,
        trim_prompt_cache,
    )

    def trim(cache: list[Any], count: int) -> bool:
        trimmed = cast(int, trim_prompt_cache(cache, count)) if can_trim_prompt_cache(cache) else 0
        return trimmed == count

    def size(cache: list[Any]) -> int:
        return sum(getattr(layer, "nbytes", 0) for layer in cache)

    return PromptMemory(lambda: make_prompt_cache(model), trim, size, most=most, cap=cap)


def _remember(memory: PromptMemory, reading: Reading) -> None:
    """Keep a reading, if the engine's own count says that what we think is in it is in it."""
    offset = getattr(reading.cache[0], "offset", len(reading.tokens)) if reading.cache else 0
    if 0 < offset <= len(reading.tokens):
        memory.keep(Reading(reading.cache, reading.tokens[:offset]))


def _last(tokens: Sequence[int], part: Sequence[int]) -> int:
    """Where a part begins for the last time; -1 when it is not there."""
    for at in range(len(tokens) - len(part), -1, -1):
        if list(tokens[at : at + len(part)]) == list(part):
            return at
    return -1


def _unsaid(model_id: str, error: Exception) -> ProviderError:
    return ProviderError(
        f"The chat template of {model_id!r} cannot say this conversation.",
        provider="local",
        fault="bad_request",
        why=_short(error),
        next_step="Choose a model that was made for chats and tools, often named instruct.",
    )


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
