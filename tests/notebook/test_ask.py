"""Questions to a model in a real ipykernel, which asks a real server over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovagent_jupyter.loop_thread import LoopThread
from tests.notebook.conftest import SMALL, Notebook, said
from tests.providers.served import HANG, Pause, Served

KEY = "planted-key-0123456789"
ASK = "%%ovagent ask -m asked-model\nwhat is a doublet?"


def piece(text: str, finish: str | None = None) -> bytes:
    """One event of a streamed answer."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 7} if finish else None
    event = {"id": "r1", "model": "asked-model-1", "choices": [choice], "usage": usage}
    return f"data: {json.dumps(event)}\n\n".encode()


ANSWER = (piece("A *doublet* is "), Pause(0.3), piece("two cells."), piece("", "stop"))


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[LoopThread, Served]]:
    """A server on a thread of its own."""
    loop, server = LoopThread("served"), Served()

    async def begin() -> None:
        await server.__aenter__()

    async def end() -> None:
        await server.__aexit__(None, None, None)

    loop.run(begin())
    yield loop, server
    loop.run(end())
    loop.close()


@pytest.fixture(scope="module")
def asking(
    service: tuple[LoopThread, Served], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Notebook]:
    """A kernel whose settings lead to the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVAGENT_ENDPOINT", f"{service[1].url}/v1")
        patch.setenv("OVAGENT_API_KEY", KEY)
        made = Notebook(tmp_path_factory.mktemp("asking"), tmp_path_factory.mktemp("home"))
    assert made.run("%load_ext ovagent_jupyter").status == "ok"
    yield made
    made.close()


def test_an_answer_grows_in_one_display(
    asking: Notebook, service: tuple[LoopThread, Served]
) -> None:
    service[1].answer(*ANSWER)
    started = asking.start(ASK)
    asking.wait_for(started, "<em>doublet</em>")
    run = asking.finish(started)
    assert run.status == "ok", run.error
    shown = [output["data"] for output in run.outputs if "text/html" in output.get("data", {})]
    assert [data["text/plain"] for data in shown] == ["A *doublet* is two cells."]
    assert "asked-model-1" in run.text
    assert "100 + 7 tokens" in run.text


def test_what_was_asked_is_kept_and_no_key(
    asking: Notebook, service: tuple[LoopThread, Served]
) -> None:
    service[1].answer(*ANSWER)
    assert asking.run(ASK).status == "ok"
    assert service[1].requests[-1].headers["authorization"] == f"Bearer {KEY}"
    shown = [asking.run(f"%ovagent {name}") for name in ("status", "usage", "history", "doctor")]
    assert all(run.status == "ok" for run in shown)
    assert "asked-model" in shown[0].text
    assert "asked-model-1" in shown[1].text
    kept = [path for path in Path(asking.home).rglob("*") if path.is_file()]
    texts = [path.read_bytes() for path in kept] + [run.text.encode() for run in shown]
    assert any(b"two cells." in text for text in texts)
    assert [path for path, text in zip(kept, texts, strict=False) if KEY.encode() in text] == []
    assert all(KEY.encode() not in text for text in texts)
    assert KEY not in asking.run("%config OVAgent").text
    assert KEY not in asking.run("get_ipython().user_ns").text


def test_a_question_can_be_stopped(asking: Notebook, service: tuple[LoopThread, Served]) -> None:
    loop, server = service
    server.answer(piece("A *doublet* is "), HANG)
    started = asking.start(ASK)
    asking.wait_for(started, "<em>doublet</em>")
    asking.manager.interrupt_kernel()
    said(asking.finish(started), "Stopped")
    loop.run(server.left())
    server.answer(*ANSWER)
    assert asking.run(ASK).status == "ok"


def test_a_failure_is_short_and_says_what_to_do(
    asking: Notebook, service: tuple[LoopThread, Served]
) -> None:
    error = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
    service[1].answer(json.dumps(error).encode(), status=401, headers={"content-type": "x/json"})
    run = asking.run(ASK)
    said(run, "key")
    assert KEY not in run.error + run.text
    service[1].answer(*ANSWER)


def test_a_dry_run_asks_nobody(asking: Notebook, service: tuple[LoopThread, Served]) -> None:
    before = len(service[1].requests)
    run = asking.run(ASK.replace("ask ", "ask --dry-run "))
    assert run.status == "ok", run.error
    assert "tokens" in run.text
    assert len(service[1].requests) == before


def test_without_a_model_the_remedy_is_named(asking: Notebook) -> None:
    said(asking.run("%%ovagent ask\nwhat is a doublet?"), "no model to ask")


def test_a_model_named_for_a_request_is_told_to_answer_questions_only(
    asking: Notebook, service: tuple[LoopThread, Served]
) -> None:
    before = len(service[1].requests)
    assert asking.run(SMALL).status == "ok"
    run = asking.run("%%ovagent plan -m asked-model\nnormalise")
    asking.run("del adata")
    assert run.status == "ok", run.error
    told = [line for line in run.text.splitlines() if "%%ovagent ask -m asked-model" in line]
    assert len(told) == 1
    assert "nothing was run" in run.text
    assert len(service[1].requests) == before
