"""Makes the compiled code that children start with: ``python -m tests.compile_ahead``.

Without it every child that computes neighbours would compile for 15 s.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from ovagent_jupyter.execution.ahead import compile_ahead
from ovagent_jupyter.execution.environment import CACHE
from ovagent_jupyter.execution.executor import Isolation
from ovagent_jupyter.execution.launch import LaunchOptions
from ovagent_jupyter.execution.sandbox.probe import probe

COMPILED = Path(__file__).parents[1] / ".cache" / "compiled"


async def main() -> None:
    level: Isolation = (await probe()).strongest
    environment = {**os.environ, CACHE: str(COMPILED)}
    options = LaunchOptions(isolation=level, environment=environment)
    made = await compile_ahead(options, wait=True)
    print(f"Compiled code for children: {'there' if made else 'not made'} (level {level.name})")


if __name__ == "__main__":
    asyncio.run(main())
