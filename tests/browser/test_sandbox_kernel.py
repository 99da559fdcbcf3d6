"""The kernel ``ovagent-sandbox`` in JupyterLab: it runs, stops, restarts, and does not get out."""

from __future__ import annotations

from collections.abc import Iterator

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Lab

pytestmark = pytest.mark.browser

NOTEBOOK = "sandboxed.ipynb"
STATUS = (
    "print([line.split() for line in open('/proc/self/status') if 'Secc' in line or 'NoN' in line])"
)
ESCAPE = """
from IPython.display import HTML, SVG, Javascript, display
display(Javascript("window.escaped = 'javascript'"))
display(HTML("<img src=x onerror=\\"window.escaped = 'html'\\">"))
display(HTML("<script>window.escaped = 'tag'</script>"))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg' onload=\\"window.escaped = 'svg'\\"></svg>"))
get_ipython().set_next_input("forged = 1", replace=True)
print("shown")
"""
CELLS = [
    STATUS,
    "open('sandboxed.ipynb')",
    "print('begun', flush=True)\nwhile True: pass",
    "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
    ESCAPE,
    "print('after', 'planted' in globals()); planted = 1",
]
READY = """async () => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.context.sessionContext.ready;
    const kernel = panel.context.sessionContext.session.kernel;
    await kernel.info;
    return kernel.name;
}"""
RUN = """async (index) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    await window.jupyterapp.commands.execute('notebook:run-cell');
}"""
START = """(index) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    window.jupyterapp.commands.execute('notebook:run-cell');
}"""
INTERRUPT = "() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')"
RESTART = """async () => {
    const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
    await kernel.restart();
    await kernel.info;
}"""


@pytest.fixture
def page(browser: Browser, lab: Lab) -> Iterator[Page]:
    """A page on a notebook with the confined kernel."""
    notebook = new_notebook(
        cells=[new_code_cell(source) for source in CELLS],
        metadata={"kernelspec": {"name": "ovagent-sandbox", "display_name": "sandbox"}},
    )
    nbformat.write(notebook, lab.work / NOTEBOOK)
    context = browser.new_context(viewport={"width": 1280, "height": 1500})
    page = context.new_page()
    # A workspace of its own: JupyterLab opens again what another test left in the usual one.
    page.goto(f"{lab.url}lab/workspaces/sandbox/tree/{NOTEBOOK}?token={lab.token}")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context?.isReady")
    assert page.evaluate(READY) == "ovagent-sandbox"
    yield page
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    context.close()


def test_the_confined_kernel_in_jupyterlab(page: Page) -> None:
    cells = page.locator(".jp-Notebook .jp-CodeCell")

    page.evaluate(RUN, 0)
    expect(cells.nth(0)).to_contain_text("['NoNewPrivs:', '1'], ['Seccomp:', '2']")
    expect(page.get_by_role("main")).to_contain_text("ovagent sandbox")

    page.evaluate(RUN, 1)
    expect(cells.nth(1)).to_contain_text("This kernel is confined")
    expect(cells.nth(1)).to_contain_text("sandbox_read")

    page.evaluate(START, 2)
    expect(cells.nth(2).locator(".jp-OutputArea")).to_contain_text("begun")
    page.evaluate(INTERRUPT)
    expect(cells.nth(2)).to_contain_text("KeyboardInterrupt", timeout=60_000)

    page.evaluate(RUN, 3)
    expect(cells.nth(3).locator("img")).to_be_attached()

    page.evaluate(RUN, 4)
    expect(cells.nth(4).locator(".jp-OutputArea")).to_contain_text("shown")
    assert page.evaluate("() => window.escaped") is None
    assert "forged" not in page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets[5].model.sharedModel.source"
    )
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == len(CELLS)

    page.evaluate(RUN, 5)
    expect(cells.nth(5).locator(".jp-OutputArea")).to_contain_text("after False")
    page.evaluate(RESTART)
    page.evaluate(RUN, 5)
    expect(cells.nth(5).locator(".jp-OutputArea")).to_contain_text("after False")
    page.evaluate(RUN, 0)
    expect(cells.nth(0)).to_contain_text("['NoNewPrivs:', '1'], ['Seccomp:', '2']")
