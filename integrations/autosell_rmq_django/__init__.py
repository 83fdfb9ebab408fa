"""RabbitMQ for Django: ``@handler`` in an app's ``rmq.py``, ``manage.py rmq_consume``, ``producer`` to send.

Add ``"autosell_rmq_django"`` to ``INSTALLED_APPS``; everything else is in the setting ``AUTOSELL_RMQ``.
The names are imported when they are first used, for Django imports this package before its apps are ready.
"""

import importlib as _importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autosell_rmq_django.publishing import producer
    from autosell_rmq_django.registry import handler, router

__all__ = ["handler", "producer", "router"]

_HOMES = {"handler": "registry", "producer": "publishing", "router": "registry"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
