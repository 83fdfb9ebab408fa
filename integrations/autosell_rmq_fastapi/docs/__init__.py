"""The app's AsyncAPI document over HTTP: as JSON, as YAML, and as a page that needs no internet."""

from autosell_rmq_fastapi.docs.router import rmq_docs_router

__all__ = ["rmq_docs_router"]
