"""Steps that remove batch effects."""

from __future__ import annotations

from ovagent_jupyter.omics.rendering import Code, call, filled, literal
from ovagent_jupyter.omics.slots import DERIVED, GRAPH
from ovagent_jupyter.omics.step import Param, Params, Step, XKind

_BATCH = Param(
    "batch_key", "obs_column", required=True, words=("batch", "by", "over", "sample", "across")
)


def _combat(name: Code, params: Params) -> str:
    return call("sc.pp.combat", name, key=params["batch_key"])


COMBAT = Step(
    id="combat",
    group="batch",
    title="Correct X for batches with ComBat",
    render=filled(_combat, (_BATCH,)),
    aliases=("combat", "combat batch correction", "correct expression for batch"),
    needs_x=frozenset({XKind.LOGNORM}),
    leaves_x=XKind.CORRECTED,
    reads=("obs/{batch_key}",),
    writes=("X",),
    params=(_BATCH,),
    makes_stale=DERIVED,
)

_HARMONY = (_BATCH, Param("basis", "str", "X_pca", words=("basis", "embedding")))


def _harmony(name: Code, params: Params) -> str:
    basis, batch = literal(params["basis"]), literal(params["batch_key"])
    return f"""\
import harmonypy

fit = harmonypy.run_harmony({name}.obsm[{basis}], {name}.obs, {batch}, random_state=0)
corrected = np.asarray(fit.Z_corr)
# harmonypy 1 gives components by cells, harmonypy 2 cells by components
{name}.obsm["X_pca_harmony"] = corrected if len(corrected) == {name}.n_obs else corrected.T"""


HARMONY = Step(
    id="harmony",
    group="batch",
    title="Integrate batches with Harmony, on the PCA",
    render=filled(_harmony, _HARMONY),
    aliases=("harmony", "integrate batches", "batch integration", "integrate samples"),
    reads=("obsm/{basis}", "obs/{batch_key}"),
    writes=("obsm/X_pca_harmony",),
    params=_HARMONY,
    requires=("harmonypy",),
    makes_stale=GRAPH,
)
