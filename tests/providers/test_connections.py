"""Clients are shared, closed, made for one loop and one key, and speak to checked addresses."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from importlib.util import find_spec
from typing import ClassVar

import pytest

from ovagent_jupyter.errors import ConfigError, ProviderError, RegistryError
from ovagent_jupyter.providers.client import collect
from ovagent_jupyter.providers.connections import Address, Connections, address_of
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.provider import ProviderInfo, WireAPI
from ovagent_jupyter.providers.wires import WIRES, client_for
from tests.providers.asking import KEY, ask, backend_at
from tests.providers.served import Served, events

ANSWER = events({"choices": [{"delta": {"content": "A"}, "finish_reason": "stop"}]})


class Counted:
    """A client that only tells whether it is open."""

    made: ClassVar[list[Counted]] = []

    def __init__(self, address: Address) -> None:
        self.address = address
        self.thread = threading.current_thread()
        self.closed_in: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        self.closed_in = asyncio.get_running_loop()


def make(address: Address) -> Counted:
    return Counted(address)


async def leased(connections: Connections, url: str = "http://x/v1", **fields: object) -> Counted:
    async with connections.lease(backend_at(url, **fields), make) as client:
        return client


async def test_one_client_for_an_address_and_a_key(connections: Connections) -> None:
    first = await leased(connections)
    assert await leased(connections, "http://x/v1/") is first
    others = [
        await leased(connections, "http://y/v1"),
        await leased(connections, key=Secret("another-key")),
        await leased(connections, headers={"x-team": "a"}),
    ]
    assert len({id(client) for client in [first, *others]}) == 4
    assert first.thread is not threading.current_thread()


async def test_calls_that_begin_together_share_one(connections: Connections) -> None:
    clients = await asyncio.gather(*(leased(connections) for _ in range(20)))
    assert len({id(client) for client in clients}) == 1


async def test_all_are_closed(connections: Connections) -> None:
    clients = [await leased(connections, f"http://h{n}/v1") for n in range(3)]
    await connections.aclose()
    assert all(client.closed_in for client in clients)
    assert connections.count == 0
    assert await leased(connections, "http://h0/v1") is not clients[0]


async def test_few_are_kept_and_none_that_is_in_use_is_closed() -> None:
    connections = Connections(keep=2)
    async with connections.lease(backend_at("http://used/v1"), make) as used:
        clients = [await leased(connections, f"http://h{n}/v1") for n in range(4)]
        assert used.closed_in is None
    assert connections.count == 2
    assert [bool(client.closed_in) for client in clients] == [True, True, True, False]
    assert used.closed_in is None
    await connections.aclose()
    assert used.closed_in


def test_each_loop_has_its_own() -> None:
    connections = Connections()

    async def lease() -> Counted:
        return await leased(connections)

    first = asyncio.run(lease())
    second = asyncio.run(lease())
    assert first is not second
    # The client of a loop that is gone is forgotten, not closed in another.
    assert connections.count == 1
    asyncio.run(connections.aclose())
    assert first.closed_in is None


async def test_those_of_another_loop_are_closed_there(connections: Connections) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    leasing = asyncio.run_coroutine_threadsafe(leased(connections), loop)
    client = await asyncio.wrap_future(leasing)
    await connections.aclose()
    assert client.closed_in is loop
    loop.call_soon_threadsafe(loop.stop)
    await asyncio.to_thread(thread.join)
    loop.close()


async def test_an_sdk_that_is_missing_is_named(connections: Connections) -> None:
    def missing(address: Address) -> Counted:
        import no_such_sdk  # type: ignore[import-not-found]

        return Counted(no_such_sdk)

    with pytest.raises(ProviderError, match="no_such_sdk"):
        async with connections.lease(backend_at("http://x/v1"), missing):
            pass
    await leased(connections)


# -- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("url", "remedy"), [
    ("", "base_url"),
    ("localhost:11434/v1", "http://localhost:11434/v1"),
    ("127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("api.acme.example/v1", "https://api.acme.example/v1"),
    ("ftp://acme.example/v1", "https://host/v1"),
    ("https://", "https://host/v1"),
    ("https:///v1", "https://host/v1"),
    ("https://acme .example/v1", "https://host/v1"),
    ("https://acme.example:99999/v1", "https://host/v1"),
    ("https://acme.example:x/v1", "https://host/v1"),
    ("https://[acme/v1", "https://host/v1"),
    ("https://acme.example/v1#top", "https://acme.example/v1"),
    ("https://acme.example/v1/chat/completions", "leave out /chat/completions"),
    ("https://acme.example/v1/models/", "leave out /models"),
    ("https://acme.example/v1\x00", "https://host/v1"),
])  # fmt: skip
async def test_addresses_that_are_none(connections: Connections, url: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await collect(client_for(backend_at(url), connections).stream(ask()))
    assert "Acme" in caught.value.what
    assert remedy in caught.value.next_step


def test_an_address_with_a_password_is_not_shown_with_it() -> None:
    with pytest.raises(ConfigError) as caught:
        address_of(backend_at("https://me:pass word@acme.example/v1"))
    assert "pass" not in str(caught.value)


def test_variables_that_set_it_are_named() -> None:
    info = ProviderInfo(
        id="a", display_name="A", wire_api=WireAPI.CHAT_COMPLETIONS, base_url_env=("A_URL", "B_URL")
    )
    with pytest.raises(ConfigError) as caught:
        address_of(backend_at("", provider=info))
    assert "A_URL or B_URL" in caught.value.next_step


@pytest.mark.parametrize("key", ["sk-a b", "sk-a\n", "schlüssel", "sk\x00"])
def test_a_key_that_cannot_be_sent(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        address_of(backend_at("http://x/v1", key=Secret(key, "ACME_API_KEY")))
    assert "ACME_API_KEY" in caught.value.next_step
    assert key not in str(caught.value)


def test_a_header_that_cannot_be_sent() -> None:
    with pytest.raises(ConfigError, match="X-Team"):
        address_of(backend_at("http://x/v1", headers={"X-Team": "a\r\nHost: b"}))


def test_an_address_tells_no_key() -> None:
    address = address_of(backend_at("http://x/v1"))
    assert KEY not in repr(address)
    assert KEY not in address.digest()


# -- what is sent by the SDK ----------------------------------------------------------------------


async def sent(served: Served, connections: Connections, **fields: object) -> dict[str, str]:
    served.always(ANSWER)
    url = str(fields.pop("url", "/v1"))
    await collect(client_for(backend_at(served.url + url, **fields), connections).stream(ask()))
    return dict(served.requests[-1].headers)


def acme(**fields: object) -> ProviderInfo:
    given = {"id": "acme", "display_name": "Acme", "wire_api": WireAPI.CHAT_COMPLETIONS}
    return ProviderInfo(**(given | fields))  # type: ignore[arg-type]


async def test_headers(served: Served, connections: Connections) -> None:
    headers = await sent(
        served,
        connections,
        provider=acme(headers={"x-app": "ov", "x-b": "1"}),
        headers={"x-b": "2"},
    )
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (headers["x-app"], headers["x-b"]) == ("ov", "2")


async def test_a_key_with_a_header_of_its_own(served: Served, connections: Connections) -> None:
    headers = await sent(served, connections, provider=acme(id="azure", key_header="api-key"))
    assert headers["api-key"] == KEY
    assert "authorization" not in headers


async def test_a_query_goes_with_every_call(served: Served, connections: Connections) -> None:
    await sent(served, connections, url="/openai/deployments/d?api-version=2026-01-01")
    path = served.requests[-1].path
    assert path == "/openai/deployments/d/chat/completions?api-version=2026-01-01"


async def test_no_key_is_sent_where_there_is_none(
    served: Served, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    headers = await sent(served, connections, key=Secret(""))
    assert "authorization" not in headers
    assert "sk-of-somebody-else" not in str(headers)
    given = {"Authorization": "Basic abc"}
    headers = await sent(served, connections, key=Secret(""), headers=given)
    assert headers["authorization"] == "Basic abc"


async def test_what_is_for_openai_goes_to_nobody_else(
    served: Served, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert "org-1" not in str(await sent(served, connections))
    assert "proj-1" not in str(await sent(served, connections))
    own = await sent(served, connections, provider=acme(id="openai"))
    assert own["openai-organization"] == "org-1"


GATEWAY = "Authorization: Bearer planted\nx-api-key: planted\nX-Gw: planted\ncontent-type: planted"


@pytest.mark.parametrize("wire", [WireAPI.CHAT_COMPLETIONS, WireAPI.ANTHROPIC_MESSAGES])
@pytest.mark.parametrize("key", [KEY, ""])
async def test_headers_of_a_variable_go_to_no_other_service(
    served: Served,
    connections: Connections,
    monkeypatch: pytest.MonkeyPatch,
    wire: WireAPI,
    key: str,
) -> None:
    for variable in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.setenv(variable, GATEWAY)
    served.always(b"{}", status=400)
    given = {"X-Gw": "mine"}
    for fields in ({}, {"headers": given}, {"provider": acme(wire_api=wire, key_header="api-key")}):
        backend = backend_at(served.url, wire, key=Secret(key), **fields)
        with pytest.raises(ProviderError):
            await collect(client_for(backend, connections).stream(ask()))
        headers = served.requests[-1].headers
        assert "planted" not in str(headers).replace(KEY, "")
        assert headers["content-type"] == "application/json"
        assert headers.get("x-gw") == fields.get("headers", {}).get("X-Gw")
        bearer = f"Bearer {KEY}" if key and "provider" not in fields else None
        assert headers.get("authorization") == bearer
        assert headers.get("api-key") == (key or None if "provider" in fields else None)


async def test_a_header_of_the_user_is_kept_beside_a_variable(
    served: Served, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", GATEWAY)
    headers = await sent(served, connections, headers={"authorization": "Basic abc"})
    assert headers["authorization"] == "Basic abc"


# -- an environment that is wrong -----------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wire", [WireAPI.CHAT_COMPLETIONS, WireAPI.ANTHROPIC_MESSAGES])
@pytest.mark.parametrize(("variable", "value"), [
    ("SSL_CERT_FILE", "/no/such/file.pem"),
    ("SSL_CERT_FILE", __file__),
    ("SSL_CERT_FILE", "/"),
    ("HTTPS_PROXY", "carrier://me:pass@pigeon:1"),
    ("http_proxy", "http://me:pa/ss@proxy:1"),
    ("ALL_PROXY", "proxy:port"),
])  # fmt: skip
async def test_a_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, connections: Connections, wire: WireAPI,
    variable: str, value: str,
) -> None:  # fmt: skip
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ProviderError) as caught:
        await collect(
            client_for(backend_at("https://127.0.0.1:1", wire), connections).stream(ask())
        )
    error = caught.value
    assert error.what.startswith(f"{variable} ")
    assert variable in error.next_step
    assert (error.fault, error.retryable) == ("unreachable", False)
    assert "pa" not in (error.why + error.next_step).split()
    assert "pass" not in str(error)
    # Neither is anything printed when what was half made is forgotten.
    gc.collect()


async def test_what_a_socks_proxy_needs_is_named(
    monkeypatch: pytest.MonkeyPatch, connections: Connections
) -> None:
    if find_spec("socksio"):
        pytest.skip("socksio is installed")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ProviderError, match="socksio") as caught:
        await collect(client_for(backend_at("http://x.example/v1"), connections).stream(ask()))
    assert caught.value.next_step == "pip install socksio"
    gc.collect()


# -- the table of wires ---------------------------------------------------------------------------


def test_every_wire_has_a_row() -> None:
    assert set(WIRES) >= set(WireAPI)
    with pytest.raises(RegistryError):
        WIRES.get("telegraph")


def test_no_sdk_is_loaded_before_the_first_call() -> None:
    code = (
        "import sys; from ovagent_jupyter.providers.wires import WIRES; "
        "assert not {'openai', 'anthropic', 'httpx', 'httpx2', 'jiter'} & set(sys.modules); "
        "WIRES.get('chat_completions'); "
        "assert not {'openai', 'anthropic', 'httpx', 'httpx2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
