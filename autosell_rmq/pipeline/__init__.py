"""From a message to its outcome: checks, idempotency, middleware, handler. It decides and never settles."""

from autosell_rmq.pipeline.deliveries import is_suspect, runs_next, unstarted
from autosell_rmq.pipeline.events import MessageEvent, Observer, tell
from autosell_rmq.pipeline.execution import Execution, Surroundings
from autosell_rmq.pipeline.failure import failure_text
from autosell_rmq.pipeline.handler import Handler
from autosell_rmq.pipeline.in_thread import ThreadContext
from autosell_rmq.pipeline.injection import Injection, Injector
from autosell_rmq.pipeline.outcome import DeadLetter, Done, Later, Outcome, Recount
from autosell_rmq.pipeline.process import Pipeline
from autosell_rmq.pipeline.signature import Injected
from autosell_rmq.pipeline.statistics import Statistics
from autosell_rmq.pipeline.threads import NotStarted, ThreadPool, result_of, waiting

__all__ = [
    "DeadLetter",
    "Done",
    "Execution",
    "Handler",
    "Injected",
    "Injection",
    "Injector",
    "Later",
    "MessageEvent",
    "NotStarted",
    "Observer",
    "Outcome",
    "Pipeline",
    "Recount",
    "Statistics",
    "Surroundings",
    "ThreadContext",
    "ThreadPool",
    "failure_text",
    "is_suspect",
    "result_of",
    "runs_next",
    "tell",
    "unstarted",
    "waiting",
]
