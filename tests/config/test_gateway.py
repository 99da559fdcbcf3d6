"""What may be set of the gateway, and what is refused."""

from __future__ import annotations

import pytest

from ovagent_jupyter.config.gateway import GatewayConfig
from ovagent_jupyter.errors import ConfigError


def test_settings_are_checked() -> None:
    for bad in (
        {"retry": {"attempts": 0}},
        {"retry": {"base": 9}},
        {"retry": {"tries": 3}},
        {"breaker": {"failure_rate": 0}},
        {"health": {"degraded_rate": 0.9}},
        {"routing": {"strategy": "luck"}},
        {"routing": {"weights": {"a": -1}}},
        {"rate": {"requests_per_minute": 0}},
        {"concurrency": {"max_calls": True}},
        {"timeouts": {"total": float("inf")}},
        {"replay": {"mode": "record"}},
        {"transforms": {"answer": ["shout"]}},
        {"variants": {"experiment": "x"}},
        {"cache": 3},
    ):
        with pytest.raises(ConfigError):
            GatewayConfig(**bad)  # type: ignore[arg-type]
