"""What the data will look like after each planned step, without touching it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ovagent_jupyter.omics.checks import NOT_SLOTS
from ovagent_jupyter.omics.rendering import literal
from ovagent_jupyter.omics.state import Column, DataState, XState
from ovagent_jupyter.omics.step import Params, Step, XKind

_PLANNED = "It is what the step before leaves."
SURE = 0.9
"""Confidence in a matrix's state from which the planner acts on it."""
_RANKS = ("markers", "de_two_groups")
KEPT = frozenset({"obs/leiden", "obs/louvain"})
"""Labels of cells that stay in use when the graph they came from is made anew."""
BORROWED = "X_before"
"""Layer that holds X while a step works on the counts."""


def empty_state(name: str) -> DataState:
    """The card of a dataset that is not loaded yet."""
    return DataState(
        name=name, n_obs=1, n_vars=1, x=XState(XKind.UNKNOWN, 0.0, "The file was not read yet."),
        obs={}, var={}, layers={}, obsm={}, varm={}, obsp={}, varp={}, uns=frozenset(), raw=None,
        genes={}, species=None, unique_obs_names=True, unique_var_names=True, has_nan=False,
    )  # fmt: skip


def after(state: DataState, step: Step, params: Params) -> DataState:
    """The card after a step ran: what it made is there, what it made stale is gone."""
    if not step.needs_data:
        state = empty_state(state.name)
    written = [slot for slot in step.written_slots(params) if slot not in NOT_SLOTS]
    regrouped = {slot.removeprefix("obs/") for slot in written if slot.startswith("obs/")}
    of_old_groups = [slot for slot, column in state.made_with.items() if column in regrouped]
    for slot in (*step.makes_stale, *of_old_groups):
        if slot not in written and slot not in KEPT:
            state = without(state, slot)
    kind = XState(step.leaves_x, 1.0, _PLANNED) if step.leaves_x is not None else state.x
    if not step.needs_data and step.leaves_x is None:
        kind = XState(XKind.UNKNOWN, 0.0, "The file was not read yet.")
    state = replace(state, x=kind)
    for slot in written:
        state = with_slot(state, slot)
    return _noted(state, step, params, written)


def _noted(state: DataState, step: Step, params: Params, written: Collection[str]) -> DataState:
    """The card with the groups that the step's results are of."""
    values = {**step.defaults(), **params}
    made = {slot: column for slot, column in state.made_with.items() if state.has(slot)}
    for slot in written:
        made.pop(slot, None)
        if step.id in _RANKS and slot.startswith("uns/"):
            reference = str(values.get("reference", "rest"))
            column = str(values.get("groupby"))
            made[slot] = column if reference == "rest" else f"{column} against {reference}"
    return replace(state, made_with=made)


def with_slot(state: DataState, slot: str) -> DataState:
    """The card with one more slot."""
    place, _, key = slot.partition("/")
    if place == "raw":
        return replace(state, raw=state.x)
    if place == "uns":
        return replace(state, uns=state.uns | {key})
    if place not in ("obs", "var", "layers", "obsm", "varm", "obsp", "varp"):
        return state
    held: Any
    if place in ("obs", "var"):
        held = _column(key)
    elif place == "layers":
        held = state.x if key == "counts" else XState(XKind.SCALED, 1.0, _PLANNED)
    else:
        held = (state.n_obs, 2)
    changed: dict[str, Any] = {place: {**getattr(state, place), key: held}}
    return replace(state, **changed)


def _column(key: str) -> Column:
    numeric = any(
        part in key for part in ("counts", "genes", "score", "pseudotime", "density", "confidence")
    )
    return Column(key, "float" if numeric else "categorical", None)


def without(state: DataState, slot: str) -> DataState:
    """The card with one slot less."""
    place, _, key = slot.partition("/")
    if place == "uns":
        return replace(state, uns=state.uns - {key})
    held = getattr(state, place, None)
    if not isinstance(held, dict) or key not in held:
        return state
    changed: dict[str, Any] = {place: {name: held[name] for name in held if name != key}}
    return replace(state, **changed)


def counts_layer(state: DataState) -> str | None:
    """A layer that surely holds counts."""
    for name, held in state.layers.items():
        if held.kind is XKind.COUNTS and held.confidence >= SURE:
            return name
    return None


def on_counts(code: str, name: str, layer: str) -> str:
    """Code that runs with the counts in X, and puts X back."""
    return (
        f"# on the counts: X is put back afterwards\n"
        f'{name}.layers["{BORROWED}"] = {name}.X.copy()\n'
        f"{name}.X = {name}.layers[{literal(layer)}].copy()\n"
        f"{code}\n"
        f'{name}.X = {name}.layers.pop("{BORROWED}")'
    )
