"""All wires with the lowest and the newest SDKs that the package allows, against a real server."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.provider_answers import Answer, Called, Midway, Refusal
from tests.conformance.provider_servers import ProviderServer, serving
from tests.packaging.environments import ROOT, Environment, environment
from tests.packaging.wire_script import LIBRARIES

pytestmark = [pytest.mark.wheel, pytest.mark.slow, pytest.mark.xdist_group("environments")]

SCRIPT = Path(__file__).with_name("wire_script.py")
CONVERSATIONS = 6
"""Three wires, streamed and not."""
BELOW = ("importlib-metadata==8.5.0",)
"""What the lowest ones need lower than the constraints file has it: OpenTelemetry 1.28."""
SENTENCE = "This sentence is cut in the middle of it."


def floors() -> tuple[str, ...]:
    """These libraries at the lowest versions that pyproject.toml allows, as pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = [re.match(r"([\w-]+)>=([\d.]+)", line) for line in project["dependencies"]]
    return tuple(f"{found[1]}=={found[2]}" for found in allowed if found and found[1] in LIBRARIES)


@pytest.fixture(scope="session")
def lowest(wheel: Path) -> Environment:
    """The package beside the oldest SDKs and libraries of layers that it allows."""
    return environment("sdks-lowest", wheel, pins=(*floors(), *BELOW))


def script() -> list[Answer | Refusal]:
    """What the server says in one conversation."""
    return [
        Answer(thinking="I have to look.", calls=(Called("call_1", "look", {"what": "obs"}),)),
        Answer(text="There is n_genes."),
        Answer(text='{"cell_type": "NK"}'),
        Refusal(429, "Slow down.", {"Retry-After": "7"}),
        Answer(text=SENTENCE, midway=Midway.BREAKS),
    ]


async def talk(made: Environment, server: ProviderServer) -> dict[str, Any]:
    """What the wires tell in an environment."""
    process = await asyncio.create_subprocess_exec(
        made.python, "-I", SCRIPT, server.url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    told: dict[str, Any] = json.loads(out)
    return told


@pytest.mark.parametrize("versions", ["lowest", "bare"])
async def test_the_wires_say_the_same_with_every_sdk(
    versions: str, request: pytest.FixtureRequest
) -> None:
    made: Environment = request.getfixturevalue(versions)
    layered = [Refusal(500, "Something broke."), Answer(text="There is n_genes.")]
    async with serving(*script() * CONVERSATIONS, *layered) as server:
        told = await talk(made, server)
    found = told.pop("versions")
    if versions == "lowest":
        assert len(floors()) == len(LIBRARIES)
        for pin in floors():
            name, _, floor = pin.partition("==")
            assert f"{found[name]}.".startswith(f"{floor}.")
    assert told.pop("layers") == {
        "text": ["There is n_genes."] * 2, "priced": True, "cached": [False, True],
    }  # fmt: skip
    assert server.answers == []
    assert len(told) == CONVERSATIONS
    for name, conversation in told.items():
        limited, *cut = conversation.pop("failed")
        assert conversation == {
            "thinking": "I have to look.",
            "call": ["look", {"what": "obs"}, "tool_calls"],
            "text": ["There is n_genes.", "stop"],
            "json": {"cell_type": "NK"},
            "usage": [30, 12],
        }, name
        assert limited == ["rate_limited", 429, 7, ""], name
        # An answer in one piece is not cut: there the second of the two is no failure.
        expected = [["interrupted", None, None, SENTENCE[: len(SENTENCE) // 2]]]
        assert cut == (expected if "streamed" in name else []), name
    for received in server.received:
        assert received.headers["x-stainless-retry-count"] == "0"
        assert received.headers["authorization"] == "Bearer sk-planted-key"
