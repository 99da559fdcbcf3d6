"""The runner of mlx-lm, with a real model: it loads, renders, counts, generates and forgets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.errors import ProviderError, RunnerNotAvailable
from ovagent_jupyter.messages import Message, TextPart
from ovagent_jupyter.providers.client import ToolSchema
from ovagent_jupyter.providers.local.mlx import RUNNER, MlxModel
from ovagent_jupyter.providers.local.runner import (
    CancelToken,
    DeviceConfig,
    GenerationConfig,
    LoadProgress,
    ModelHandle,
    TokenEvent,
)
from tests.providers.local.tiny_model import (
    DIALOGUES,
    FIRST_TURN,
    SONG,
    WINDOW,
    Dialogue,
    tiny_model,
)


@pytest.fixture(scope="module")
def handle(model_folder: Path) -> Iterator[ModelHandle]:
    loaded = RUNNER.load(str(model_folder), DeviceConfig())
    yield loaded
    RUNNER.cleanup(loaded)


def messages_of(dialogue: Dialogue) -> list[Message]:
    said = [*dialogue.before, (dialogue.role, dialogue.asked)]
    return [Message(role, (TextPart(text),)) for role, text in said]  # type: ignore[arg-type]


def events_of(
    handle: ModelHandle, asked: str, config: GenerationConfig | None = None
) -> list[TokenEvent]:
    prompt = RUNNER.render(handle, [Message("user", (TextPart(asked),))])
    config = config or GenerationConfig(max_tokens=128)
    return list(RUNNER.generate(handle, prompt, config, CancelToken()))


def text_of(events: list[TokenEvent]) -> str:
    return "".join(event.text for event in events)


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda each: each.asked[:20])
def test_it_says_what_it_learnt(handle: ModelHandle, dialogue: Dialogue) -> None:
    prompt = RUNNER.render(handle, messages_of(dialogue))
    events = list(RUNNER.generate(handle, prompt, GenerationConfig(max_tokens=100), CancelToken()))
    assert text_of(events).startswith(dialogue.answer)
    assert [event.finish for event in events[:-1]] == [""] * (len(events) - 1)
    assert events[-1].finish == ("stop" if dialogue.ends else "length")
    assert (len(events) == 100) == (not dialogue.ends)


def test_the_model_tells_what_it_is(handle: ModelHandle) -> None:
    assert handle.window == WINDOW
    assert (handle.marks.call_start, handle.marks.think_end) == ("<tool_call>", "</think>")
    assert RUNNER.count(handle, "") == 0
    words = [Message("user", (TextPart("hello"),))]
    assert RUNNER.count(handle, words) == len(RUNNER.render(handle, words)) > 4


def test_loading_tells_its_progress_and_cleaning_up_frees_all(model_folder: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    told: list[LoadProgress] = []
    before = mx.get_active_memory()
    loaded = RUNNER.load(str(model_folder), DeviceConfig(), told.append)
    events_of(loaded, "hello")
    held = mx.get_active_memory() - before
    size = (model_folder / "model.safetensors").stat().st_size
    assert told[0].done == 0
    assert told[-1].done == told[-1].total
    assert 0 < size - told[-1].total < 4000  # its header
    assert held >= told[-1].total
    RUNNER.cleanup(loaded)
    assert mx.get_active_memory() - before < held / 10


def test_weights_that_do_not_fit_are_not_loaded(model_folder: Path) -> None:
    with pytest.raises(RunnerNotAvailable, match="does not fit into memory"):
        RUNNER.load(str(model_folder), DeviceConfig(memory=1000))


def test_a_broken_model_is_told(model_folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "broken"
    shutil.copytree(model_folder, place)
    weights = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(RunnerNotAvailable, match="cannot be loaded"):
        RUNNER.load(str(place), DeviceConfig())
    (place / "model.safetensors").write_bytes(weights)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))
    with pytest.raises(RunnerNotAvailable, match="unheard-of"):
        RUNNER.load(str(place), DeviceConfig())


def test_a_gpu_that_is_not_there_is_told(model_folder: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    if mx.is_available(mx.Device(mx.gpu)):
        pytest.skip("there is one")
    with pytest.raises(RunnerNotAvailable, match="no GPU"):
        RUNNER.load(str(model_folder), DeviceConfig(device="gpu"))


def test_cancelling_ends_it_within_a_token(handle: ModelHandle) -> None:
    prompt = RUNNER.render(handle, [Message("user", (TextPart("sing"),))])
    cancel = CancelToken()
    made = []
    for event in RUNNER.generate(handle, prompt, GenerationConfig(max_tokens=1000), cancel):
        made.append(event)
        if len(made) == 5:
            cancel.cancel()
    assert len(made) == 5
    before = CancelToken()
    before.cancel()
    assert list(RUNNER.generate(handle, prompt, GenerationConfig(), before)) == []
    # What was read in between has done no harm.
    assert text_of(events_of(handle, "hello")) == "Hello! I write scanpy code."


def test_a_turn_reads_only_what_is_new(model_folder: Path) -> None:
    loaded = RUNNER.load(str(model_folder), DeviceConfig())
    first = [Message("user", (TextPart(FIRST_TURN),))]
    prompt = RUNNER.render(loaded, first)
    answer = list(RUNNER.generate(loaded, prompt, GenerationConfig(), CancelToken()))
    assert answer[0].cached_tokens == 0
    said = Message("assistant", (TextPart(text_of(answer)),))
    second = [*first, said, Message("user", (TextPart("the second one?"),))]
    longer = RUNNER.render(loaded, second)
    assert longer[: len(prompt)] == prompt
    events = list(RUNNER.generate(loaded, longer, GenerationConfig(), CancelToken()))
    assert text_of(events) == "The second one is B."
    assert events[-1].cached_tokens == len(prompt) + len(answer)
    # Another conversation, and back to the first: both are right, and both are remembered.
    assert text_of(events_of(loaded, "count")) == "one two three four five six seven"
    again = list(RUNNER.generate(loaded, longer, GenerationConfig(), CancelToken()))
    assert text_of(again) == "The second one is B."
    assert again[0].cached_tokens > len(prompt)
    RUNNER.cleanup(loaded)


def test_a_seed_gives_the_same_answer_again(handle: ModelHandle) -> None:
    def answer(seed: int, temperature: float = 8.0) -> list[int]:
        config = GenerationConfig(
            max_tokens=12, temperature=temperature, seed=seed, top_k=50, repetition_penalty=1.1
        )
        return [event.token for event in events_of(handle, "hello", config)]

    assert answer(1) == answer(1)
    assert len({tuple(answer(seed)) for seed in range(4)}) > 1
    assert answer(1, temperature=0.0) == answer(2, temperature=0.0)


def test_the_makers_wishes_hold_where_nothing_else_is_said(
    model_folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "hot"
    shutil.copytree(model_folder, place)
    (place / "generation_config.json").write_text('{"do_sample": true, "temperature": 50.0}')
    loaded = RUNNER.load(str(place), DeviceConfig())
    wild = events_of(loaded, "hello", GenerationConfig(max_tokens=20, seed=3))
    assert text_of(wild) != "Hello! I write scanpy code."
    calm = events_of(loaded, "hello", GenerationConfig(max_tokens=20, temperature=0.0))
    assert text_of(calm) == "Hello! I write scanpy code."
    RUNNER.cleanup(loaded)


def with_template(model_folder: Path, place: Path, template: str) -> ModelHandle:
    shutil.copytree(model_folder, place)
    settings = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    return RUNNER.load(str(place), DeviceConfig())


SHOW = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% for t in tools or [] %}tool {{ t['function']['name'] }}\n{% endfor %}"
    "{% if enable_thinking %}<think>{% endif %}"
)


def test_a_template_without_a_system_gets_its_text_with_the_request(
    model_folder: Path, tmp_path: Path
) -> None:
    loaded = with_template(model_folder, tmp_path / "plain", SHOW)
    assert isinstance(loaded, MlxModel)
    said = [Message("system", (TextPart("Be short."),)), Message("user", (TextPart("go"),))]

    def shown(*, thinking: bool) -> str:
        tools = (ToolSchema("run_code", "runs"),)
        tokens = RUNNER.render(loaded, said, tools, thinking=thinking)
        assert loaded.starts_thinking(tokens) == thinking
        return str(loaded.tokenizer.decode(tokens))

    assert shown(thinking=False) == "user: Be short.\n\ngo\ntool run_code\n"
    assert shown(thinking=True) == "user: Be short.\n\ngo\ntool run_code\n<think>"
    RUNNER.cleanup(loaded)


def test_a_conversation_that_a_template_cannot_say_is_told(
    model_folder: Path, tmp_path: Path
) -> None:
    refusing = "{{ raise_exception('roles must alternate') }}"
    loaded = with_template(model_folder, tmp_path / "strict", refusing)
    with pytest.raises(ProviderError, match="roles must alternate") as caught:
        RUNNER.render(loaded, [Message("user", (TextPart("go"),))])
    assert caught.value.fault == "bad_request"
    RUNNER.cleanup(loaded)


def test_the_fixture_is_trained_once(model_folder: Path) -> None:
    before = (model_folder / "model.safetensors").stat().st_mtime_ns
    assert tiny_model() == model_folder
    assert (model_folder / "model.safetensors").stat().st_mtime_ns == before
    assert SONG.startswith("la la")
