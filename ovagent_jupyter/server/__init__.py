"""The server face: the Jupyter Server extension."""
