"""A question and a key go to the host that the user named, and to no other, on every wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ovagent_jupyter.errors import ProviderError
from ovagent_jupyter.providers.client import collect
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.provider import ProviderInfo, WireAPI
from ovagent_jupyter.providers.wires import client_for
from tests.providers.asking import KEY, ask, backend_at
from tests.providers.served import HANG, JSON, Served, events

PATHS = {
    WireAPI.CHAT_COMPLETIONS: "/chat/completions",
    WireAPI.RESPONSES: "/responses",
    WireAPI.ANTHROPIC_MESSAGES: "/v1/messages",
}
BODY = events({"choices": [{"delta": {"content": "A"}, "finish_reason": "stop"}]}, done=True)


@pytest.fixture
async def other() -> AsyncIterator[Served]:
    """A server that nobody named."""
    async with Served() as server:
        server.always(BODY)
        yield server


async def sent_on(
    served: Served, connections: Connections, location: str, **fields: object
) -> ProviderError:
    """How a call fails that is answered by a redirect."""
    status = int(str(fields.pop("status", 307)))
    served.answer(b"Moved.", status=status, headers={"location": location})
    client = client_for(backend_at(served.url, **fields), connections)  # type: ignore[arg-type]
    with pytest.raises(ProviderError) as caught:
        await collect(client.stream(ask()))
    assert KEY not in "".join(caught.value.lines())
    return caught.value


@pytest.mark.parametrize("wire", PATHS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nothing_is_sent_to_another_host(
    served: Served, other: Served, connections: Connections, wire: WireAPI, status: int
) -> None:
    location = other.url + "/base" + PATHS[wire]
    error = await sent_on(served, connections, location, wire=wire, status=status)
    assert other.connections == 0
    assert len(served.requests) == 1
    assert (error.fault, error.retryable, error.status_code) == ("bad_request", False, status)
    host = other.url.removeprefix("http://")
    assert host in error.what
    assert error.next_step.endswith(
        f"base_url to {other.url}/base" if "/v1" not in PATHS[wire] else f"{other.url}/base"
    )


async def test_nor_is_a_key_in_a_header_of_its_own(
    served: Served, other: Served, connections: Connections
) -> None:
    azure = ProviderInfo(
        id="azure", display_name="Azure", wire_api=WireAPI.CHAT_COMPLETIONS, key_header="api-key"
    )
    await sent_on(served, connections, other.url, provider=azure, headers={"X-Pass": KEY})
    assert served.requests[0].headers["api-key"] == KEY
    assert other.connections == 0


async def test_nor_to_another_path_of_the_same(served: Served, connections: Connections) -> None:
    error = await sent_on(served, connections, "/v1/chat/completions")
    assert len(served.requests) == 1
    assert error.next_step.endswith(f"base_url to {served.url}/v1")


@pytest.mark.parametrize("location", [
    "https://me:word@login.example/sso?pass=secret#part", "//login.example/", "https://login.example",
])  # fmt: skip
async def test_a_page_to_log_in_at(served: Served, connections: Connections, location: str) -> None:
    error = await sent_on(served, connections, location, status=302)
    assert "login.example" in error.what
    assert error.next_step.endswith("://login.example")
    assert not {"word", "secret", "part"} & set(str(error).replace("=", " ").split())


@pytest.mark.parametrize("location", ["http://[", "", "http://host:port/", "\x01"])
async def test_addresses_that_are_none(
    served: Served, connections: Connections, location: str
) -> None:
    error = await sent_on(served, connections, location)
    assert error.what
    assert len(served.requests) == 1


async def test_the_body_of_a_redirect_is_not_waited_for(
    served: Served, other: Served, connections: Connections
) -> None:
    served.answer(HANG, status=307, headers=JSON | {"location": other.url})
    client = client_for(backend_at(served.url), connections)
    with pytest.raises(ProviderError, match="sends on to"):
        await collect(client.stream(ask()))
    await served.left()
    # What the SDKs' clients share is of use afterwards.
    served.answer(BODY)
    assert (await collect(client.stream(ask()))).message.text == "A"
