"""The order of things: limits, decoding, due time, idempotency, middleware, handler, result."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from types import TracebackType
from typing import Literal

from autosell_rmq.codec import DeadLetterReason
from autosell_rmq.config import HandlerOptions
from autosell_rmq.exceptions import DecodeError, HandlerDecision, InProgress, LeaseLost, StoreError
from autosell_rmq.idempotency import Keys, Stored, fingerprint
from autosell_rmq.message import (
    ATTEMPT,
    DUE,
    REPLY_TYPE,
    RETRY_COUNT,
    Message,
    header_bytes,
    int_header,
    printable,
)
from autosell_rmq.pipeline.context import handed_over
from autosell_rmq.pipeline.decide import Expired, after_busy, after_failure, described
from autosell_rmq.pipeline.deliveries import recounted_or_buried
from autosell_rmq.pipeline.events import MessageEvent, tell
from autosell_rmq.pipeline.execution import Execution, Surroundings
from autosell_rmq.pipeline.failure import note_failure
from autosell_rmq.pipeline.handler import Handler
from autosell_rmq.pipeline.invalid_message import InvalidMessage
from autosell_rmq.pipeline.outcome import DeadLetter, Done, Later, Outcome
from autosell_rmq.pipeline.threads import NotStarted
from autosell_rmq.pipeline.twins import Twins
from autosell_rmq.retry import RetryPolicy
from autosell_rmq.topology import DUE_TOLERANCE

logger = logging.getLogger(__name__)

_LONGEST_LOGGED = 2000  # characters


class Pipeline:
    """Turns each message of one queue into its outcome."""

    def __init__(self, handler: Handler | None, options: HandlerOptions, around: Surroundings) -> None:
        self._execution = Execution(handler, options, around) if handler is not None else None
        self._options = options
        self._around = around
        self._observed = bool(around.observers)
        self._policy = RetryPolicy(
            max_retries=options.max_retries, delay=options.retry_delay, max_delay=options.max_retry_delay
        )
        self._keys = Keys(around.vhost, options.queue)
        self._twins = Twins(around.settings.busy_timeout)

    async def process(self, message: Message) -> Outcome:
        """Handle one message.

        Raises:
            NotStarted: it was withdrawn before a thread took it up.
            asyncio.CancelledError: the caller was cancelled, and with it the handler; nothing is remembered.
            Abandoned: the same, but a thread still runs the handler.
        """
        attempt = self._attempt(message) if message.headers else 1
        if self._observed:
            self._tell("received", message, attempt)
        try:
            return self._refused(message, attempt) or await self._handled(message, attempt)
        except NotStarted:
            raise
        except StoreError as error:
            return self._not_now(message, attempt, error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this task: the handler let somebody else's cancellation through.
            return self._failed(message, attempt, error)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise  # the process is to end; the message has not failed
        except BaseException as error:  # noqa: BLE001 - every failure becomes an outcome
            return self._failed(message, attempt, error)

    async def note_failure(self, message: Message, outcome: DeadLetter) -> None:
        """Let `lookup` know of a dead letter: called when it is confirmed, before its message is acked.

        Not earlier, or a crash in between would show as failed what will run again; not later, or one
        would leave it pending for ever. Redelivered, the message comes to its end, and here, once more.
        """
        if message.properties.type == REPLY_TYPE and not self._options.accept_replies:
            return  # its id is that of another message
        if message.malformed is not None:
            return  # its id may be none
        try:
            key = self._key(message)
        except Exception as error:  # noqa: BLE001 - the user's function; it may be what has failed
            logger.debug("queue %s: a dead letter without a key: %r", message.queue, error)
            return
        if key is not None:
            await note_failure(self._around.store, key, message, outcome)

    def _attempt(self, message: Message) -> int:
        """Which attempt this is; the headers are anybody's word, so at most the last one."""
        headers = message.headers
        most = self._options.max_retries + 1
        return max(
            1, int_header(headers, ATTEMPT, 1, most=most), int_header(headers, RETRY_COUNT, most=most - 1) + 1
        )

    def _refused(self, message: Message, attempt: int) -> Outcome | None:
        """What is settled without looking into the body."""
        settings = self._around.settings

        def dead(reason: DeadLetterReason, detail: str) -> DeadLetter:
            return DeadLetter(reason=reason, detail=detail, attempts=attempt - 1)

        if message.malformed is not None:  # first: nothing else that is said of it can be trusted
            return dead(DeadLetterReason.INVALID_MESSAGE, message.malformed)
        if message.redelivered and (outcome := recounted_or_buried(message, self._options, attempt)):
            return outcome
        if len(message.body) > settings.max_body_bytes:
            size = f"the body takes {len(message.body)} bytes, the limit is {settings.max_body_bytes}"
            return dead(DeadLetterReason.TOO_LARGE, size)
        headers = message.headers
        if headers and (size_of := header_bytes(headers)) > settings.max_header_bytes:
            size = f"the headers take {size_of} bytes, the limit is {settings.max_header_bytes}"
            return dead(DeadLetterReason.TOO_LARGE, size)
        if self._execution is None:
            return dead(DeadLetterReason.NO_HANDLER, "")
        if message.properties.type == REPLY_TYPE and not self._options.accept_replies:
            return dead(DeadLetterReason.REJECTED, "a reply came to a queue of requests (type=reply)")
        return None

    async def _handled(self, message: Message, attempt: int) -> Outcome:
        around, execution = self._around, self._execution
        assert execution is not None  # or it was refused
        arguments = execution.arguments(message)
        if message.headers and (later := self._not_due(message, attempt)):
            return later
        key = self._key(message)
        context = message
        if execution.shows_message:
            context = handed_over(
                message,
                attempt=attempt,
                idempotency_key=key,
                producer=around.producer,
                sync_producer=around.sync_producer,
            )
        call = execution.call(context, arguments, attempt=attempt)
        if key is None:
            around.statistics.without_id += 1
            return self._done(message, await call.run(), attempt)
        mine = fingerprint(message.body)
        if not self._twins.begins(key):  # one in this very process is waited for before the store is asked
            await self._twins.turn(key)
        try:
            stored = await around.store.run_once(key, mine, call)
        finally:
            self._twins.end(key)
        if stored.duplicate:
            return self._duplicate(message, stored, mine, attempt)
        return self._done(message, stored.data, attempt)

    def _not_due(self, message: Message, attempt: int) -> Later | None:
        due = int_header(message.headers, DUE) / 1000
        if due and due - self._around.now() > DUE_TOLERANCE:
            return Later(due=due, why="not_due", attempt=attempt)
        return None

    def _done(self, message: Message, data: bytes, attempt: int) -> Done:
        self._around.statistics.handled += 1
        if self._observed:
            self._tell("handled", message, attempt)
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "queue %s: handled, correlation_id=%s", message.queue, printable(message.correlation_id)
            )
        return Done(data=data)

    def _duplicate(self, message: Message, stored: Stored, fingerprint_: str, attempt: int) -> Outcome:
        logger.info(
            "queue %s: a duplicate, answered with the stored result, correlation_id=%s",
            message.queue,
            printable(message.correlation_id),
        )
        self._around.statistics.duplicates += 1
        if self._observed:
            self._tell("duplicate", message, attempt)
        conflict = stored.fingerprint != fingerprint_
        if conflict:
            self._around.statistics.conflicts += 1
            logger.warning("queue %s: an id came again with another body", self._options.queue)
            if self._options.on_conflict == "reject":
                return DeadLetter(
                    reason=DeadLetterReason.REJECTED,
                    detail="the id was used before with another body",
                    attempts=attempt - 1,
                )
        return Done(data=stored.data, duplicate=True, conflict=conflict)

    def _key(self, message: Message) -> str | None:
        source = self._options.idempotency_key
        match source:
            case None:
                return None
            case "correlation_id":
                identity = message.correlation_id or message.message_id
            case "message_id":
                identity = message.message_id or message.correlation_id
            case _:
                identity = source(message)
        if not identity:
            return None
        return self._keys.of(identity)

    def _not_now(self, message: Message, attempt: int, error: StoreError) -> Later:
        now = self._around.now()
        if isinstance(error, InProgress | LeaseLost):
            self._around.statistics.busy += 1
            return after_busy(message, attempt=attempt, now=now, why="busy", detail=str(error))
        logger.error("the idempotency store does not answer: %s", error)
        return after_busy(message, attempt=attempt, now=now, why="store", detail=str(error))

    def _shown(self, text: str) -> str:
        redact = self._around.settings.redact
        if redact is None:
            return text
        try:
            return redact(text)
        except Exception:  # noqa: BLE001 - nothing is shown rather than too much
            return "(the redact function failed)"

    def _tell(
        self,
        kind: Literal["received", "handled", "duplicate", "failed"],
        message: Message,
        attempt: int,
        error: BaseException | None = None,
    ) -> None:
        event = MessageEvent(kind=kind, message=message, attempt=attempt, error=error)
        tell(self._around.observers, event)

    def _failed(self, message: Message, attempt: int, error: BaseException) -> Later | DeadLetter:
        if self._observed:
            self._tell("failed", message, attempt, error)
        outcome = after_failure(message, error, attempt=attempt, policy=self._policy, now=self._around.now())
        text = described(error)
        shown = self._shown(text)
        if shown != text:
            outcome = replace(outcome, detail=self._shown(outcome.detail))
        if isinstance(error, InvalidMessage) and isinstance(outcome, DeadLetter):
            outcome = replace(outcome, errors=error.errors(self._shown))
        last = isinstance(outcome, DeadLetter)
        expected = isinstance(error, HandlerDecision | DecodeError | InvalidMessage | Expired)
        traced = last and not expected and _may_be_logged(text, shown)
        logger.log(
            logging.ERROR if last else logging.WARNING,
            "queue %s: attempt %d of %d failed: %s",
            self._options.queue,
            attempt,
            self._options.max_retries + 1,
            printable(shown),
            exc_info=_from_user_code(error) if traced else None,
        )
        return outcome


def _may_be_logged(text: str, shown: str) -> bool:
    """A traceback ends in the error's whole text: not where that was redacted, or is a book."""
    return text == shown and len(text) <= _LONGEST_LOGGED


def _from_user_code(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """The error with the traceback of the handler, without our own frames in front of it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(
        ("autosell_rmq.", "asyncio.")
    ):
        trace = trace.tb_next
    return type(error), error, trace or error.__traceback__
