"""The Django app of autosell-rmq: it has nothing public yet.

It will hold the ``AUTOSELL_RMQ`` setting and its checks, the ``handler`` decorator found by autodiscovery,
``manage.py rmq_consume``, the shared producer, the idempotency model and its admin. Until then, use
``autosell_rmq`` itself; adding this package to ``INSTALLED_APPS`` does nothing.
"""

__all__: list[str] = []
