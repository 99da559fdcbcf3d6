"""Undo, redo and checkpoints in a real ipykernel with a real child, also when that is killed."""

from __future__ import annotations

import os
import signal

from tests.notebook.conftest import Notebook, child_pids, evaluate, said

PRINT = """
import hashlib as _h, numpy as _np
def fingerprint(a):
    import scipy.sparse as sp
    parts = [a.X.data, a.X.indices, a.X.indptr] if sp.issparse(a.X) else [a.X]
    parts += [_np.asarray(v) for v in a.obsm.values()]
    parts += [_np.asarray(a.obs[c].astype(str), dtype=object) for c in a.obs]
    made = _h.sha256()
    for part in parts:
        made.update(str((part.dtype, part.shape)).encode())
        made.update(repr(part.tolist()).encode() if part.dtype == object else part.tobytes())
    made.update(repr([list(a.obs), list(a.var), sorted(a.uns), sorted(a.obsm)]).encode())
    return made.hexdigest()
"""


def fingerprint(notebook: Notebook) -> str:
    """The bytes of the user's adata, as one text."""
    return str(evaluate(notebook, "fingerprint(adata)"))


def ask(notebook: Notebook, request: str) -> None:
    run = notebook.run(f"%%ovagent\n{request}")
    assert run.status == "ok", run.error


def test_every_step_can_be_undone_also_after_the_child_was_killed(with_counts: Notebook) -> None:
    notebook = with_counts
    notebook.run(PRINT)
    prints = [fingerprint(notebook)]
    for request in ("QC these cells", "normalise and log transform", "run pca"):
        ask(notebook, request)
        prints.append(fingerprint(notebook))
    assert len(set(prints)) == len(prints)
    assert "3 steps back, 0 forward, 0 checkpoints" in notebook.run("%ovagent status").text

    assert "2 steps" in notebook.run("%ovagent undo 2").text
    assert fingerprint(notebook) == prints[1]
    assert "Done again" in notebook.run("%ovagent redo").text
    assert fingerprint(notebook) == prints[2]
    assert "Checkpoint lognorm: adata" in notebook.run("%ovagent checkpoint lognorm").text
    assert "1 checkpoint" in notebook.run("%ovagent status").text

    for pid in child_pids(notebook):
        os.kill(pid, signal.SIGKILL)
    notebook.run("adata.X.data[:] = 0; adata.obs['mine'] = 1")
    assert "Restored from lognorm" in notebook.run("%ovagent restore lognorm").text
    assert fingerprint(notebook) == prints[2]
    ask(notebook, "run pca")
    assert fingerprint(notebook) == prints[3]
    run = notebook.run("%ovagent undo 2")
    assert "restore lognorm" in run.text
    assert evaluate(notebook, "float(adata.X.data.sum())") == 0
    assert evaluate(notebook, "'mine' in adata.obs") is True
    notebook.run("%ovagent undo 9")
    assert fingerprint(notebook) == prints[0]


def test_errors_say_what_and_what_next(with_counts: Notebook) -> None:
    said(with_counts.run("%ovagent undo many"), "is not a number")
    said(with_counts.run("%ovagent checkpoint a-b"), "cannot be the name")
    said(with_counts.run("%ovagent restore logmorm"), "Did you mean lognorm")


def test_completion_offers_the_checkpoints(with_counts: Notebook) -> None:
    with_counts.client.complete("%ovagent restore ", 17)
    reply = with_counts.client.get_shell_msg(timeout=60)["content"]
    assert "lognorm" in [match.strip() for match in reply["matches"]]


# Rendered while the turn is planned: by then the turn has taken the user's variables.
REBINDS = """
import anndata
from ovagent_jupyter.omics.step import STEPS, Step
_mine = anndata.AnnData(adata.X.copy())
def _render(name, params):
    globals()['adata'] = _mine
    return f"{name}.obs['touched'] = 1"
STEPS.register("touch_cells", Step(id="touch_cells", group="plot", title="touch cells",
                                   render=_render, aliases=("touch the cells",)))
"""


def test_a_name_bound_anew_while_the_code_ran_is_told(with_counts: Notebook) -> None:
    notebook = with_counts
    assert notebook.run(REBINDS).status == "ok"
    run = notebook.run("%%ovagent\ntouch the cells")
    assert run.status == "ok", run.error
    assert "bound anew" in run.text
    assert evaluate(notebook, "'touched' in adata.obs") is True
    notebook.run("%ovagent undo")
    assert evaluate(notebook, "adata is _mine and 'touched' not in adata.obs") is True


def test_the_oldest_steps_go_first_with_a_notice(with_counts: Notebook) -> None:
    notebook = with_counts
    notebook.run("%config OVAgent.undo_memory = '1M'")
    runs = []
    for request in ("QC these cells", "normalise and log transform", "run pca"):
        # Each step alone is larger than the limit.
        notebook.run("import numpy as np; adata.layers['mine'] = np.random.rand(*adata.shape)")
        runs.append(notebook.run(f"%%ovagent\n{request}"))
    assert [run.status for run in runs] == ["ok"] * 3
    assert "cannot be undone any more" in "".join(run.text for run in runs)
    assert "back, 0 forward" in notebook.run("%ovagent status").text
    notebook.run("%ovagent undo 9")
    assert "nothing to undo" in notebook.run("%ovagent undo").text
    shown = notebook.run("%config OVAgent.undo_memory = 'much'\n%ovagent status").text
    assert "undo_memory='much' cannot be used" in shown
    assert "%config OVAgent.undo_memory = ''" in shown
    notebook.run("%config OVAgent.undo_memory = ''")
