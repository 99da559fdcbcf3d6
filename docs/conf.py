"""How the documentation is built: offline, warnings are errors."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

project = "ovagent_jupyter"
author = "ovagent_jupyter developers"
copyright = "2026, ovagent_jupyter developers"
release = version = "0.1.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "generated_tables",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_title = "ovagent_jupyter"
html_show_copyright = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Types of other libraries, and of rooms that users do not import, have no page here.
DOCUMENTED = r"ovagent_jupyter\.(agent\.turn|config\.schema|runtime|storage\.history)\."
nitpick_ignore_regex = [("py:.*", rf"(?!{DOCUMENTED}).*")]
