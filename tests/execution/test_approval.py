"""Who must say yes before code runs: once a turn, for what was asked about, else nobody does."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ovagent_jupyter.config.schema import APPROVALS, Approve
from ovagent_jupyter.errors import SandboxDeniedError
from ovagent_jupyter.execution.approval import Approval, RunInCell
from ovagent_jupyter.execution.executor import CodeBatch, ExecutionRequest, Isolation

ASKED_AT = {
    "always": set(Isolation),
    "risky": {Isolation.PROCESS, Isolation.IN_PROCESS},
    "never": set(),
}


class User:
    """Answers as told, and remembers what was asked."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, question: str) -> bool:
        self.asked.append(question)
        return self.answers.pop(0)  # type: ignore[return-value]  # what a careless face returns


def cell(code: str, batch: CodeBatch | None = None) -> ExecutionRequest:
    return ExecutionRequest(code, batch=batch)


def test_the_table_has_every_choice() -> None:
    assert set(ASKED_AT) == set(APPROVALS)


@pytest.mark.parametrize("level", list(Isolation))
@pytest.mark.parametrize("when", APPROVALS)
async def test_who_is_asked_where(when: Approve, level: Isolation) -> None:
    user = User(True)
    await Approval(when, user).require(cell("x"), level)
    assert bool(user.asked) is (level in ASKED_AT[when])
    nobody = Approval(when)
    if level not in ASKED_AT[when]:
        await nobody.require(cell("x"), level)
        return
    with pytest.raises(SandboxDeniedError, match="nobody can be asked") as caught:
        await nobody.require(cell("x"), level)
    assert "approve='never'" in caught.value.next_step
    assert len(caught.value.lines()) == 3


async def here(call: Callable[[], None]) -> None:
    """A cell whose thread is this one."""
    call()


@pytest.mark.parametrize("in_cell", [None, here])
@pytest.mark.parametrize("answer", [False, None, 0, 1, "yes", "no", object()])
async def test_only_a_clear_yes_is_one(answer: object, in_cell: RunInCell | None) -> None:
    with pytest.raises(SandboxDeniedError, match="not run"):
        await Approval("risky", User(answer), in_cell).require(cell("x"), Isolation.PROCESS)


async def test_the_cells_of_a_turn_are_asked_for_once() -> None:
    user = User(True, True)
    approval = Approval("risky", user)
    batch = CodeBatch(("a", "b"))
    for code in ("a", "b", "a"):
        await approval.require(cell(code, batch), Isolation.PROCESS)
    assert len(user.asked) == 1
    assert "the code of this turn" in user.asked[0]
    assert "'process'" in user.asked[0]
    await approval.require(cell("a", CodeBatch(("a", "b"))), Isolation.PROCESS)
    assert len(user.asked) == 2


async def test_a_yes_is_for_the_code_that_was_asked_about() -> None:
    user = User(True, False, True, True)
    approval = Approval("risky", user)
    batch = CodeBatch(("a", "b"))
    await approval.require(cell("a", batch), Isolation.PROCESS)
    with pytest.raises(SandboxDeniedError):
        await approval.require(cell("other", batch), Isolation.PROCESS)
    await approval.require(cell("b", batch), Isolation.PROCESS)
    await approval.require(cell("b"), Isolation.PROCESS)
    assert len(user.asked) == 4


async def test_a_no_is_not_remembered_as_anything() -> None:
    user = User(False, True)
    approval = Approval("risky", user)
    batch = CodeBatch(("a",))
    with pytest.raises(SandboxDeniedError):
        await approval.require(cell("a", batch), Isolation.PROCESS)
    await approval.require(cell("a", batch), Isolation.PROCESS)
    assert len(user.asked) == 2


async def test_the_question_is_put_in_the_cells_thread_and_its_errors_pass() -> None:
    ran_in: list[str] = []

    async def in_cell(call: Callable[[], None]) -> None:
        thread = threading.Thread(target=call, name="cell")
        thread.start()
        thread.join()

    def ask(_question: str) -> bool:
        ran_in.append(threading.current_thread().name)
        return True

    await Approval("always", ask, in_cell).require(cell("x"), Isolation.NAMESPACES)
    assert ran_in == ["cell"]

    def no_stdin(_question: str) -> bool:
        raise SandboxDeniedError("There is no stdin here.")

    with pytest.raises(SandboxDeniedError, match="no stdin"):
        await Approval("risky", no_stdin, here).require(cell("x"), Isolation.PROCESS)
