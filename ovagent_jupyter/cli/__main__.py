"""``python -m ovagent_jupyter.cli``: the same as ``ovagent``."""

from __future__ import annotations

import sys

from ovagent_jupyter.cli import main

sys.exit(main())
