"""Every executor of the table, and the shipped fake, keep the promises of the protocol."""

from __future__ import annotations

import pytest

from ovagent_jupyter.config.schema import ExecutionConfig
from ovagent_jupyter.errors import ConfinementError, ExecutionError
from ovagent_jupyter.execution.executor import (
    ExecutionRequest,
    ExecutionResult,
    ExecutionStatus,
    Isolation,
)
from ovagent_jupyter.execution.executors import executors, level_name, level_named, levels_from
from ovagent_jupyter.testing.conformance import (
    check_code,
    check_executor,
    check_files,
    check_handover,
    check_lifecycle,
)
from ovagent_jupyter.testing.fake_executor import FakeExecutor


@pytest.mark.parametrize("check", [check_lifecycle, check_code, check_handover, check_files])
@pytest.mark.parametrize("name", list(executors()))
async def test_conformance(name: str, check: object) -> None:
    assert callable(check)
    try:
        await check(executors().get(name))
    except ConfinementError as error:
        if error.cause != "unavailable":
            raise
        pytest.skip(f"this machine has no {name}: {error.why}")


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


@pytest.mark.parametrize("level", ["namespaces", "confined", "process", "in_process"])
def test_the_levels_begin_at_the_one_that_is_asked_for(level: str) -> None:
    strongest_first = sorted(Isolation, reverse=True)
    found = levels_from(ExecutionConfig(sandbox_level=level))  # type: ignore[arg-type]
    assert found == tuple(each for each in strongest_first if each <= level_named(level))
    in_process = ExecutionConfig(sandbox_level=level, use_notebook=False)  # type: ignore[arg-type]
    assert levels_from(in_process) == (Isolation.IN_PROCESS,)


def test_the_table_names_every_level() -> None:
    table = executors()
    assert set(table) >= {level_name(level) for level in Isolation}
    for name in table:
        assert callable(table.get(name))
    assert level_named("process") is Isolation.PROCESS
