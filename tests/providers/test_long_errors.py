"""Errors without an end, packed or cut: their beginning is read, and their status counts."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest

from ovagent_jupyter.providers.client import ModelClient
from ovagent_jupyter.providers.connections import Connections
from ovagent_jupyter.providers.wires import client_for
from tests.providers.asking import backend_at
from tests.providers.served import CUT, FLOOD, JSON, PAGE, Served
from tests.providers.test_openai_chat import failure_of


@pytest.fixture
def client(served: Served, connections: Connections) -> ModelClient:
    return client_for(backend_at(served.url + "/v1"), connections)


def bomb() -> bytes:
    """256 MiB of JSON, packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    start = packer.compress(b'{"error": {"message": "No tokens left.')
    return start + b"".join(packer.compress(b" " * (1 << 20)) for _ in range(256)) + packer.flush()


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_an_error_without_an_end_is_ended(
    served: Served, client: ModelClient, status: int
) -> None:
    served.answer(b"No tokens left. " * 4096, FLOOD, status=status, headers=PAGE)
    _, error = await failure_of(client)
    assert error.status_code == status
    assert error.why.startswith("No tokens left.")
    await served.left()


async def test_a_packed_error_is_not_unpacked_beyond_its_beginning(
    served: Served, client: ModelClient
) -> None:
    served.answer(bomb(), status=500, headers=JSON | {"content-encoding": "gzip"})
    tracemalloc.start()
    _, error = await failure_of(client)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (error.fault, error.status_code) == ("server", 500)
    assert "No tokens left." in error.why
    assert peak < 32 << 20


SLOW = json.dumps({"error": {"message": "Not so fast."}}).encode()
BARE = zlib.compressobj(wbits=-zlib.MAX_WBITS)


@pytest.mark.parametrize(("packing", "body"), [
    ("gzip", gzip.compress(SLOW)), ("deflate", zlib.compress(SLOW)),
    ("deflate", BARE.compress(SLOW) + BARE.flush()), ("identity", SLOW), ("GZIP", b"garbage"),
    ("br", b"garbage"), ("gzip, gzip", gzip.compress(gzip.compress(SLOW))),
])  # fmt: skip
async def test_packed_errors(
    served: Served, client: ModelClient, packing: str, body: bytes
) -> None:
    for _ in range(2):
        head = JSON | {"content-encoding": packing, "retry-after": "7"}
        served.answer(body, status=429, headers=head)
        _, error = await failure_of(client)
        assert (error.fault, error.retry_after) == ("rate_limited", 7.0)
        assert error.why == ("Not so fast." if body not in OTHERS else "")
    assert served.requests[0].headers["accept-encoding"] == "gzip, deflate"
    # A body that was read to its end leaves its connection to the next call.
    assert served.connections == 1


OTHERS = (b"garbage", gzip.compress(gzip.compress(SLOW)))


async def test_an_error_that_is_cut_keeps_its_status(served: Served, client: ModelClient) -> None:
    served.answer(b'{"error": {"mess', CUT, status=401, headers=JSON)
    _, error = await failure_of(client)
    assert (error.fault, error.status_code) == ("key", 401)
