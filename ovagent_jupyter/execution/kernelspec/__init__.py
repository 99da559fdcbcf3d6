"""The kernel `ovagent-sandbox`: a confined kernel that any Jupyter client can start and use."""
