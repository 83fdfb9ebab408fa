"""FastAPI's ``Depends`` in the parameters of message handlers."""

from autosell_rmq_fastapi.injection.injector import injector_for
from autosell_rmq_fastapi.injection.lifespan_state import LifespanState, lifespan_state
from autosell_rmq_fastapi.injection.planning import Provided

__all__ = ["LifespanState", "Provided", "injector_for", "lifespan_state"]
