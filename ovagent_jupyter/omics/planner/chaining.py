"""Backward chaining: what is missing is added, what is there and fresh is left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ovagent_jupyter.errors import WorkflowNeedsFallback
from ovagent_jupyter.omics.checks import NOT_SLOTS, Finding, check_step
from ovagent_jupyter.omics.planner.columns import CLUSTERS
from ovagent_jupyter.omics.planner.naming import CLUSTERINGS
from ovagent_jupyter.omics.planner.order import PRODUCERS, rank
from ovagent_jupyter.omics.planner.plan import PlannedStep
from ovagent_jupyter.omics.planner.refusals import HOLDS, missing, unfit, unsure
from ovagent_jupyter.omics.planner.results import (
    RANKED,
    SHOWS,
    complete_pca,
    decoration,
    grouping,
    note_stale,
    other_groups,
    shows_markers,
    titled,
    unused_value,
)
from ovagent_jupyter.omics.planner.simulate import (
    KEPT,
    SURE,
    after,
    counts_layer,
    on_counts,
)
from ovagent_jupyter.omics.planner.wanted import Wanted
from ovagent_jupyter.omics.state import DataState, XState
from ovagent_jupyter.omics.step import STEPS, Params, Step, XKind

_PAST = {
    "normalize": frozenset(XKind) - {XKind.COUNTS, XKind.UNKNOWN},
    "log1p": frozenset({XKind.LOGNORM, XKind.SCALED, XKind.CORRECTED, XKind.RESIDUAL}),
}
"""Transforms of X that are behind us in these states."""
_NAMED_BY = {"leiden": ("cluster",), "markers": ("markers",), "harmony": ("integrate",)}
"""Step → recipes that stand for it; the others only bring it along."""
_KEEPS_ALL = frozenset({"subset_hvg", "regress_out", "combat"})


class Chain:
    """Builds the steps of a plan, one after the other, on a simulated state.

    Args:
        wanted: The steps asked for, by id.
        state: The data before the plan.
        excluded: Ids of steps that the user does not want.
        available: Import names of installed packages; None to look.
    """

    def __init__(
        self,
        wanted: Mapping[str, Wanted],
        state: DataState,
        excluded: Collection[str] = (),
        available: Collection[str] | None = None,
    ) -> None:
        self.wanted = dict(wanted)
        self.start = state
        self.state = state
        self.excluded = frozenset(excluded)
        self.available = available
        self.planned: list[PlannedStep] = []
        self.findings: list[Finding] = []
        self.left_out: list[str] = []
        self.skipped: list[str] = []
        self.there_already: list[str] = []
        self.done: set[str] = set()
        self.busy: list[str] = []
        self.stale: set[str] = set()

    def build(self) -> None:
        """Plan every wanted step in the order of an analysis."""
        for wanted in sorted(self.wanted.values(), key=lambda w: rank(w.id)):
            self.run(wanted)
        if self.there_already:
            names = ", ".join(self.there_already)
            self.findings.append(
                Finding(
                    "warn",
                    f"There already, so not run again: {names}.",
                    "Say 'again' to compute anew.",
                )
            )
        unused = unused_value(self.wanted, self.planned, self.findings)
        if unused is not None:
            raise unused
        stale = note_stale(self.start, self.state, self.planned, self.stale)
        self.findings += [stale] if stale else []

    def run(self, wanted: Wanted) -> None:
        """Plan one step, and before it what it needs."""
        if wanted.id in self.done or wanted.id in self.excluded or wanted.id in self.busy:
            return
        step = STEPS.get(wanted.id)
        if self._left_out(wanted, step):
            self.done.add(wanted.id)
            return
        self.busy.append(wanted.id)
        self._packages(step)
        params = self._complete(wanted, step)
        params = self._matrix(wanted, step, params)
        self._prepare(step, params)
        for slot in step.read_slots(params):
            self._slot(slot, step, params)
        layer, before = self._counts_for(step), self.state.x
        if layer is not None:
            self.state = replace(self.state, x=self.state.layers[layer])
        self._guard(step, params)
        self._append(wanted, step, params, layer)
        if layer is not None:
            self.state = replace(self.state, x=before)
        self.busy.remove(wanted.id)
        self.done.add(wanted.id)

    # -- leaving out -----------------------------------------------------------------------------

    def _left_out(self, wanted: Wanted, step: Step) -> bool:
        """Whether the step's result is there and fresh, or has no sense here."""
        if step.id in _PAST and self.state.x.kind in _PAST[step.id] and self._sure(self.state.x):
            if wanted.direct or wanted.clauses:
                note = f"{step.id} is left out: X holds {HOLDS[self.state.x.kind]} already."
                self.left_out.append(note)
                self.findings.append(Finding("warn", note))
            return True
        slots = [slot for slot in step.written_slots(wanted.values) if slot not in NOT_SLOTS]
        if step.id == "stash_counts" and self.state.has("layers/counts"):
            self.left_out.append("The counts are in layers/counts already.")
            return True
        scales = step.id == "pca" and "scale" in self.wanted and "scale" not in self.excluded
        if wanted.forced or wanted.params or scales:
            return False
        there = self._there(step, slots)
        if there and step.id == "markers":
            there = self.state.made_with.get(slots[0]) == self._groups_ranked(wanted)
        if there and wanted.direct:
            self.skipped.append(step.id)
        if there and (wanted.direct or wanted.recipe in _NAMED_BY.get(step.id, ())):
            self.there_already.append(step.id)
        return there

    def _there(self, step: Step, slots: Collection[str]) -> bool:
        if step.outputs or {"fig", "cells", "genes", "file", "X"} & set(step.writes) or not slots:
            return False
        if not all(self.state.has(slot) for slot in slots if not decoration(slot)):
            return False
        if self.stale & set(slots):
            return False
        self.left_out.append(f"{step.id}: it is there already.")
        return True

    # -- parameters ------------------------------------------------------------------------------

    def _complete(self, wanted: Wanted, step: Step) -> dict[str, object]:
        """The step's parameters, groups and colours filled in from the data."""
        params = wanted.values
        names = {param.name for param in step.params}
        if "groupby" in names and "groupby" not in params and step.defaults().get("groupby"):
            params["groupby"] = self._clustering() or "leiden"
            if shows_markers(step.id, params):
                params["groupby"] = self._groups_shown(wanted)
        if params.get("groupby") == CLUSTERS:
            params["groupby"] = self._clustering() or "leiden"
        if step.id == "plot_umap" and "color" not in params:
            params["color"] = self._colours()
        if params.get("color") == [CLUSTERS]:
            params["color"] = [self._named_groups() or self._clustering() or "leiden"]
        if step.id == "neighbors" and "use_rep" not in params and self._integrated():
            params["use_rep"] = "X_pca_harmony"
        if step.id == "pca":
            complete_pca(params, self.wanted, self.done)
        defaults = step.defaults()
        return {key: value for key, value in params.items() if defaults.get(key) != value or
                key in wanted.params or key == "groupby"}  # fmt: skip

    def _colours(self) -> list[str]:
        """Groups to colour by that are there or asked for; none are made for this."""
        held = self._named_groups() or self._clustering(or_chain=False) or grouping(self.start)
        return [held] if held else []

    def _groups_ranked(self, wanted: Wanted) -> str:
        """The column whose groups a step compares."""
        column = wanted.values.get("groupby", CLUSTERS)
        return (self._clustering() or "leiden") if column == CLUSTERS else str(column)

    def _groups_shown(self, wanted: Wanted) -> str:
        """The column whose markers a step shows: as asked, else those that are there."""
        if "groupby" in wanted.values:
            return self._groups_ranked(wanted)
        markers = self.wanted.get("markers")
        others = [w for w in self.wanted.values() if w.id in SHOWS and "groupby" in w.values]
        if markers is not None and "markers" not in self.excluded:
            return self._groups_ranked(markers)
        if others:
            return self._groups_ranked(others[0])
        made = self.state.made_with.get(RANKED, "")
        if self.state.has(RANKED) and made in self.state.obs:
            self.findings.append(Finding("warn", f"The markers that are there are of {made}."))
            return made
        return self._clustering() or "leiden"

    def _named_groups(self) -> str | None:
        """The column of names that this plan gives to the clusters."""
        named = next((n for n in ("rename_clusters", "annotate_signatures") if n in self.done), "")
        if not named:
            return None
        return str(self.wanted[named].values.get("key_added", "cell_type"))

    def _integrated(self) -> bool:
        return "harmony" in self.wanted or self.state.has("obsm/X_pca_harmony")

    def _clustering(self, *, or_chain: bool = True) -> str | None:
        """The column of clusters: one made in this plan, else one in the data."""
        for name in ("leiden", "louvain"):
            asked = self.wanted.get(name)
            if asked is not None and name not in self.excluded and name not in self.busy:
                return str(asked.values.get("key_added", name))
        held = next((name for name in CLUSTERINGS if name in self.start.obs), None)
        return held or ("leiden" if or_chain else None)

    # -- what a step needs -----------------------------------------------------------------------

    def _packages(self, step: Step) -> None:
        if self.available is None:
            return
        missing = [name for name in step.requires if name not in self.available]
        if missing:
            raise WorkflowNeedsFallback(
                f"{step.title} needs {', '.join(missing)}, which is not installed.",
                nearest_steps=(step.id,),
                next_step="Install the extra: pip install 'ovagent-jupyter[omics]'.",
            )

    def _prepare(self, step: Step, params: Params) -> None:
        """What is not needed to run, but to run well."""
        if step.id == "pca" and "hvg" not in self.excluded:
            fits = self.state.x.kind in STEPS.get("hvg").needs_x
            if fits and not self.state.has("var/highly_variable"):
                self._insert("hvg", "pca works best on the variable genes")
        unkept = self.start.raw is None and "freeze_raw" not in self.done
        if step.id in _KEEPS_ALL and unkept and self.state.x.kind is XKind.LOGNORM:
            self._insert("freeze_raw", f"{step.id} changes X; .raw keeps all genes")
        counts = self.state.x.kind is XKind.COUNTS and self._sure(self.state.x)
        kept = self.state.has("layers/counts")
        if step.leaves_x is not None and counts and step.needs_data and not kept:
            self._insert("stash_counts", f"{step.id} changes X; the counts are kept")

    def _slot(self, slot: str, step: Step, params: Params) -> None:
        key = slot.partition("/")[2]
        if slot == RANKED and step.id in SHOWS:
            self._ranked(step)
            return
        if slot in self.stale and slot in KEPT and self.state.has(slot):
            self._old_clusters(slot, step)
            return
        if self.state.has(slot) or (step.group == "plot" and key.upper() in self.state.genes):
            return
        made = next((w for w in self.wanted.values() if self._makes(w, slot)), None)
        maker = made.id if made is not None else PRODUCERS.get(slot)
        if maker is not None and maker not in self.excluded and maker not in self.busy:
            self._insert(maker, f"{step.id} needs {slot}")
        if not self.state.has(slot):
            raise missing(slot, step, self.start, self.excluded)

    def _ranked(self, step: Step) -> None:
        """Markers of the groups that the step is to show, found now unless they are there."""
        shown = self._groups_shown(self.wanted[step.id])
        if self.state.has(RANKED) and self.state.made_with.get(RANKED) == shown:
            return
        ran = next((p for p in self.planned if p.id == "markers"), None)
        if ran is not None and self.state.has(RANKED):
            raise other_groups(step.id, self.state.made_with.get(RANKED), shown)
        if "markers" not in self.excluded and "markers" not in self.busy:
            because = "shows other groups" if self.state.has(RANKED) else f"needs {RANKED}"
            self._insert("markers", f"{step.id} {because}", {"groupby": shown})
        if self.state.made_with.get(RANKED) != shown:
            raise missing(RANKED, step, self.start, self.excluded)

    def _old_clusters(self, slot: str, step: Step) -> None:
        """Clusters of the graph before: made anew where asked for, else used as they are."""
        maker = PRODUCERS[slot]
        asked = self.wanted.get(maker)
        if asked is not None and not {maker} & {*self.excluded, *self.busy}:
            self._insert(maker, f"{step.id} needs {slot}")
            return
        told = f"{slot} was computed from the earlier graph; it is used as it is."
        self.findings.append(Finding("warn", told, "Say 'cluster again' to compute it anew."))

    def _makes(self, wanted: Wanted, slot: str) -> bool:
        step = STEPS.get(wanted.id)
        return wanted.id not in (*self.done, *self.busy) and slot in step.written_slots(
            wanted.values
        )

    def _insert(self, name: str, because: str, preset: Params | None = None) -> None:
        wanted = self.wanted.get(name)
        if wanted is None:
            wanted = Wanted(name, because, because=because, member=True)
            wanted.forced = "other groups" in because
            wanted.preset.update(preset or {})
            self.wanted[name] = wanted
        elif wanted.params and not wanted.clauses:
            wanted.because = because
        if name in self.done and name not in self.busy:
            self.done.discard(name)  # a later step made its result stale
        self.run(wanted)

    # -- X ---------------------------------------------------------------------------------------

    def _sure(self, held: XState) -> bool:
        return held.confidence >= SURE

    def _matrix(self, wanted: Wanted, step: Step, params: dict[str, object]) -> dict[str, object]:
        """The parameters with which the step reads a matrix in a state that it can use."""
        shows_genes = step.id == "plot_umap" and self._shows_genes(params)
        needs = step.needs_x or (frozenset({XKind.LOGNORM, XKind.CORRECTED}) if shows_genes else ())
        if not needs or params.get("use_raw") or (params.get("layer") and step.id != "scale"):
            return params
        if self.state.x.kind in needs and self._sure(self.state.x):
            return params
        if not self._sure(self.state.x) and not shows_genes:
            raise unsure(step, self.state, loaded=self.state.x is not self.start.x)
        raw = self.state.raw
        takes_raw = any(param.name == "use_raw" for param in step.params)
        fits = raw is not None and raw.kind in needs and self._sure(raw)
        early = self.state.x.kind in (XKind.COUNTS, XKind.NORM) and not shows_genes
        if takes_raw and fits and not early:
            return {**params, "use_raw": True}
        if shows_genes:
            return params  # any values can be shown as colours
        if XKind.LOGNORM in needs and self.state.x.kind in (XKind.COUNTS, XKind.NORM):
            self._insert("log1p", f"{step.id} needs log-normalised values")
        elif XKind.NORM in needs and self.state.x.kind is XKind.COUNTS:
            self._insert("normalize", f"{step.id} needs normalised values")
        if self.state.x.kind not in needs and self._counts_for(step) is None:
            raise unfit(step, self.state)
        return params

    def _shows_genes(self, params: Params) -> bool:
        color = params.get("color")
        return isinstance(color, list) and any(str(c).upper() in self.state.genes for c in color)

    def _counts_for(self, step: Step) -> str | None:
        """The layer whose counts stand in for X while this step runs, where X holds none."""
        asks = XKind.COUNTS in step.needs_x and self.state.x.kind not in step.needs_x
        return counts_layer(self.state) if asks and step.leaves_x is None else None

    # -- appending -------------------------------------------------------------------------------

    def _guard(self, step: Step, params: Params) -> None:
        for finding in check_step(step, params, self.state):
            if finding.level == "stop" and not self._known_package(step, finding):
                raise WorkflowNeedsFallback(
                    f"{step.id} would not be right here.",
                    nearest_steps=(step.id,),
                    why=finding.message,
                    next_step=finding.next_step or "Change the request, or the data.",
                )
            if finding.level == "warn" and not finding.message.startswith("After "):
                self.findings.append(finding)

    def _known_package(self, step: Step, finding: Finding) -> bool:
        """A package that the caller says is available, though not in this process."""
        return self.available is not None and any(
            name in finding.message and "not installed" in finding.message for name in step.requires
        )

    def _append(self, wanted: Wanted, step: Step, params: Params, layer: str | None) -> None:
        code = step.render(self.state.name, params)
        if layer is not None:
            code = on_counts(code, self.state.name, layer)
        because = "" if wanted.clauses else wanted.because or wanted.reason
        if wanted.params and not wanted.clauses:
            because = ""
        self.planned.append(
            PlannedStep(
                id=step.id,
                title=titled(step, wanted),
                params=dict(params),
                code=code,
                reason=wanted.reason,
                inserted_because=because,
                writes=step.written_slots(params),
                outputs=step.outputs,
            )
        )
        self.state = after(self.state, step, params)
        self.stale |= {slot for slot in step.makes_stale if self.start.has(slot)}
        self.stale -= set(step.written_slots(params))
