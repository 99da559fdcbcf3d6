"""Choosing a runner, and what stands around a model: memory, files, the conversation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import ovagent_jupyter
from ovagent_jupyter.errors import ProviderError, RegistryError, RunnerNotAvailable
from ovagent_jupyter.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
)
from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.client import AnswerSchema, ModelRequest, ToolSchema
from ovagent_jupyter.providers.local import memory, model_files, runner
from ovagent_jupyter.providers.local.prompt_memory import PromptMemory, Reading, common
from ovagent_jupyter.providers.local.readiness import examine_local
from ovagent_jupyter.providers.local.rendering import (
    template_messages,
    template_tools,
    wanted_tools,
    with_schema,
    without_system,
)
from ovagent_jupyter.providers.local.runner import (
    ServerRunner,
    choose_runner,
    get_runner,
    register_runner,
    runners,
)
from ovagent_jupyter.providers.resolve import resolve_backend

ROOT = str(Path(ovagent_jupyter.__file__).parent.parent)

# -- which runner ------------------------------------------------------------------------------


def folder_with_weights(place: Path, size: int = 4) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text('{"max_position_embeddings": 77}')
    (place / "model.safetensors").write_bytes(b"x" * size)
    return place


@pytest.mark.parametrize(
    ("model_id", "name", "rest"),
    [
        ("mlx/mlx-community/Qwen3-4B-4bit", "mlx", "mlx-community/Qwen3-4B-4bit"),
        ("mlx/~/models/qwen", "mlx", "~/models/qwen"),
        ("mlx-community/Qwen3-4B-4bit", "mlx", "mlx-community/Qwen3-4B-4bit"),
        ("vllm/Qwen/Qwen3-8B", "vllm", "Qwen/Qwen3-8B"),
        ("ollama/qwen3:8b", "ollama", "qwen3:8b"),
    ],
)
def test_an_id_names_its_runner(model_id: str, name: str, rest: str) -> None:
    choice = choose_runner(model_id)
    assert (choice.runner, choice.model_id) == (name, rest)


def test_a_folder_with_weights_is_run_by_mlx(tmp_path: Path) -> None:
    place = folder_with_weights(tmp_path / "mine")
    assert choose_runner(str(place)).runner == "mlx"
    (place / "config.json").unlink()
    with pytest.raises(RunnerNotAvailable, match=r"no folder with config\.json"):
        choose_runner(str(place))


def test_a_gguf_file_is_sent_to_its_server() -> None:
    with pytest.raises(RunnerNotAvailable, match=r"llama-server -m qwen\.gguf"):
        choose_runner("qwen.gguf")


def test_all_rows_load_and_a_name_is_registered_once() -> None:
    assert {"mlx", "vllm", "llamacpp", "ollama", "lmstudio"} <= set(runners())
    assert [get_runner(name).name for name in runners()] == list(runners())
    with pytest.raises(RegistryError, match="registered twice"):
        register_runner("mlx", "somewhere:else")
    with pytest.raises(RegistryError, match="no runner named 'none'"):
        get_runner("none")
    mine = ServerRunner(name="mine", provider="vllm", base_url="http://localhost:1", start="run")
    register_runner("mine", mine)
    try:
        assert choose_runner("mine/some/model").model_id == "some/model"
    finally:
        del runner._RUNNERS._rows["mine"]


def test_without_the_extra_the_pip_line_is_told(tmp_path: Path) -> None:
    """A Python that has no packages at all."""
    place = folder_with_weights(tmp_path / "mine")
    code = (
        "import asyncio\n"
        "import ovagent_jupyter.providers.local.client\n"
        "from ovagent_jupyter.providers.local.runner import DeviceConfig, get_runner\n"
        f"get_runner('mlx').load({str(place)!r}, DeviceConfig())\n"
    )
    told = run_python(code, tmp_path, "-S")
    assert "RunnerNotAvailable: MLX models cannot be run here." in told
    assert 'pip install "ovagent-jupyter[mlx]"' in told


# -- memory and files --------------------------------------------------------------------------


def test_weights_larger_than_memory_are_refused(tmp_path: Path) -> None:
    place = folder_with_weights(tmp_path, size=3000)
    assert memory.weights_size(place) == 3000
    memory.require_room("mine", 3000, allowed=3000)
    with pytest.raises(RunnerNotAvailable, match="does not fit into memory"):
        memory.require_room("mine", 3000, allowed=2999)
    free = memory.free_memory()
    assert free is not None
    assert free > 2**20
    with pytest.raises(RunnerNotAvailable, match=r"Its weights take .* GiB"):
        memory.require_room("mine", free * 4, allowed=None)


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunnerNotAvailable, match=r"has no config\.json"):
        model_files.find_model(str(tmp_path / "empty"))
    with pytest.raises(RunnerNotAvailable, match="There is no such folder"):
        model_files.find_model("/no/such/model")


def run_python(code: str, place: Path, *options: str, **environment: str) -> str:
    """What a fresh interpreter complains about."""
    ran = subprocess.run(
        [sys.executable, *options, "-c", code],
        env={"PYTHONPATH": ROOT, "PATH": os.environ["PATH"], **environment},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stderr


def test_the_hub_is_left_alone_when_it_is_to_be(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    code = (
        "from ovagent_jupyter.providers.local.model_files import find_model\n"
        "find_model('nobody-at-all/no-such-model')\n"
    )
    told = run_python(code, tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert "is not on this machine and cannot be fetched" in told
    assert "HF_HUB_OFFLINE is set" in told


def test_what_the_files_of_a_model_say(tmp_path: Path) -> None:
    place = folder_with_weights(tmp_path)
    assert model_files.window(place) == 77
    assert model_files.sampling_defaults(place).temperature == 0.0
    wishes = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    (place / "generation_config.json").write_text(json.dumps(wishes))
    defaults = model_files.sampling_defaults(place)
    assert (defaults.temperature, defaults.top_k, defaults.top_p) == (0.6, 20, 0.95)
    (place / "config.json").write_text('{"text_config": {"max_position_embeddings": 88}}')
    assert model_files.window(place) == 88
    (place / "config.json").write_text("no JSON")
    assert model_files.window(place) is None


# -- the conversation --------------------------------------------------------------------------


def test_a_conversation_as_templates_take_it() -> None:
    call = ToolCall("c1", "run_code", {"code": "1"})
    said = template_messages(
        (
            Message("system", (TextPart("Be short."),)),
            Message("user", (TextPart("go"),)),
            Message("assistant", (ReasoningPart("hm"), TextPart("Look."), call)),
            Message("tool", (ToolResult("c1", "1"), ToolResult("c2", "2"))),
            Message("system", (TextPart("Be kind."),)),
        )
    )
    assert said == [
        {"role": "system", "content": "Be short.\n\nBe kind."},
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": "Look.",
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "run_code", "arguments": {"code": "1"}},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "run_code", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "name": "", "content": "2"},
    ]
    assert without_system(said)[0]["content"] == "Be short.\n\nBe kind.\n\ngo"
    assert said[1]["content"] == "go"


def test_a_picture_is_refused() -> None:
    with pytest.raises(ProviderError, match="takes text only"):
        template_messages((Message("user", (ImagePart(b"x"),)),))


def test_tools_that_may_not_be_called_are_not_shown() -> None:
    tools = (ToolSchema("a", "first"), ToolSchema("b", "second", {"type": "object"}))
    said = (Message("user", (TextPart("go"),)),)

    def shown(choice: str) -> list[str]:
        request = ModelRequest(model="m", messages=said, tools=tools, tool_choice=choice)
        return [tool.name for tool in wanted_tools(request)]

    assert [shown(choice) for choice in ("auto", "required", "none", "b")] == [
        ["a", "b"],
        ["a", "b"],
        [],
        ["b"],
    ]
    assert template_tools(tools)[0]["function"] == {
        "name": "a",
        "description": "first",
        "parameters": {"type": "object", "properties": {}},
    }
    wish = with_schema(said, AnswerSchema("cells", {"type": "object"}))[-1]
    assert wish.role == "system"
    assert '{"type": "object"}' in wish.text
    assert with_schema(said, None) == said


# -- what was read -----------------------------------------------------------------------------


def memory_of(most: int = 2, cap: int = 10_000) -> PromptMemory:
    """One whose caches are lists of tokens."""

    def trim(cache: list[object], count: int) -> bool:
        if "fixed" in cache:
            return False
        del cache[-count:]
        return True

    return PromptMemory(list, trim, len, most=most, cap=cap)


def test_the_longest_beginning_is_found_and_trimmed() -> None:
    kept = memory_of()
    kept.keep(Reading([1, 2, 3, 4], [1, 2, 3, 4]))
    kept.keep(Reading([9], [9]))
    reading = kept.take([1, 2, 3, 7, 8])
    assert reading.cache == reading.tokens == [1, 2, 3]
    assert len(kept) == 1
    assert kept.take([5]).tokens == []
    assert kept.take([9]).tokens == []  # one token is always left to be read


def test_a_long_conversation_is_not_spoilt_by_another_one() -> None:
    kept = memory_of()
    long = list(range(500))
    kept.keep(Reading(list(long), long))
    assert kept.take([0, 1, 2, -1]).cache == [0, 1, 2]
    assert kept.take([*long, 500]).tokens == long


def test_what_cannot_be_trimmed_is_used_only_whole() -> None:
    kept = memory_of()
    kept.keep(Reading(["fixed", 1, 2], [1, 2]))
    assert kept.take([1, 5, 6]).tokens == []
    kept.keep(Reading(["fixed", 1, 2], [1, 2]))
    assert kept.take([1, 2, 3]).tokens == [1, 2]


def test_memory_is_bounded() -> None:
    kept = memory_of(most=3, cap=10)
    for number in range(5):
        kept.keep(Reading([number] * 4, [number] * 4))
    assert len(kept) == 2
    kept.keep(Reading([7] * 99, [7] * 99))
    assert len(kept) == 1
    assert common([1, 2], [1, 2, 3]) == 2


# -- what doctor says --------------------------------------------------------------------------


def backend_of(model: str) -> Backend:
    return resolve_backend(model, environ={})


def test_a_model_of_this_machine_is_looked_at_without_loading_it(tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm")
    ready = examine_local(backend_of(f"mlx/{folder_with_weights(tmp_path / 'mine', 3 << 20)}"))
    assert ready.remedy == ""
    assert ready.parts[0] == "window 77, by its files"
    assert ready.parts[1].startswith("weights 3.0 MiB of ")
    (tmp_path / "mine" / "config.json").write_text("{}")
    silent = examine_local(backend_of(f"{tmp_path / 'mine'}"))
    assert silent.parts[0] == "its files tell no window"
    with pytest.raises(RunnerNotAvailable, match="There is no such folder"):
        examine_local(backend_of("mlx//no/such/model"))
    with pytest.raises(RunnerNotAvailable, match="There is no local model"):
        examine_local(backend_of("./no-such-model"))


def test_weights_that_have_no_room_are_told_before_they_are_loaded(tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm")
    place = folder_with_weights(tmp_path / "large")
    free = memory.free_memory()
    assert free is not None
    with (place / "model.safetensors").open("wb") as file:
        file.truncate(free * 2)  # a hole: it takes no room on the disk
    with pytest.raises(RunnerNotAvailable, match="does not fit into memory"):
        examine_local(backend_of(f"mlx/{place}"))


def test_a_model_of_the_hub_that_is_not_here_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlx_lm")
    backend = backend_of("mlx/nobody-at-all/no-such-model")
    told = examine_local(backend)
    assert told.parts == ("not on this machine yet",)
    assert told.remedy.startswith("HF_HUB_OFFLINE is set")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert "The first question fetches it" in examine_local(backend).remedy


def test_doctor_tells_the_pip_line_where_the_extra_is_missing(tmp_path: Path) -> None:
    """A Python that has no packages at all."""
    code = "from ovagent_jupyter.providers.local.mlx import require_packages\nrequire_packages()\n"
    told = run_python(code, tmp_path, "-S")
    assert 'pip install "ovagent-jupyter[mlx]"' in told


def test_no_bar_is_warned_of_where_a_notebook_has_no_widgets(tmp_path: Path) -> None:
    """In a process that looks like a kernel's, with the filters of warnings left alone."""
    pytest.importorskip("mlx_lm")
    if find_spec("ipywidgets"):
        pytest.skip("needs a Python without ipywidgets")
    code = (
        "import sys, warnings\n"
        "import ipykernel.zmqshell\n"
        "ipykernel.zmqshell.ZMQInteractiveShell.instance()\n"
        "warnings.simplefilter('always')\n"
        "before = list(warnings.filters)\n"
        "if sys.argv[1:] == ['ours']:\n"
        "    from ovagent_jupyter.providers.local.progress_bars import choose_text_bars\n"
        "    choose_text_bars()\n"
        "assert warnings.filters == before\n"
        "from tqdm.auto import tqdm\n"
        "assert list(tqdm(range(3), disable=True)) == [0, 1, 2]\n"
        "from tqdm.autonotebook import trange\n"
    )
    home = {"HOME": str(tmp_path)}
    assert "IProgress not found" in run_python(code, tmp_path, **home)
    script = tmp_path / "ours.py"
    script.write_text(code)
    ran = subprocess.run(
        [sys.executable, str(script), "ours"],
        env={"PYTHONPATH": ROOT, "PATH": os.environ["PATH"], **home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, "IProgress" in ran.stderr) == (0, False), ran.stderr
