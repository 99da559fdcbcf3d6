"""Who acts, and how a turn goes."""
