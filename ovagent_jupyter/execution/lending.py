"""How memory that the parent gives to a child is told from the child's own."""

from __future__ import annotations

import stat

LENT = stat.S_ISUID
"""A bit in the mode of the parent's memory: it counts for no child. The filter on system calls
keeps a child from setting it on memory of its own."""
