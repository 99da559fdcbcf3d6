"""What is known of a provider and its models, before it is asked anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class WireAPI(StrEnum):
    """How a service is spoken to."""

    CHAT_COMPLETIONS = "chat_completions"
    """OpenAI's, which most others speak too."""
    RESPONSES = "responses"
    """OpenAI's newer one."""
    ANTHROPIC_MESSAGES = "anthropic_messages"
    GEMINI = "gemini"
    """Google's models by their OpenAI-compatible endpoint, with what that needs carried along."""
    LOCAL = "local"
    """A runner in this process."""


Ability = Literal["tools", "images", "reasoning", "json_schema"]
"""What a model can do besides text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """How a service differs from the wire that it speaks."""

    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_tokens"
    system_role: Literal["system", "developer"] = "system"
    single_system_message: bool = False
    """Whether several system messages have to be one."""
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"
    """Where thinking is expected when it is sent back; both are read."""
    think_tags: bool = False
    """Whether thinking comes as ``<think>…</think>`` in the text."""
    echo_reasoning: Literal["never", "tool_turns", "always"] = "never"
    """Which thinking it wants back."""
    supports_temperature: bool = True
    supports_forced_tool_choice: bool = True
    supports_strict_tools: bool = False
    supports_json_schema: bool = True
    supports_stream_usage: bool = True
    """Whether it takes ``stream_options``."""
    supports_effort: bool = True
    short_call_ids: bool = False
    """Whether ids of tool calls have to be 9 letters or digits, as Mistral's."""
    supports_cache_control: bool = False
    """Whether it takes Anthropic's ``cache_control`` for a whole request."""
    thinking_off: Mapping[str, object] = field(default_factory=dict)
    """What is added to a request that wants no thinking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of one model."""

    id: str
    """As its service knows it."""
    window: int = 0
    """Tokens that a conversation may have, its answer included.

    0 only in a row of the catalogue that leaves it to the data of genai-prices.
    """
    window_known: bool = True
    """False where the window is our guess; the user is told."""
    max_output: int | None = None
    """Tokens of an answer; None when it is not known."""
    input_price: float | None = None
    """US dollars for a million tokens that are read; None when it is not known."""
    output_price: float | None = None
    """US dollars for a million tokens that are written."""
    abilities: frozenset[Ability] = frozenset()
    """What it can do; empty where that is not known."""
    wire_api: WireAPI | None = None
    """Where it is not the provider's own."""
    quirks: Mapping[str, object] = field(default_factory=dict)
    """Fields of ``Quirks`` that differ from the provider's."""
    retires: str = ""
    """Date at which the service drops it, ``YYYY-MM-DD``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderInfo:
    """One service that runs models."""

    id: str
    """Short name, the prefix of ``groq/…``."""
    display_name: str
    """For people."""
    wire_api: WireAPI
    """How it is spoken to."""
    base_url: str = ""
    """Where it is, with the part of the path that is the same for all calls."""
    env_key: str = ""
    """Environment variable that holds its key; empty where none is needed."""
    alt_env_keys: tuple[str, ...] = ()
    """Further ones, looked at in order."""
    base_url_env: tuple[str, ...] = ()
    """Variables that override the base URL, looked at in order."""
    default_key: str = ""
    """Key of a server that wants none; empty where one is needed."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every call; no keys."""
    key_header: str = ""
    """Header of the key, where it is not the wire's own."""
    models: tuple[ModelInfo, ...] = ()
    """Its best-known models; others pass through."""
    prefixes: tuple[str, ...] = ()
    """How ids of its models begin, such as ``claude-``."""
    aliases: tuple[str, ...] = ()
    """Other names for it."""
    price_list: str = ""
    """Its id in genai-prices, where that is another."""
    quirks: Quirks = field(default_factory=Quirks)
    local: bool = False
    """Whether it runs on the user's own machine: no key, no cost."""
