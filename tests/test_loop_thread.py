"""The private loop: results, errors, interrupts, and what follows a cancellation."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from ovagent_jupyter.errors import TurnInterrupted
from ovagent_jupyter.loop_thread import CallerThread, LoopThread


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def broken() -> None:
    raise ValueError("as it was raised")


def test_results_and_errors_come_back() -> None:
    loop = LoopThread()
    assert loop.run(answer()) == 42
    with pytest.raises(ValueError, match="as it was raised"):
        loop.run(broken())
    loop.close()
    loop.close()


def test_a_time_out_of_the_work_itself_is_not_taken_for_a_slice() -> None:
    async def late() -> None:
        raise TimeoutError("the work's own")

    loop = LoopThread()
    with pytest.raises(TimeoutError, match="the work's own"):
        loop.run(late())
    loop.close()


def test_an_interrupt_waits_for_the_clean_up() -> None:
    loop = LoopThread()
    cleaned = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
            cleaned.append(True)

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(TurnInterrupted):
        loop.run(long())
    assert cleaned == [True]
    assert loop.run(answer()) == 42
    loop.close()


def test_work_that_ignores_the_cancellation_does_not_hold_the_caller_for_ever() -> None:
    loop = LoopThread()
    free = threading.Event()

    async def stubborn() -> None:
        while not free.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    work = loop.submit(stubborn())
    time.sleep(0.1)
    assert loop.stop(work) is False
    free.set()
    work.future.result(10)
    loop.close()


async def test_driving_from_another_loop_and_cancelling_it() -> None:
    loop = LoopThread()
    assert await loop.drive(answer()) == 42
    stopped = threading.Event()

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    task = asyncio.create_task(loop.drive(long()))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set()
    loop.close()


def test_calls_run_in_the_thread_that_waits() -> None:
    loop, caller = LoopThread(), CallerThread()
    threads = []

    async def work() -> None:
        await caller.run(lambda: threads.append(threading.current_thread()))
        with pytest.raises(KeyError):
            await caller.run(lambda: {}["missing"])

    loop.run(work(), caller.serve)
    assert threads == [threading.main_thread()]
    loop.close()


def test_interrupts_that_follow_each_other_at_once_are_one_stop() -> None:
    loop = LoopThread()

    async def stubborn() -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(60)

    for delay in (0.2, 0.2, 0.21):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(TurnInterrupted):
        loop.run(stubborn())
    loop.close()


def test_a_handler_of_the_users_own_stays() -> None:
    seen = []
    loop = LoopThread()
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(True))
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        loop.run(asyncio.sleep(0.5))
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [True]
    loop.close()


def test_a_fork_has_a_loop_of_its_own() -> None:
    loop = LoopThread()
    loop.run(asyncio.sleep(0))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        loop.run(asyncio.sleep(0))
        os.write(write, b"done")
        os._exit(0)
    os.close(write)
    assert os.read(read, 9) == b"done"
    os.close(read)
    os.waitpid(pid, 0)
    loop.close()
