"""The child's side of the way back: what changed, in memory that is sealed before it is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ovagent_jupyter.errors import HandoverError
from ovagent_jupyter.execution.handover.baseline import Baseline, Border, border_of
from ovagent_jupyter.execution.handover.exchange import bring
from ovagent_jupyter.execution.handover.fields import Node
from ovagent_jupyter.execution.handover.objects import open_object
from ovagent_jupyter.execution.handover.packing import KEPT, NEW, STAYED, Freight, encode_slots
from ovagent_jupyter.execution.handover.references import References
from ovagent_jupyter.execution.handover.sealed import Segment
from ovagent_jupyter.execution.handover.slots import Path as SlotPath
from ovagent_jupyter.execution.handover.slots import Tree, path_node

_MOST_NOTICES = 500
_DATA = frozenset(
    "anndata builtins datetime geopandas mudata numpy pandas polars pyarrow scipy "
    "spatialdata".split()
)


def new_names(namespace: Mapping[str, Any], known: frozenset[str]) -> tuple[str, ...]:
    """Variables made since the last hand-over that can travel: data, not code."""
    return tuple(
        name
        for name, value in namespace.items()
        if name not in known and not name.startswith("_") and name.isidentifier()
        if _is_data(value)
    )


def _is_data(value: object) -> bool:
    if isinstance(value, type | ModuleType | FunctionType) or callable(value):
        return False
    return type(value).__module__.partition(".")[0] in _DATA


def send(
    namespace: MutableMapping[str, Any],
    names: Iterable[str],
    outputs: Iterable[str],
    end: int,
    token: str,
    *,
    disk: str,
    cap: int | None = None,
    discover: bool = False,
) -> None:
    """Send what changed to the parent.

    Args:
        namespace: The variables of the code that ran.
        names: Objects that were received: only their changed slots are sent.
        outputs: New variables to send as a whole.
        end: Descriptor of this side's end of the exchange.
        token: The call's token, in hexadecimal.
        disk: A directory for what does not fit in memory.
        cap: Bytes of memory that this process may take up; None when nobody counts.
        discover: Add the new variables that hold data.

    Raises:
        HandoverError: There is no room for it, or nobody takes it.
    """
    border = border_of(namespace)
    freight = Freight()
    received = list(dict.fromkeys(names))
    fresh = [*outputs, *(new_names(namespace, border.known) if discover else ())]
    nodes = [_changes(name, namespace, border, freight) for name in received]
    for name in dict.fromkeys(fresh):
        if name in received:
            continue
        if name in namespace:
            nodes.append(_whole(name, namespace[name], freight))
        else:
            freight.leave(name, (), "the code made no such variable")
    notices = [[notice.path, notice.reason] for notice in freight.left]
    header = {"objects": nodes, "left": (border.left + notices)[:_MOST_NOTICES]}
    _deliver(header, freight, References(border), (end, bytes.fromhex(token)), (Path(disk), cap))


def is_as_sent(name: str, namespace: Mapping[str, Any], border: Border) -> bool:
    """Whether a variable is what came, with all its parts."""
    return bool(_changes(name, namespace, border, Freight())["state"] == "same")


def _changes(
    name: str, namespace: Mapping[str, Any], border: Border, freight: Freight
) -> dict[str, Node]:
    if name not in namespace:
        return {"name": name, "state": "removed"}
    baseline = border.objects.get(name)
    aboard, weight = len(freight.buffers), freight.header_size
    try:
        tree = open_object(namespace[name])
        if baseline is None or baseline.kind != tree.kind:
            return _whole(name, namespace[name], freight)
        return _delta(name, tree, baseline, freight)
    except Exception as error:  # noqa: BLE001 - the code's objects may raise anything
        del freight.buffers[aboard:]
        freight.header_size = weight
        return _stays(name, error, freight)


def _delta(name: str, tree: Tree, baseline: Baseline, freight: Freight) -> dict[str, Node]:
    present = list(tree.slots)
    encoded = encode_slots(name, tree, freight, baseline.spare, baseline.stands)
    entries: list[Node] = []
    for path in present:
        form = encoded.get(path)
        if path not in encoded:
            entries.append([path_node(path), STAYED])
        elif form is None or baseline.unchanged(path, form):
            entries.append([path_node(path), KEPT])
        else:
            entries.append([path_node(path), NEW, *freight.load(form)])
    gone = [path_node(path) for path in baseline.slots if path not in set(present)]
    states = {entry[1] for entry in entries}
    can_go = [path for path in present if path in encoded or path in baseline.slots]
    if NEW not in states and not gone and can_go == list(baseline.slots):
        return {"name": name, "state": "same" if states == {KEPT} else "stays"}
    return {"name": name, "state": "delta", "kind": tree.kind, "slots": entries, "gone": gone}


def _whole(name: str, value: object, freight: Freight) -> dict[str, Node]:
    aboard, weight = len(freight.buffers), freight.header_size
    try:
        tree = open_object(value)
        encoded = encode_slots(name, tree, freight, _nothing_spared)
        entries = [
            [path_node(path), NEW, *freight.load(form)]
            for path, form in encoded.items()
            if form is not None
        ]
    except Exception as error:  # noqa: BLE001 - the code's objects may raise anything
        del freight.buffers[aboard:]
        freight.header_size = weight
        return _stays(name, error, freight)
    if not entries:
        return {"name": name, "state": "stays"}
    return {"name": name, "state": "whole", "kind": tree.kind, "slots": entries}


def _nothing_spared(_: SlotPath, __: object) -> bool:
    return False


def _stays(name: str, error: Exception, freight: Freight) -> dict[str, Node]:
    why = error.why if isinstance(error, HandoverError) else f"{type(error).__name__}: {error}"
    freight.leave(name, (), why)
    return {"name": name, "state": "stays"}


def _deliver(
    header: dict[str, Node],
    freight: Freight,
    references: References,
    back: tuple[int, bytes],
    room: tuple[Path, int | None],
) -> None:
    disk, cap = room
    buffers, header["blobs"] = references.replace(freight.buffers)
    try:
        answer = Segment.of(header, buffers, disk, _left(cap))
        try:
            bring(*back, answer.descriptor)
        finally:
            answer.close()
    except OSError as error:
        raise HandoverError(
            "The results cannot be sent to the notebook.",
            why=str(error),
            next_step="Free memory or disk space, or bring back fewer objects.",
        ) from error


def _left(cap: int | None) -> int | None:
    """Bytes of memory that this process may still take, or None when nobody counts."""
    if cap is None:
        return None
    try:
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        used = sum(int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssShmem"))
    except (OSError, KeyError, ValueError):
        return None
    return max(0, cap - used)
