"""What we keep on disk: history, session logs, session notebooks, and where they lie."""
