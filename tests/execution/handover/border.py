"""Both sides of the border in one process: hand over, run code there, fetch what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovagent_jupyter.execution.handover import (
    Changes,
    LeftBehind,
    child,
    export_objects,
    read_changes,
)


class Border:
    """A hand-over of some objects, with the child's namespace on the other side."""

    def __init__(self, directory: Path, objects: Mapping[str, object]) -> None:
        self.directory = directory
        self.objects = objects
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        with export_objects(objects, directory) as parcel:
            self.left: tuple[LeftBehind, ...] = parcel.left_behind
            self.names = parcel.names
            child.receive(self.namespace, str(parcel.path))

    def run(self, code: str, outputs: Sequence[str] = (), *, discover: bool = False) -> Changes:
        """Run code on the child's side and fetch what it changed."""
        exec(code, self.namespace)
        child.send(self.namespace, self.names, outputs, str(self.directory), discover=discover)
        return read_changes(self.directory, self.objects)
