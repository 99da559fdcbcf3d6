"""Every executor of the table, and the shipped fake, keep the promises of the protocol."""

from __future__ import annotations

import pytest

from ovagent_jupyter.errors import ExecutionError
from ovagent_jupyter.execution.executor import ExecutionRequest, ExecutionResult, ExecutionStatus
from ovagent_jupyter.execution.executors import executors
from ovagent_jupyter.testing.conformance import (
    check_code,
    check_executor,
    check_handover,
    check_lifecycle,
)
from ovagent_jupyter.testing.fake_executor import FakeExecutor


@pytest.mark.parametrize("check", [check_lifecycle, check_code, check_handover])
@pytest.mark.parametrize("name", list(executors()))
async def test_conformance(name: str, check: object) -> None:
    assert callable(check)
    await check(executors().get(name))


async def test_all_checks_at_once() -> None:
    await check_executor(executors().get("in_process"))


async def test_a_broken_executor_is_found() -> None:
    with pytest.raises(AssertionError, match="keeps this promise"):
        await check_code(FakeExecutor)
    await check_lifecycle(FakeExecutor)


async def test_the_fake_answers_as_scripted() -> None:
    fake = FakeExecutor(
        [
            "text\n",
            lambda request: ExecutionResult(ExecutionStatus.TIMEOUT, duration=len(request.code)),
            ExecutionError("ours"),
            ExecutionResult(ExecutionStatus.DEAD),
        ]
    )
    await fake.start()
    assert (await fake.execute(ExecutionRequest("a"))).stdout == "text\n"
    assert (await fake.execute(ExecutionRequest("bb"))).duration == 2
    with pytest.raises(ExecutionError, match="ours"):
        await fake.execute(ExecutionRequest("c"))
    await fake.execute(ExecutionRequest("d"))
    assert not fake.alive
    assert [request.code for request in fake.requests] == ["a", "bb", "c", "d"]
