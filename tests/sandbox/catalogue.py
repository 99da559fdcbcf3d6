"""All attacks: loads the modules that enter them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from tests.sandbox.attack import ATTACKS, Attack

MODULES = (
    "secrets writes metadata network ipc foreign surface descriptors "
    "exhaustion liveness output messages results downgrade"
).split()


def whole(attacks: Mapping[str, Attack]) -> tuple[str, ...]:
    """All of them."""
    return tuple(attacks)


def quick(attacks: Mapping[str, Attack]) -> tuple[str, ...]:
    """Those that take a few seconds at most."""
    return tuple(name for name, one in attacks.items() if not one.slow)


def on_the_system(attacks: Mapping[str, Attack]) -> tuple[str, ...]:
    """Those of them that the operating system stands against; the parent is the same everywhere."""
    return tuple(name for name in quick(attacks) if not attacks[name].parent)


def shared(attacks: Mapping[str, Attack]) -> tuple[str, ...]:
    """Those that share one child, and so cost next to nothing."""
    return tuple(
        name for name in quick(attacks) if not attacks[name].alone and attacks[name].ritual is None
    )


def load_all() -> Mapping[str, Attack]:
    """The attacks by id."""
    for name in MODULES:
        importlib.import_module(f"tests.sandbox.attacks.{name}")
    return ATTACKS
