"""Objects handed to a real, confined child, and what its code made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ovagent_jupyter.config.sandbox import SandboxSpec
from ovagent_jupyter.execution.handover import Changes, files_of
from ovagent_jupyter.execution.launch import LaunchOptions
from tests.execution.conftest import Kernel


async def changed_in_a_child(
    own: Mapping[str, object], code: str, outputs: Sequence[str]
) -> Changes:
    """Hand everything over with the files it needs, run the code, and fetch what changed."""
    kernel = Kernel(options=LaunchOptions(spec=SandboxSpec()))
    await kernel.grant(files_of(own))
    await kernel.start()
    try:
        assert (await kernel.put(own)).left_behind == ()
        result = await kernel.run(code)
        assert result.ok, result.error
        return await kernel.changes(outputs)
    finally:
        await kernel.shutdown()
