"""Speaking to one model service."""
