"""Ways to ask a model, each measured in a process of its own, in whatever environment has it.

Run as a program with the name of a way and the address of a server, it reads what to measure from
its input, one word a line, and writes one number a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from importlib import import_module
from typing import Any, Protocol

CALLS = 60
"""Calls in one measurement."""
PROMPT = "Which clusters are there?"
KEY = "sk-benchmark"
MESSAGES = [{"role": "user", "content": PROMPT}]


class Way(Protocol):
    """One way to ask."""

    def stream(self, model: str) -> AsyncIterator[object]:
        """A streamed answer: something for each piece of its text."""

    async def call(self) -> object:
        """An answer in one piece."""


class RawSocket:
    """A bare socket, and nothing that reads what comes: the floor.

    Args:
        url: Where the server is.
    """

    def __init__(self, url: str) -> None:
        self._host, self._port = url.removeprefix("http://").split(":")
        self._open: Any = None

    async def stream(self, model: str) -> AsyncIterator[object]:
        """Count the events."""
        reader, _ = await self._ask(model, "true")
        data = b""
        while b"[DONE]" not in data[-200:]:
            data = data[-4:] + await reader.read(1 << 16)
            for _ in range(data.count(b"data:", 4)):
                yield None

    async def call(self) -> object:
        """Read until the answer is whole."""
        reader, _ = await self._ask("fast", "false")
        head = await reader.readuntil(b"\r\n\r\n")
        return await reader.readexactly(int(head.rstrip().rsplit(b" ", 1)[1]))

    async def _ask(self, model: str, streamed: str) -> Any:
        if streamed == "true" or self._open is None:
            self._open = await asyncio.open_connection(self._host, self._port)
        body = (f'{{"model":"{model}","stream":{streamed},'
                f'"messages":[{{"role":"user","content":"{PROMPT}"}}]}}')  # fmt: skip
        self._open[1].write(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        return self._open


class Httpx:
    """The HTTP library of both SDKs, and nothing that reads what comes.

    Args:
        url: Where the server is.
    """

    def __init__(self, url: str) -> None:
        self._client = import_module("httpx2").AsyncClient(base_url=url, timeout=60)

    async def stream(self, model: str) -> AsyncIterator[object]:
        """Pass on each piece of bytes."""
        body = {"model": model, "stream": True, "messages": MESSAGES}
        path = "/v1/chat/completions"
        async with self._client.stream("POST", path, json=body) as answer:
            async for data in answer.aiter_bytes():
                for _ in range(data.count(b"data:")):
                    yield None

    async def call(self) -> object:
        """Read the JSON."""
        body = {"model": "fast", "messages": MESSAGES}
        return (await self._client.post("/v1/chat/completions", json=body)).json()


class OpenAI:
    """OpenAI's SDK and its typed stream.

    Args:
        url: Where the server is.
    """

    def __init__(self, url: str) -> None:
        sdk = import_module("openai")
        self._client = sdk.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)

    async def stream(self, model: str) -> AsyncIterator[object]:
        """Pass on each text."""
        create = self._client.chat.completions.create
        async for event in await create(model=model, messages=MESSAGES, stream=True):
            if event.choices and event.choices[0].delta.content:
                yield event.choices[0].delta.content

    async def call(self) -> object:
        """Read the answer."""
        create = self._client.chat.completions.create
        return (await create(model="fast", messages=MESSAGES)).choices[0].message.content


class Anthropic:
    """Anthropic's SDK and its typed stream.

    Args:
        url: Where the server is.
    """

    def __init__(self, url: str) -> None:
        sdk = import_module("anthropic")
        self._client = sdk.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0)

    async def stream(self, model: str) -> AsyncIterator[object]:
        """Pass on each text."""
        create = self._client.messages.create
        async for event in await create(
            model=model, messages=MESSAGES, max_tokens=4096, stream=True
        ):
            if event.type == "content_block_delta":
                yield event.delta.text

    async def call(self) -> object:
        """Read the answer."""
        create = self._client.messages.create
        return (await create(model="fast", messages=MESSAGES, max_tokens=4096)).content[0].text


class LiteLLM:
    """LiteLLM's router.

    Args:
        url: Where the server is.
    """

    def __init__(self, url: str) -> None:
        sdk = import_module("litellm")
        self._routers = {
            name: sdk.Router(
                model_list=[
                    {
                        "model_name": name,
                        "litellm_params": {
                            "model": f"openai/{name}",
                            "api_base": f"{url}/v1",
                            "api_key": KEY,
                        },
                    }
                ],
                num_retries=0,
            )
            for name in ("fast", "held")
        }

    async def stream(self, model: str) -> AsyncIterator[object]:
        """Pass on each text."""
        ask = self._routers[model].acompletion
        async for event in await ask(model=model, messages=MESSAGES, stream=True):
            if event.choices and event.choices[0].delta.content:
                yield event.choices[0].delta.content

    async def call(self) -> object:
        """Read the answer."""
        answer = await self._routers["fast"].acompletion(model="fast", messages=MESSAGES)
        return answer.choices[0].message.content


class PydanticAI:
    """pydantic-ai's direct requests, without its agents.

    Args:
        url: Where the server is.
    """

    def __init__(self, url: str) -> None:
        models = import_module("pydantic_ai.models.openai")
        provider = import_module("pydantic_ai.providers.openai").OpenAIProvider
        self._direct = import_module("pydantic_ai.direct")
        ask = import_module("pydantic_ai.messages").ModelRequest.user_text_prompt
        self._messages = [ask(PROMPT)]
        self._models = {
            name: models.OpenAIChatModel(name, provider=provider(base_url=f"{url}/v1", api_key=KEY))
            for name in ("fast", "held")
        }

    async def stream(self, model: str) -> AsyncIterator[object]:
        """Pass on each event that has text."""
        ask = self._direct.model_request_stream
        async with ask(self._models[model], self._messages) as events:
            async for event in events:
                if event.event_kind in {"part_start", "part_delta"}:
                    yield event

    async def call(self) -> object:
        """Read the answer."""
        return await self._direct.model_request(self._models["fast"], self._messages)


WAYS: dict[str, Callable[[str], Way]] = {
    "socket": RawSocket,
    "httpx2": Httpx,
    "openai": OpenAI,
    "anthropic": Anthropic,
    "litellm": LiteLLM,
    "pydantic-ai": PydanticAI,
}


def way(name: str, url: str) -> Way:
    """The way of that name; ours are in a module that only our own environment can load."""
    if name in WAYS:
        return WAYS[name](url)
    made: Way = import_module("benchmarks.our_clients").way(name, url)
    return made


async def stream_cost(asked: Way) -> float:
    """CPU seconds of one piece of a streamed answer."""
    from model_server import PIECES  # type: ignore[import-not-found] # beside this program

    began = time.process_time()
    count = 0
    async for _ in asked.stream("fast"):
        count += 1
    took = time.process_time() - began
    if count < PIECES:
        raise RuntimeError(f"{count} pieces of {PIECES} have come")
    return took / count


async def call_cost(asked: Way) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    for _ in range(CALLS):
        await asked.call()
    return (time.process_time() - began) / CALLS


async def first_heard(asked: Way, url: str) -> float:
    """How many pieces the server has sent when the first is heard."""
    stream: Any = asked.stream("held")
    async with aclosing(stream) as pieces:
        async for _ in pieces:
            return await asyncio.to_thread(_sent_until_heard, url)
    raise RuntimeError("nothing has come")


def _sent_until_heard(url: str) -> float:
    request = urllib.request.Request(f"{url}/heard", data=b"")
    with urllib.request.urlopen(request) as answer:
        sent = float(json.load(answer)["sent"])
    if not sent:
        raise RuntimeError("the server has held nothing back")
    return sent


async def main(name: str, url: str) -> None:
    """Measure what the input asks for, until it ends."""
    asked = way(name, url)
    measures: dict[str, Callable[[], Awaitable[float]]] = {
        "stream": lambda: stream_cost(asked),
        "call": lambda: call_cost(asked),
        "first": lambda: first_heard(asked, url),
    }
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(await measures[line.strip()](), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
