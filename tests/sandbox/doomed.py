"""A parent that is going to be killed: starts a child, runs one cell and waits."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.sandbox import guest
from tests.sandbox.catalogue import load_all
from tests.sandbox.setups import SETUPS


async def main(file: Path) -> None:
    """Do what the file says, print a line, and wait for the end."""
    about = json.loads(file.read_text())
    attack = load_all()[about["attack"]]
    face = SETUPS[about["setup"]].make(attack, file.parent)
    await face.start()
    await face.run(Path(guest.__file__).read_text("utf-8"), 30)
    cell = asyncio.create_task(face.run(about["cell"], attack.timeout))
    # Some never end; what they start is there by then.
    await asyncio.wait({cell}, timeout=2)
    os.write(1, b"ready\n")
    await asyncio.sleep(120)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
