"""What the user may set, and where a setting comes from."""

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.config.schema import (
    AgentConfig,
    ExecutionConfig,
    LLMConfig,
    SandboxFallbackPolicy,
)

__all__ = ["AgentConfig", "ExecutionConfig", "LLMConfig", "SandboxFallbackPolicy", "SandboxSpec"]
