"""An app as an AsyncAPI 3.0 document: what it consumes, replies and publishes, as data."""

from autosell_rmq.asyncapi.document import asyncapi_document
from autosell_rmq.asyncapi.text import asyncapi_json, asyncapi_yaml

__all__ = ["asyncapi_document", "asyncapi_json", "asyncapi_yaml"]
