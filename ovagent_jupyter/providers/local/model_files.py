"""The files of a local model: where they are, and what they say about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovagent_jupyter.errors import RunnerNotAvailable
from ovagent_jupyter.providers.local.progress_bars import choose_text_bars
from ovagent_jupyter.providers.local.runner import GenerationConfig, is_model_folder, model_folder
from ovagent_jupyter.providers.provider import Ability, ModelInfo

FILES = ["*.json", "model*.safetensors", "tokenizer.model", "*.tiktoken", "*.txt", "*.jinja"]
"""What is fetched of a model; no code."""


def find_model(model_id: str) -> Path:
    """The folder of a model: one that is named, or the model hub's copy, fetched if need be.

    Raises:
        RunnerNotAvailable: It is not there and cannot be fetched.
    """
    return look_for_model(model_id) or _fetch(model_id)


def look_for_model(model_id: str) -> Path | None:
    """The folder of a model on this machine; None for one of the hub that was not fetched yet.

    Raises:
        RunnerNotAvailable: It is neither here nor named as one of the hub.
    """
    folder = model_folder(model_id)
    if is_model_folder(folder):
        return folder
    if folder.exists():
        why = f"{folder} has no config.json with safetensors beside it."
        raise _unknown(model_id, why)
    if model_id.startswith((".", "~", "/")) or model_id.count("/") != 1:
        why = "There is no such folder, and a model of the hub is named <owner>/<name>."
        raise _unknown(model_id, why)
    return _in_cache(model_id)


def describe_model(model_id: str) -> ModelInfo | None:
    """What the files of a model on this machine tell of it; None where it is not here.

    Reads a few small files and neither loads nor fetches anything.
    """
    folder = model_folder(model_id)
    if not is_model_folder(folder):
        cached = _in_cache(model_id) if model_id.count("/") == 1 else None
        if cached is None:
            return None
        folder = cached
    found = window(folder)
    if found is None:
        return None
    template = _template(folder)
    abilities: set[Ability] = {"tools"} if "tools" in template or "tool_call" in template else set()
    if "<think>" in template or "enable_thinking" in template:
        abilities.add("reasoning")
    return ModelInfo(
        id=model_id,
        window=found,
        input_price=0.0,
        output_price=0.0,
        abilities=frozenset(abilities),
    )


def window(folder: Path) -> int | None:
    """Tokens that a conversation may have, by the model's own word."""
    config = _json(folder / "config.json")
    inner = config.get("text_config")
    for each in (config, inner if isinstance(inner, Mapping) else {}):
        found = each.get("max_position_embeddings")
        if isinstance(found, int) and found > 0:
            return found
    return None


def sampling_defaults(folder: Path) -> GenerationConfig:
    """How its makers want it to be sampled; the likeliest token where they say nothing."""
    config = _json(folder / "generation_config.json")

    def number(name: str) -> float | None:
        value = config.get(name)
        return float(value) if isinstance(value, int | float) else None

    if not config.get("do_sample", "temperature" in config):
        return GenerationConfig(temperature=0.0)
    top_k = number("top_k")
    return GenerationConfig(
        temperature=1.0 if (given := number("temperature")) is None else given,
        top_p=number("top_p"),
        top_k=None if top_k is None else int(top_k),
        min_p=number("min_p"),
        repetition_penalty=number("repetition_penalty"),
    )


def _in_cache(model_id: str) -> Path | None:
    """The hub's copy on this machine, if it has been fetched."""
    choose_text_bars()
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        found = Path(snapshot_download(model_id, allow_patterns=FILES, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None
    return found if is_model_folder(found) else None


def _fetch(model_id: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    next_step = "Check its name and the network, or give the path of a folder."
    if constants.HF_HUB_OFFLINE:
        next_step = "HF_HUB_OFFLINE is set: unset it, or fetch the model beforehand."
    try:
        found = Path(snapshot_download(model_id, allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise RunnerNotAvailable(
            f"The model {model_id!r} is not on this machine and cannot be fetched.",
            why=f"{type(error).__name__}: {error}"[:300],
            next_step=next_step,
        ) from error
    if not is_model_folder(found):
        raise _unknown(model_id, "The hub has it, but without safetensors.")
    return found


def _unknown(model_id: str, why: str) -> RunnerNotAvailable:
    return RunnerNotAvailable(
        f"There is no model {model_id!r} for MLX.",
        why=why,
        next_step="Check the path, or use a model of the hub such as mlx-community/….",
    )


def _template(folder: Path) -> str:
    try:
        return (folder / "chat_template.jinja").read_text("utf-8")
    except (OSError, ValueError):
        return str(_json(folder / "tokenizer_config.json").get("chat_template", ""))


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
