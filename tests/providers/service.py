"""A service of ours for tests: an answer for each path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from ovagent_jupyter.providers.backend import Backend
from ovagent_jupyter.providers.catalog import PROVIDER_REGISTRY
from ovagent_jupyter.providers.credentials import Secret
from ovagent_jupyter.providers.provider import ModelInfo

KEY = "planted-key-value"


@dataclass
class Service:
    """A service with an answer for each path; others are 404."""

    answers: dict[str, object] = field(default_factory=dict)
    """Path → JSON, bytes as they are, or ``None`` for an answer that never comes."""
    headers: dict[str, str] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str, Mapping[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := (await reader.readline()).decode():
                method, path, _ = line.split()
                head: dict[str, str] = {}
                while (row := (await reader.readline()).decode().strip()) != "":
                    name, _, value = row.partition(":")
                    head[name.lower()] = value.strip()
                body = await reader.readexactly(int(head.get("content-length", 0)))
                self.asked.append((method, path, head, body))
                await self._answer(path, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        found = self.answers.get(path, b"404 page not found")
        if found is None:
            await asyncio.Event().wait()
        content = found if isinstance(found, bytes) else json.dumps(found).encode()
        status = self.status.get(path, 200 if path in self.answers else 404)
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\n{extra}\r\n"
        writer.write(head.encode() + content)
        await writer.drain()

    def backend(self, provider: str, model: str = "m", path: str = "/v1") -> Backend:
        info = replace(PROVIDER_REGISTRY[provider], base_url=f"{self.url}{path}")
        return Backend(
            name=f"{provider}/{model}",
            provider=info,
            model=ModelInfo(id=model),
            key=Secret(KEY, "A_VARIABLE"),
        )


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    """A service that listens."""
    made = Service()
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(made.serve(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    made.url = f"http://{host}:{port}"
    yield made
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
