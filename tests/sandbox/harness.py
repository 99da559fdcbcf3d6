"""Carries out attacks as the user it runs as: ``python -m tests.sandbox.harness --out FILE``.

It is a process of its own: it takes the place of the user's kernel, secrets in its environment
and careless descriptors included, and everything the attacks may find lies in the directory
``--base``, its home included.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import json
import os
import secrets
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.sandbox import guest
from tests.sandbox.attack import ATTACKS, Attack, Stage
from tests.sandbox.catalogue import load_all
from tests.sandbox.faces import Face, Shot
from tests.sandbox.processes import adopt_orphans
from tests.sandbox.setups import SETUPS, Setup
from tests.sandbox.witness import Witness

PRELUDE = Path(guest.__file__).read_text("utf-8")
START_PATIENCE = 90.0
"""Seconds."""


@dataclass(slots=True)
class Outcome:
    """What one attack came to."""

    won: str = ""
    """What it achieved; empty when nothing."""
    status: str = ""
    error: str = ""
    seconds: float = 0.0
    """Until the result was there."""
    spent: float = 0.0
    """With a child of its own started, and everything put back."""


@dataclass(slots=True)
class Report:
    """What all attacks came to on one setup as one user."""

    setup: str
    user: int
    protections: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    """Attacks whose target this machine or user lacks."""
    left: int = 0
    """Processes that were there after the last child was shut down."""
    seconds: float = 0.0
    failure: str = ""
    """Why no attack could be carried out."""


class Range:
    """Carries out attacks on one setup.

    Args:
        setup: How children are started.
        witness: Who judges.
        keep: Called after each attack.
    """

    def __init__(self, setup: Setup, witness: Witness, keep: Callable[[], None]) -> None:
        self._setup = setup
        self._keep = keep
        self._witness = witness
        self._face: Face | None = None
        self._keepers: list[int] = []
        self.report = Report(setup.name, os.getuid())

    async def carry_out(self, attacks: Sequence[Attack]) -> None:
        """Carry out all of them; those that harm their own child come last."""
        begun = time.monotonic()
        wanted = [one for one in attacks if self._setup.takes(one)]
        for one in sorted(wanted, key=lambda one: one.alone or one.ritual is not None):
            if one.ready is not None and not one.ready(self._witness):
                self.report.absent.append(one.id)
                continue
            started = time.monotonic()
            outcome = self.report.outcomes[one.id] = await self._one(one)
            outcome.spent = round(time.monotonic() - started, 2)
            self._keep()
        await self._end()
        self.report.left = self._witness.processes.end()
        self.report.seconds = time.monotonic() - begun

    async def _one(self, one: Attack) -> Outcome:
        if one.alone:
            await self._end()
        face = await self._child(one)
        print(f"{self._setup.name}: {one.id}", file=sys.stderr, flush=True)
        tag = f"t{secrets.token_hex(6)}"
        stage = Stage(one, self._witness, face, self._cell(one, tag), tag, self._setup.name)
        self._witness.mark()
        shot: Shot = (
            await one.ritual(stage)
            if one.ritual is not None
            else await face.run(stage.cell, one.timeout, tag)
        )
        shot.notes = {"keepers": self._keepers, **(shot.notes or {})}
        won = one.judge(self._witness, shot) or self._witness.mend_devices()
        outcome = Outcome(won, shot.status, shot.error[:300], round(shot.seconds, 2))
        if one.alone or not face.alive or shot.status in {"hung", "raised"}:
            await self._end()
            self._witness.processes.end()
        self._witness.restore()
        return outcome

    async def _child(self, one: Attack) -> Face:
        if self._face is None:
            self._face = self._setup.make(one, self._witness.base)
        if not self._face.alive:
            await asyncio.wait_for(self._face.start(), START_PATIENCE)
            await self._face.run(PRELUDE, 30)
            pids = [process.pid for process in self._witness.tree()]
            self._keepers = pids[:-1]
            self.report.protections |= dict(getattr(self._face, "protections", {}))
        return self._face

    async def _end(self) -> None:
        face, self._face = self._face, None
        if face is not None:
            with contextlib.suppress(TimeoutError):
                await face.stop()

    def _cell(self, one: Attack, tag: str) -> str:
        facts = {**self._witness.facts(tag), "keepers": self._keepers}
        # All in one function, so that nothing of it stays among the child's variables.
        return (
            f"import json\nlet_go()\n_scene = Scene(**json.loads({json.dumps(facts)!r}))\n"
            f"{textwrap.dedent(one.code)}\n{one.function}(_scene)\n"
        )


async def main(arguments: argparse.Namespace) -> list[Report]:
    """Run every setup that is named."""
    chosen = [ATTACKS[name] for name in arguments.attacks or ATTACKS]
    witness = Witness(arguments.base)
    reports: list[Report] = []
    try:
        for name in arguments.setups:
            place = Range(SETUPS[name], witness, lambda: write(arguments.out, reports))
            reports.append(place.report)
            try:
                await place.carry_out(chosen)
            except Exception as error:
                if arguments.strict:
                    raise
                place.report.failure = f"{type(error).__name__}: {error}"
            write(arguments.out, reports)
    finally:
        witness.processes.end()
        witness.close()
    return reports


def write(path: Path, reports: Sequence[Report]) -> None:
    """Keep the reports; also those of a run that does not come to its end."""
    plain: list[dict[str, Any]] = [asdict(report) for report in reports]
    path.write_text(json.dumps(plain, indent=1))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(prog="harness")
    parser.add_argument("--base", type=Path, required=True, help="a fresh directory of the user's")
    parser.add_argument("--out", type=Path, required=True, help="where results go, as JSON")
    parser.add_argument("--setups", nargs="+", default=["process"], help="see setups.py")
    parser.add_argument("--attacks", nargs="*", help="some attacks by id; all by default")
    parser.add_argument("--limit", type=int, default=270, help="seconds until it gives up")
    parser.add_argument("--strict", action="store_true", help="end at the first failure of ours")
    return parser.parse_args(words)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    os.umask(0o077)
    adopt_orphans()
    load_all()
    chosen = parse()
    faulthandler.dump_traceback_later(chosen.limit, exit=True)
    asyncio.run(main(chosen))
    faulthandler.cancel_dump_traceback_later()
