"""``%%ovagent`` cells in a real ipykernel, with real counts, through the real child."""

from __future__ import annotations

import os
import time

import psutil

from ovagent_jupyter.agent.turn import TURN_MIME
from tests.notebook.conftest import Notebook, child_pids, evaluate, said


def turn_of(outputs: list[dict[str, object]]) -> dict[str, object]:
    """The record of the turn that a cell shows at its end."""
    records = [o["data"][TURN_MIME] for o in outputs if TURN_MIME in o.get("data", {})]  # type: ignore[index,operator]
    assert len(records) == 1
    return records[0]


def test_a_request_shows_plan_code_output_and_what_changed(with_counts: Notebook) -> None:
    run = with_counts.run("%%ovagent\nQC these cells")
    assert run.status == "ok", run.error
    turn = turn_of(run.outputs)
    assert turn["status"] == "finished"
    assert "offline planner" in run.text
    assert "calculate_qc_metrics" in run.text
    assert "image/png" in run.mimes()
    assert "total_counts" in str(evaluate(with_counts, "list(adata.obs)"))


def test_the_code_never_runs_in_the_users_kernel(with_counts: Notebook) -> None:
    before = set(evaluate(with_counts, "sorted(globals())"))
    assert with_counts.run("%%ovagent\nnormalise and log transform").status == "ok"
    after = set(evaluate(with_counts, "sorted(globals())"))
    assert {n for n in after - before if not n.startswith("_")} == set()
    assert evaluate(with_counts, "'log1p' in adata.uns") is True


def test_undo_puts_the_old_object_back(with_counts: Notebook) -> None:
    identity = evaluate(with_counts, "id(adata)")
    assert with_counts.run("%%ovagent\nrun pca").status == "ok"
    assert evaluate(with_counts, "'X_pca' in adata.obsm") is True
    run = with_counts.run("%ovagent undo")
    assert "adata" in run.text
    assert evaluate(with_counts, "id(adata)") == identity
    assert "run pca" in with_counts.run("%ovagent redo").text
    assert evaluate(with_counts, "'X_pca' in adata.obsm") is True
    assert "run pca" in with_counts.run("%ovagent undo").text
    assert evaluate(with_counts, "id(adata)") == identity


def test_plan_and_code_run_nothing(with_counts: Notebook) -> None:
    identity = evaluate(with_counts, "id(adata)")
    for mode in ("plan", "code"):
        run = with_counts.run(f"%%ovagent {mode}\ncluster the cells")
        assert run.status == "ok", run.error
        assert "leiden" in run.text
        assert turn_free(run.outputs)
    assert evaluate(with_counts, "id(adata)") == identity


def turn_free(outputs: list[dict[str, object]]) -> bool:
    """Whether no turn was finished."""
    return not any(TURN_MIME in output.get("data", {}) for output in outputs)  # type: ignore[operator]


def test_braces_dollars_and_percents_reach_the_planner_as_they_are(with_counts: Notebook) -> None:
    run = with_counts.run("%%ovagent plan\nexplain {adata} $HOME %s {0}")
    assert run.status == "error"
    assert "WorkflowNeedsFallback" in run.error
    assert os.environ["HOME"] not in run.error


def test_inside_another_cell_magic_the_synchronous_way_serves(with_counts: Notebook) -> None:
    run = with_counts.run("%%capture held\n%%ovagent plan\ncluster the cells")
    assert run.status == "ok", run.error
    shown = with_counts.run("held.outputs[-1]")
    assert "leiden" in shown.text


def test_settings_made_by_config_take_effect_at_once(with_counts: Notebook) -> None:
    before = evaluate(with_counts, "id(adata)")
    with_counts.run("%config OVAgent.timeout = 0.001")
    said(with_counts.run("%%ovagent\nrun pca"), "time limit")
    with_counts.run("%config OVAgent.timeout = -1")
    said(with_counts.run("%%ovagent\nrun pca"), "timeout")
    with_counts.run("%config OVAgent.timeout = 600")
    assert "▸" not in with_counts.run("%%ovagent\nrun pca").text
    with_counts.run("%ovagent undo")
    with_counts.run("%config OVAgent.verbose = True")
    assert "▸" in with_counts.run("%%ovagent\nrun pca").text
    with_counts.run("%ovagent undo")
    with_counts.run("%config OVAgent.verbose = False")
    assert evaluate(with_counts, "id(adata)") == before


