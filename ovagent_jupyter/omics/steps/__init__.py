"""The steps of an analysis, one module a group; rows are listed in ``omics/step.py``."""

from ovagent_jupyter.omics.rendering import PRELUDE

__all__ = ["PRELUDE"]
