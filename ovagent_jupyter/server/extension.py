"""The Jupyter Server extension: for now it answers that it is there, and in which version."""

from __future__ import annotations

from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.application import ExtensionApp
from tornado import web

from ovagent_jupyter import __version__


class HealthHandler(APIHandler):
    """``GET /ovagent/v1/health``."""

    @web.authenticated
    def get(self) -> None:
        """Answer ``{"status": "ok", "version": ...}``."""
        self.finish({"status": "ok", "version": __version__})


class OVAgentServer(ExtensionApp):
    """Enabled by ``jupyter_server_config.d/ovagent_jupyter.json``."""

    name = "ovagent_jupyter"
    extension_url = "/ovagent/v1/health"
    load_other_extensions = True

    def initialize_handlers(self) -> None:
        """Register the routes."""
        self.handlers.append((r"/ovagent/v1/health", HealthHandler))
