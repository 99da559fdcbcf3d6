"""A wait ends when its time is up, and only a wait: a slow consumer is nobody's fault."""

from __future__ import annotations

import asyncio

import pytest

from ovagent_jupyter.providers.watch import Watch

SOON = 0.02
LONG = 60.0


async def test_a_wait_that_takes_too_long_ends() -> None:
    watch = Watch(LONG)
    with pytest.raises(TimeoutError, match=r"Nothing came for 0.02 s"), watch.within(SOON):
        await asyncio.Event().wait()
    # The task was cancelled and that was taken back.
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    watch.close()


async def test_what_is_in_time_is_left_alone() -> None:
    watch = Watch(LONG)
    for _ in range(5):
        with watch.within(LONG):
            await asyncio.sleep(0)
    watch.close()


async def test_it_does_not_fire_between_waits() -> None:
    watch = Watch(LONG)
    with watch.within(SOON):
        await asyncio.sleep(0)
    await asyncio.sleep(3 * SOON)
    with watch.within(LONG):
        await asyncio.sleep(0)
    watch.close()


async def test_a_shorter_limit_after_a_longer_one_counts() -> None:
    watch = Watch(LONG)
    with watch.within(LONG):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), watch.within(SOON):
        await asyncio.Event().wait()
    watch.close()


async def test_a_longer_limit_after_a_shorter_one_counts() -> None:
    watch = Watch(LONG)
    with watch.within(SOON):
        await asyncio.sleep(0)
    with watch.within(LONG):
        await asyncio.sleep(3 * SOON)
    watch.close()


async def test_all_of_it_has_an_end() -> None:
    watch = Watch(SOON)
    with pytest.raises(TimeoutError, match=r"did not end within 0.02 s"), watch.within(LONG):
        await asyncio.Event().wait()
    with pytest.raises(TimeoutError, match=r"did not end within"), watch.within(LONG):
        await asyncio.sleep(0)
    watch.close()


async def test_who_is_cancelled_by_others_is_cancelled() -> None:
    async def wait() -> None:
        watch = Watch(LONG)
        with watch.within(LONG):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_by_both_is_cancelled() -> None:
    async def wait() -> None:
        watch = Watch(LONG)
        with watch.within(SOON):
            try:
                await asyncio.Event().wait()
            finally:
                task.cancel()

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task