def test_a_child_that_cannot_start_is_said_and_never_runs_somewhere_weaker(
    with_counts: Notebook,
) -> None:
    broken = with_counts.home / "broken" / "ipykernel"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('a broken installation')\n")
    with_counts.run(f"import os; os.environ['PYTHONPATH'] = {str(broken.parent)!r}")
    for cell in ("%%ovagent -s new\nrun pca", "%%ovagent -s new --fallback raise\nrun pca"):
        said(with_counts.run(cell), "a broken installation")
    run, _ = with_counts.answer("%ovagent policy floor in_process", "y")
    assert "floor: in_process" in run.text
    said(with_counts.run("%%ovagent -s new\nrun pca"), "a broken installation")
    with_counts.run("%ovagent policy reset")
    with_counts.run("del os.environ['PYTHONPATH']")
    assert with_counts.run("%%ovagent -s new\nrun pca").status == "ok"
    with_counts.run("%ovagent undo")


def test_commands_show_themselves(with_counts: Notebook) -> None:
    for command, words in {
        "": "What you can type",
        "help": "%%ovagent",
        "status": "child kernel",
        "policy": "in force",
        "history 3": "run pca",
        "diff": "adata",
        "checkpoint": "no checkpoint",
        "session": "Session:",
        "traceback": "did not fail",
        "version": "scanpy",
    }.items():
        run = with_counts.run(f"%ovagent {command}")
        assert run.status == "ok", run.error
        assert words in run.text, command
        assert "text/markdown" in run.mimes() or command == "traceback"


def test_doctor_examines_this_machine(with_counts: Notebook) -> None:
    run = with_counts.run("%ovagent doctor")
    assert run.status == "ok", run.error
    assert "starts and runs code" in run.text
    assert "as measured inside" in run.text


def test_results_can_be_bound_to_other_names(with_counts: Notebook) -> None:
    identity = evaluate(with_counts, "id(adata)")
    run = with_counts.run("%%ovagent -o clustered=adata,nothing=absent\ncluster at resolution 0.3")
    assert run.status == "ok", run.error
    assert "'nothing'" in run.text
    assert evaluate(with_counts, "id(adata)") == identity
    assert evaluate(with_counts, "'leiden' in clustered.obs") is True
    with_counts.run("%ovagent undo")
    assert evaluate(with_counts, "'clustered' in globals()") is False


def test_the_session_is_kept_as_a_notebook(with_counts: Notebook) -> None:
    import nbformat

    kept = sorted((with_counts.home / "sessions").glob("*.ipynb"))
    assert kept
    held = nbformat.read(kept[0], as_version=4)
    nbformat.validate(held)
    assert any("QC these cells" in cell.source for cell in held.cells)
    assert any("calculate_qc_metrics" in cell.source for cell in held.cells)


def test_completion_knows_commands_and_options(notebook: Notebook) -> None:
    notebook.client.complete("%ovagent hist", 13)
    reply = notebook.client.get_shell_msg(timeout=60)["content"]
    assert "history" in [match.strip() for match in reply["matches"]]


def test_unload_takes_everything_away_and_load_works_again(notebook: Notebook) -> None:
    children = child_pids(notebook)
    assert notebook.run("%unload_ext ovagent_jupyter").status == "ok"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(psutil.pid_exists(pid) for pid in children):
        time.sleep(0.1)
    assert child_pids(notebook) == []
    assert notebook.run("%load_ext ovagent_jupyter").status == "ok"
    assert notebook.run("%ovagent status").status == "ok"
