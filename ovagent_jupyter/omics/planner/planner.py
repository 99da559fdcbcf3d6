"""The offline planner: from a request in words and a state card to a plan, without a model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ovagent_jupyter.errors import DataError, WorkflowNeedsFallback
from ovagent_jupyter.omics.planner import clauses, grammar
from ovagent_jupyter.omics.planner.chaining import Chain
from ovagent_jupyter.omics.planner.judge import Rejected
from ovagent_jupyter.omics.planner.naming import DataNames
from ovagent_jupyter.omics.planner.numerals import in_digits
from ovagent_jupyter.omics.planner.params import assign
from ovagent_jupyter.omics.planner.plan import Plan
from ovagent_jupyter.omics.planner.recipes import recipes
from ovagent_jupyter.omics.planner.resolve import Resolution, Resolver
from ovagent_jupyter.omics.planner.retrieval import current_index
from ovagent_jupyter.omics.planner.simulate import empty_state
from ovagent_jupyter.omics.planner.wanted import Problem, Wanted
from ovagent_jupyter.omics.state import DataState, XState
from ovagent_jupyter.omics.step import STEPS, XKind

EXAMPLES = (
    "QC these cells",
    "filter cells with mito < 20%",
    "cluster at resolution 0.5",
    "find markers",
    "plot umap coloured by leiden",
)
"""Requests to show to a user who needs a start."""
_FOREIGN_WORDS = frozenset(
    "bitte zellen daten und mit die der das ich nach den eine einen zeige mir fur les des cellules "
    "donnees et avec montre moi pour une du los las datos celulas por favor con muestra agrupa "
    "gli le cellule dati mostra fammi os as celulas dados mostre agrupe uma de la el il den een "
    "cellen gegevens met laat zien och visa celler".split()
)
_ENGLISH_TOO = frozenset({"die", "as", "de", "den", "os", "met"})
_MAX_LENGTH = 4000
_FOREIGN_SHARE = 0.3
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class _Draft:
    """A request that was read, before its steps are chained."""

    request: str
    wanted: dict[str, Wanted]
    found: Resolution
    state: DataState | None
    name: str
    available: Collection[str] | None


def plan(
    request: str,
    state: DataState | None = None,
    *,
    name: str = "adata",
    available: Collection[str] | None = None,
) -> Plan:
    """The steps that answer a request, planned offline in a few milliseconds.

    Args:
        request: What the user wants, in English.
        state: Card of the data, from ``describe``; None when nothing is loaded.
        name: Variable that holds the data when there is no card.
        available: Import names of the packages that can be used; None to look in this process.

    Raises:
        WorkflowNeedsFallback: Some part of the request is not covered; nothing is to be run.
    """
    request = unicodedata.normalize("NFKC", request)
    _readable(request)
    request = in_digits(request)
    index = current_index()
    names = DataNames.of(state, index.known)
    polite = clauses.without_courtesy(request)
    reading = grammar.read(polite, names)
    resolver = Resolver(request, reading.facts, index)
    taken = [fact.start for fact in reading.facts]
    found = resolver.resolve(clauses.split(reading.text, resolver.is_action, taken))
    for fact in reading.facts:
        if fact.kind == "claim" and state is not None:
            state = replace(state, x=XState(XKind(str(fact.value)), 1.0, "The user says so."))
    assigned = assign(found, state)
    _without_pictures(assigned.wanted, found.excluded)
    if not found.rejected and not found.asked:
        found.rejected.append(Rejected(request.strip(), "It does not name a step.", kind="vague"))
    problems = list(assigned.problems)
    draft = _Draft(request, assigned.wanted, found, state, name, available)
    if found.rejected or problems:
        raise _refusal(request, found.rejected, problems, _partial(draft))
    return _chained(draft)


def _without_pictures(wanted: dict[str, Wanted], excluded: Collection[str]) -> None:
    """A UMAP that was only to be looked at is left out with its plot."""
    umap = wanted.get("umap")
    if "plot_umap" in excluded and umap and umap.member and umap.recipe in ("cluster", "annotate"):
        del wanted["umap"]


def _readable(request: str) -> None:
    if not request.strip():
        raise WorkflowNeedsFallback("The request is empty.", next_step=_say(EXAMPLES))
    if len(request) > _MAX_LENGTH:
        raise WorkflowNeedsFallback(
            f"The request has {len(request):,} characters; the offline planner reads short ones.",
            next_step=_say(EXAMPLES),
        )
    if _is_foreign(request):
        raise _not_english(request)


def _is_foreign(request: str) -> bool:
    letters = [c for c in request if c.isalpha()]
    foreign = [
        c for c in letters if not c.isascii() and not unicodedata.name(c, "").startswith("GREEK")
    ]
    if letters and len(foreign) > _FOREIGN_SHARE * len(letters):
        return True
    plain = unicodedata.normalize("NFKD", request).encode("ascii", "ignore").decode().lower()
    words = set(re.findall(r"[a-z]+", plain))
    hits = words & _FOREIGN_WORDS
    return len(hits - _ENGLISH_TOO) >= 1 and len(hits) >= 2  # noqa: PLR2004 - one may be a name


def _not_english(request: str) -> WorkflowNeedsFallback:
    return WorkflowNeedsFallback(
        "The offline planner understands English only.",
        unresolved_clauses=(request.strip(),),
        next_step=_say(EXAMPLES[2:]),
    )


def _chained(draft: _Draft) -> Plan:
    chain = _chain(draft)
    if not _builds_any(chain):
        # what was asked by name is there already: then it is asked for once more
        for done in chain.skipped:
            draft.wanted[done].forced = True
    chain = _chain(draft)
    sure = min((asked.confidence for asked in draft.found.asked), default=1.0)
    try:
        chain.build()
    except WorkflowNeedsFallback as error:
        error.partial_plan = Plan(
            draft.request, tuple(chain.planned), sure, tuple(chain.findings), name=chain.state.name
        )
        error.unresolved_clauses = error.unresolved_clauses or (draft.request.strip(),)
        raise
    except DataError as error:
        raise WorkflowNeedsFallback(error.what, why=error.why, next_step=error.next_step) from error
    findings = tuple(dict.fromkeys(chain.findings))
    planned = Plan(draft.request, tuple(chain.planned), sure, findings, name=chain.state.name)
    if not planned.steps:
        raise WorkflowNeedsFallback(
            "There is nothing to do.",
            unresolved_clauses=(draft.request.strip(),),
            partial_plan=planned,
            why=" ".join(dict.fromkeys(chain.left_out[:3])),
            next_step="Ask for the next step, or set a parameter to compute it again.",
        )
    return planned


def _builds_any(chain: Chain) -> bool:
    try:
        chain.build()
    except (WorkflowNeedsFallback, DataError):
        return True
    return bool(chain.planned)


def _chain(draft: _Draft) -> Chain:
    state, wanted = draft.state, draft.wanted
    if state is None:
        if wanted and all(STEPS.get(name).needs_data for name in wanted):
            raise WorkflowNeedsFallback(
                "There is no data to work on.",
                missing_slots=("X",),
                nearest_steps=tuple(wanted),
                next_step="Load some first: 'load pbmc.h5ad' or 'load the demo data'.",
            )
        state = empty_state(draft.name)
    return Chain(wanted, state, draft.found.excluded, draft.available)


def _partial(draft: _Draft) -> Plan | None:
    """The plan for what was understood, to start from; None when there is none."""
    if not draft.found.asked:
        return None
    try:
        chain = _chain(draft)
    except WorkflowNeedsFallback:
        return None
    with suppress(WorkflowNeedsFallback, DataError):
        chain.build()  # where it stops, the steps up to there are still of use
    left = tuple(row.clause for row in draft.found.rejected)
    return Plan(
        draft.request, tuple(chain.planned), 0.0, tuple(chain.findings), left, chain.state.name
    )


def _refusal(
    request: str,
    rejected: Sequence[Rejected],
    problems: Sequence[Problem],
    partial: Plan | None,
) -> WorkflowNeedsFallback:
    """One short error for all that was not understood."""
    if rejected:
        first = rejected[0]
        texts = list(dict.fromkeys(row.clause for row in rejected))
        nearest = tuple(dict.fromkeys(name for row in rejected for name in row.nearest))
        what = f"Not covered offline: {_listed(texts)}"
        return WorkflowNeedsFallback(
            what,
            unresolved_clauses=texts,
            nearest_steps=nearest,
            partial_plan=partial,
            why=first.why,
            next_step=_say(_examples(nearest)) if first.kind != "refused" else _say(EXAMPLES[:3]),
        )
    first_problem = problems[0]
    return WorkflowNeedsFallback(
        f"Not clear: {_listed([problem.clause or request.strip() for problem in problems])}",
        unresolved_clauses=tuple(dict.fromkeys(p.clause or request.strip() for p in problems)),
        partial_plan=partial,
        why=first_problem.why,
        next_step=first_problem.next_step or "Leave it out, or say what it is for.",
    )


def _listed(texts: Sequence[str]) -> str:
    shown = [" ".join(text.split()) for text in dict.fromkeys(texts)]
    short = [f"'{t[:_SHOWN]}…'" if len(t) > _SHOWN else f"'{t}'" for t in shown[:3]]
    return ", ".join(short) + ("." if len(shown) <= len(short) else " and more.")


def _examples(nearest: Sequence[str]) -> Sequence[str]:
    """Requests that would work, close to what was said."""
    index = current_index()
    phrases = {entry.id: entry for entry in index.entries}
    near = [_example(phrases[name].id) for name in nearest[:3] if name in phrases]
    return list(dict.fromkeys(text for text in near if text)) or EXAMPLES


def _example(name: str) -> str:
    if name in recipes():
        return recipes()[name].phrases[0]
    aliases = STEPS.get(name).aliases
    return aliases[0] if aliases else name


def _say(examples: Sequence[str]) -> str:
    return "Say it with one of: " + ", ".join(f"'{text}'" for text in examples) + "."
