"""The FastAPI extension of autosell-rmq: it has nothing public yet.

It will hold ``rmq_lifespan``, which starts and stops an app's consumers with FastAPI's own lifespan, and the
``Producer`` dependency for routes. Until then, use ``autosell_rmq`` itself in a lifespan of your own.
"""

__all__: list[str] = []
