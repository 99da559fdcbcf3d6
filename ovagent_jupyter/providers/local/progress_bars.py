"""Progress bars of the packages that load models: as text where a notebook has no widgets."""

from __future__ import annotations

import sys
from importlib import import_module


def choose_text_bars() -> None:
    """Choose bars of text where ``ipywidgets`` is missing, before tqdm does, which warns in red.

    It would choose the same. To silence the warning would change the filters of warnings, which
    are those of the whole process, also of the user's own threads.
    """
    if "tqdm.autonotebook" in sys.modules:
        return
    try:
        notebook, text = import_module("tqdm.notebook"), import_module("tqdm.std")
    except ImportError:  # nobody shows bars
        return
    if notebook.IProgress is None:
        sys.modules["tqdm.autonotebook"] = text
