"""Giving the facts of a request to the steps that can use them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from ovagent_jupyter.omics.planner.columns import (
    CLUSTERS,
    fill_from_words,
    place_column,
    place_genes,
    place_groups,
)
from ovagent_jupyter.omics.planner.concepts import (
    CONCEPTS,
    FOR_ALL,
    MISTAKEN,
    SHORT_NAMES,
    UPSTREAM,
)
from ovagent_jupyter.omics.planner.conflicts import conflicts
from ovagent_jupyter.omics.planner.naming import CLUSTERINGS
from ovagent_jupyter.omics.planner.order import ancestors
from ovagent_jupyter.omics.planner.reading import Fact
from ovagent_jupyter.omics.planner.recipes import recipes
from ovagent_jupyter.omics.planner.required import fill_required
from ovagent_jupyter.omics.planner.resolve import Resolution
from ovagent_jupyter.omics.planner.results import shows_markers
from ovagent_jupyter.omics.planner.wanted import Problem, Wanted
from ovagent_jupyter.omics.state import DataState
from ovagent_jupyter.omics.step import STEPS, Param

_AGAIN = re.compile(
    r"\b(?:re-?(?:cluster|run|comput|do|calculat|embed)\w*|again|anew|afresh)\b", re.IGNORECASE
)
_CLUSTERED = re.compile(r"\bclusters?\b", re.IGNORECASE)
_NAMING = frozenset("as called named name into in under to it key signature score file".split())
"""Words that stand before a new name in quotes."""
_CHAINED = frozenset(
    "normalize log1p hvg pca neighbors umap leiden markers diffmap tsne doublets".split()
)


@dataclass(slots=True)
class Assignment:
    """The steps to run with their parameters, and what could not be given to any."""

    wanted: dict[str, Wanted] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def assign(found: Resolution, state: DataState | None) -> Assignment:
    """The asked steps with the parameters that the request gives them."""
    result = Assignment()
    for number in range(len(found.texts)):
        _add_steps(number, found, result)
    for number, text in enumerate(found.texts):
        clause = _Clause(number, text, found, result, state)
        for fact in found.facts[number]:
            clause.give(fact)
        for wanted in clause.steps():
            fill_from_words(wanted, text, state)
    _rank_named_groups(result.wanted, found)
    _rank_shown_groups(result.wanted, found)
    _share_top(result.wanted)
    result.problems += conflicts(result.wanted, found.texts, state)
    result.problems += fill_required(result.wanted, state)
    compared = result.wanted.get("de_two_groups")
    if compared is not None and "group" in compared.params and "reference" not in compared.params:
        why = f"It is not said what to compare {compared.params['group']!r} with."
        text = found.texts[compared.clause]
        result.problems.append(Problem(text, why, "Name it: 'vs rest', or another group."))
    return result


def _rank_shown_groups(wanted: dict[str, Wanted], found: Resolution) -> None:
    """What shows markers "per cluster" needs those of the clusters, not any that are there."""
    for step in list(wanted.values()):
        texts = [found.texts[number] for number in step.clauses]
        free = shows_markers(step.id, step.values) and "groupby" not in step.values
        if free and "markers" not in wanted and any(map(_CLUSTERED.search, texts)):
            ranked = Wanted("markers", step.reason, step.clause, member=True)
            ranked.preset["groupby"] = CLUSTERS
            wanted["markers"] = ranked


def _rank_named_groups(wanted: dict[str, Wanted], found: Resolution) -> None:
    """A table of some groups needs the markers of the column that holds these groups."""
    table = wanted.get("marker_table")
    if table is None or not table.params.get("group") or "markers" in wanted:
        return
    columns = {
        f.key for number in table.clauses for f in found.facts[number] if f.kind == "group"
    } - set(CLUSTERINGS)
    if len(columns) == 1:
        ranked = Wanted("markers", table.reason, table.clause, member=True)
        ranked.params["groupby"] = columns.pop()
        wanted["markers"] = ranked


def _share_top(wanted: dict[str, Wanted]) -> None:
    """One "top n" is meant for the table and for the plots of the same markers."""
    places = [target.partition(".")[::2] for target in CONCEPTS["top"] if "hvg" not in target]
    here = [(wanted[step].params, name) for step, name in places if step in wanted]
    given = {params[name] for params, name in here if name in params}
    for params, name in here if len(given) == 1 else ():
        params.setdefault(name, *given)


def _add_steps(number: int, found: Resolution, result: Assignment) -> None:
    for asked in found.asked:
        if asked.clause != number:
            continue
        extra = recipes()[asked.entry_id].params if asked.is_recipe else {}
        facts = found.facts[number]
        steps = [_by_file(name, facts) for name in asked.steps]
        for name in steps:
            text = found.texts[number]
            wanted = result.wanted.get(name)
            if wanted is None:
                wanted = Wanted(name, f"you asked: {text!r}", number)
                wanted.member = asked.is_recipe
                wanted.recipe = asked.entry_id if asked.is_recipe else ""
                result.wanted[name] = wanted
            elif not asked.is_recipe:
                wanted.member = False
            elif asked.entry_id == "embed_umap":
                wanted.recipe = asked.entry_id
            wanted.clauses.add(number)
            wanted.forced |= bool(_AGAIN.search(text)) and name == asked.steps[0]
            if not asked.is_recipe:
                wanted.direct.add(number)
            for key, value in extra.get(name, {}).items():
                wanted.preset.setdefault(key, value)


def _by_file(name: str, facts: Sequence[Fact]) -> str:
    """The loading step that fits the kind of file."""
    if name not in ("load_h5ad", "load_10x_h5", "load_10x_mtx"):
        return name
    for fact in facts:
        if fact.kind == "path":
            suffix = PurePath(str(fact.value)).suffix.lower()
            return {".h5ad": "load_h5ad", ".h5": "load_10x_h5", "": "load_10x_mtx"}.get(
                suffix, name
            )
    return name


class _Clause:
    """One clause, while its facts are given to steps."""

    def __init__(
        self,
        number: int,
        text: str,
        found: Resolution,
        result: Assignment,
        state: DataState | None,
    ) -> None:
        self.number = number
        self.text = text
        self.result = result
        self.state = state
        self.rejected = {row.clause for row in found.rejected}

    def steps(self) -> list[Wanted]:
        """The steps that this clause asks for."""
        return [w for w in self.result.wanted.values() if self.number in w.clauses]

    def problem(self, fact: Fact, why: str = "", next_step: str = "") -> None:
        """Note a fact that nothing can use, unless its clause is rejected anyway."""
        if self.text not in self.rejected:
            why = why or f"No step of this clause uses {fact.text!r}."
            self.result.problems.append(Problem(self.text, why, next_step))

    def give(self, fact: Fact) -> None:
        """Give one fact to the steps that can use it."""
        steps = self.steps()
        takers = {
            "path": self._path, "rename": self._rename, "name": self._name,
            "number": self._number, "mention": self._mention,
        }  # fmt: skip
        if fact.kind == "param":
            self._param(fact)
        elif fact.kind in takers:
            takers[fact.kind](fact, steps)
        elif fact.kind == "column":
            if not place_column(fact, steps, self.state):
                self.problem(fact)
        elif fact.kind == "genes":
            if not place_genes(fact, steps):
                self.problem(fact, f"No step of this clause uses the gene {fact.text!r}.")
        elif fact.kind in ("group", "rest"):
            why = place_groups(fact, steps)
            if why:
                self.problem(fact, why, "Make the part first: part = adata[...].copy()")

    def _param(self, fact: Fact) -> None:
        key = fact.key.removeprefix("=")
        if key == "max_mito" and isinstance(fact.value, int | float) and fact.value > 100:  # noqa: PLR2004 - percent
            self.problem(fact, f"{fact.text!r} is more than 100%.", "Say 'mito < 20%'.")
            return
        if key in MISTAKEN and key not in CONCEPTS:
            self.problem(fact, *MISTAKEN[key])
            return
        here = {w.id for w in self.steps()}
        named = fact.key.startswith("=")
        targets = [t for t in self._targets(key, named=named) if t.partition(".")[0] in here]
        if not targets:
            targets = self._elsewhere(key, here, named=named)
        if not targets:
            self.problem(fact)
            return
        for target in targets if key in FOR_ALL else targets[:1]:
            step, _, name = target.partition(".")
            self._set(step, name, fact)

    def _targets(self, key: str, *, named: bool) -> list[str]:
        concept = list(CONCEPTS.get(SHORT_NAMES.get(key, key) if named else key, ()))
        if not named:
            return concept
        exact = [f"{s}.{key}" for s in STEPS if key in {p.name for p in STEPS.get(s).params}]
        return [*exact, *(target for target in concept if target not in exact)]

    def _elsewhere(self, key: str, here: set[str], *, named: bool) -> list[str]:
        """A step upstream of this clause, or asked in another clause, that takes the param."""
        targets = self._targets(key, named=named)
        if key in FOR_ALL and key != "use_raw":
            here = set()  # "top 10 DE genes" is no number of variable genes
        up = {name for step in here for name in ancestors(step)} & _CHAINED
        upstream = [UPSTREAM[key]] if key in UPSTREAM else targets
        found = [t for t in upstream if t.partition(".")[0] in up]
        if found:
            return found
        found = [t for t in targets if t.partition(".")[0] in self.result.wanted]
        if found or key in FOR_ALL:
            return found
        # a list such as "2000 hvgs, 50 pcs, leiden": another clause's step leads there
        anywhere = {name for step in self.result.wanted for name in ancestors(step)} & _CHAINED
        return [t for t in upstream if t.partition(".")[0] in anywhere]

    def _set(self, step: str, name: str, fact: Fact) -> None:
        wanted = self.result.wanted.get(step)
        if wanted is None:
            wanted = Wanted(step, f"you asked: {fact.text!r}", self.number)
            wanted.member = True
            self.result.wanted[step] = wanted
        param = next(p for p in STEPS.get(step).params if p.name == name)
        value = _fitted(param, fact.value)
        if value is None and fact.value is not None:
            self.problem(fact, f"{fact.text!r} is not a value of {name} ({_allowed(param)}).")
            return
        if name in wanted.params and wanted.params[name] != value:
            both = f"{wanted.params[name]} and {value}"
            self.result.problems.append(
                Problem(self.text, f"{name} is given twice: {both}.", "Give one value.")
            )
            return
        wanted.params[name] = value

    def _path(self, fact: Fact, steps: list[Wanted]) -> None:
        for wanted in steps:
            if "path" in {p.name for p in STEPS.get(wanted.id).params}:
                if "path" in wanted.params:
                    self.problem(fact, "Two files are named.", "Put a path with spaces in quotes.")
                    return
                suffix = PurePath(str(fact.value)).suffix.lower()
                fits = {"load_h5ad": (".h5ad",), "load_10x_h5": (".h5",), "save_h5ad": (".h5ad",)}
                if suffix not in fits.get(wanted.id, (suffix,)):
                    self.problem(
                        fact, f"{wanted.id} cannot use a {suffix or 'nameless'} file.",
                        "Name an .h5ad file, a 10x .h5 file or a 10x folder.",
                    )  # fmt: skip
                    return
                wanted.params["path"] = fact.value
                return
        self.problem(fact, f"No step of this clause uses the file {fact.text!r}.")

    def _rename(self, fact: Fact, steps: list[Wanted]) -> None:
        for wanted in steps:
            if wanted.id == "rename_clusters":
                held = wanted.params.setdefault("mapping", {})
                if isinstance(held, dict):
                    held[fact.key] = fact.value
                return
        self.problem(fact)

    def _name(self, fact: Fact, steps: list[Wanted]) -> None:
        for wanted in steps:
            if fact.key and fact.key not in _NAMING:
                break
            if wanted.id == "save_h5ad" and "path" not in wanted.params:
                wanted.params["path"] = f"{fact.value}.h5ad"
                return
            for name in ("key_added", "score_name"):
                if name in {p.name for p in STEPS.get(wanted.id).params}:
                    wanted.params[name] = fact.value
                    return
        self.problem(fact, f"{fact.text} is not a column, group or gene of the data.")

    def _number(self, fact: Fact, steps: list[Wanted]) -> None:
        ids = {w.id for w in steps}
        value = fact.value
        if "subsample" in ids:
            share = fact.text.endswith("%") or (isinstance(value, float) and value < 1)
            shared = (
                value / 100 if fact.text.endswith("%") and isinstance(value, int | float) else value
            )
            self._set("subsample", "fraction" if share else "n", _valued(fact, shared))
        elif "leiden" in ids and isinstance(value, float):
            self._set("leiden", "resolution", fact)
        elif "log1p" in ids and len(ids) == 1:
            self._set("log1p", "base", fact)
        elif "normalize" in ids:
            self._set("normalize", "target_sum", fact)
        else:
            self.problem(fact, f"It is not clear what {fact.text!r} is for.")

    def _mention(self, fact: Fact, steps: list[Wanted]) -> None:
        variable = fact.text.removeprefix("@")
        known = {"concat", "label_transfer"} & {wanted.id for wanted in steps}
        if not known and self.state is not None and variable != self.state.name:
            why = f"The steps work on {self.state.name}, not on {variable}."
            self.problem(fact, why, f"Leave {fact.text} out, or say which data to use.")
        for wanted in steps:
            if wanted.id == "concat":
                held = wanted.params.setdefault("adatas", [])
                if isinstance(held, list):
                    held.append(variable)
            elif wanted.id == "label_transfer" and self.state and variable != self.state.name:
                wanted.params["ref"] = variable


def _valued(fact: Fact, value: object) -> Fact:
    return Fact(fact.kind, fact.start, fact.end, fact.text, fact.key, value)


def _fitted(param: Param, value: object) -> object:
    """The value as the param takes it, or None when it does not fit."""
    if param.kind == "int":
        ok = isinstance(value, int | float) and float(value).is_integer() and value > 0
        return int(value) if ok and isinstance(value, int | float) else None
    if param.kind == "float":
        good = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        return value if good else None
    if param.kind == "bool":
        return value if isinstance(value, bool) else None
    if param.kind == "choice":
        return value if value in param.choices else None
    if param.kind in ("obs_column", "str", "level", "name", "path"):
        return str(value) if isinstance(value, str | int | float) else None
    return None


def _allowed(param: Param) -> str:
    return " or ".join(param.choices) if param.choices else f"a {param.kind}"
