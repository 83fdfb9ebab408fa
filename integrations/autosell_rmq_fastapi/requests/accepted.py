"""Requests that are answered with 202 and a URL at which their outcome will be."""

# No `from __future__ import annotations`: FastAPI reads those below, and they name what a closure holds.
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Annotated, Unpack
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response, status
from starlette.routing import NoMatchFound

from autosell_rmq import BrokerError, ConfigError, IdConflict, RabbitMQ, SendOptions, StoreError
from autosell_rmq_fastapi.requests.answers import Accepted, Status, status_body
from autosell_rmq_fastapi.requests.key import IdempotencyKey, Scope, idempotency_key, key_under, scoped_by

logger = logging.getLogger(__name__)


class Accept:
    """What a route calls to have a message handled later; `AcceptedRequests.accept` gives it."""

    def __init__(
        self,
        rmq: RabbitMQ,
        queue: str,
        key: IdempotencyKey,
        response: Response,
        *,
        status_url: str,
        retry_after: int,
    ) -> None:
        self._rmq = rmq
        self._queue = queue
        self._response = response
        self._status_url = status_url
        self._retry_after = retry_after
        self.key = key

    async def __call__(self, message_data: object, **options: Unpack[SendOptions]) -> Accepted:
        """Send it, and make the response 202 with ``Location`` and ``Retry-After``; return its body.

        Args:
            message_data: anything that pydantic writes as JSON. It has to follow from the request alone: a
                time or an id that is made here would make a repeated request another one.
            options: see `SendOptions`.

        Raises:
            HTTPException: 422, the key was used before with other data; 503, it is not known to be accepted,
                and the caller should repeat it under the same key.
            EncodeError: the data is no JSON, or too large.
        """
        try:
            with _unavailable(self._queue, retry_after=self._retry_after):
                await self._rmq.accept(
                    self._queue, message_data, correlation_id=self.key.correlation_id, **options
                )
        except IdConflict:
            detail = "this Idempotency-Key was used before for another request: send a new one"
            raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, detail) from None
        self._response.status_code = status.HTTP_202_ACCEPTED
        self._response.headers["Location"] = self._status_url
        self._response.headers["Retry-After"] = str(self._retry_after)
        return Accepted(id=self.key.id, status="pending", status_url=self._status_url)


class AcceptedRequests:
    """The requests that become messages of one queue, and are answered with 202 and a status URL.

    ::

        orders = AcceptedRequests(rmq, "orders", scope=current_user_id)
        app.include_router(orders.router, prefix="/orders/requests")

        @app.post("/orders", status_code=202)
        async def create_order(order: Order, accept: Annotated[Accept, Depends(orders.accept)]) -> Accepted:
            return await accept(order)

    `rmq` and the app that consumes the queue have to share an idempotency store, and the handler has to take
    the correlation id for its key, which is the default. What is known of a request is kept for the store's
    ttl.

    Attributes:
        router: has the status route, ``GET /{id}``.
        accept: a dependency; it reads the ``Idempotency-Key`` header and gives an `Accept`.

    Args:
        rmq: connected by the app's lifespan.
        queue: an existing queue.
        scope: a dependency that names the caller, as for `idempotency_key`. Only the same caller finds the
            status. None: whoever knows or guesses the key does.
        required: False gives a request without the header a new key of its own.
        retry_after: seconds after which a caller should look at the status again.
    """

    def __init__(
        self,
        rmq: RabbitMQ,
        queue: str,
        *,
        scope: Scope | None,
        required: bool = True,
        retry_after: int = 1,
    ) -> None:
        if retry_after < 1:
            raise ConfigError(f"retry_after={retry_after!r}: expected whole seconds, at least 1")
        self._rmq = rmq
        self._queue = queue
        self._retry_after = retry_after
        self._route = _route_name(rmq, queue, scope)
        self.router = self._make_router(scope)
        self.accept = self._make_accept(scope, required=required)

    def _make_accept(self, scope: Scope | None, *, required: bool) -> Callable[..., Accept]:
        read_key = idempotency_key(scope, required=required)

        def accept(
            request: Request, response: Response, key: Annotated[IdempotencyKey, Depends(read_key)]
        ) -> Accept:
            return Accept(
                self._rmq,
                self._queue,
                key,
                response,
                status_url=self._status_url(request, key),
                retry_after=self._retry_after,
            )

        return accept

    def _make_router(self, scope: Scope | None) -> APIRouter:
        router = APIRouter()

        @router.get(
            "/{id}",
            name=self._route,
            summary=f"Status of a request to {self._queue}",
            response_model=Status,
            responses={
                404: {"description": "No such request is known, or it is another caller's."},
                503: {"description": "Not known right now."},
            },
        )
        async def read_status(
            id_: Annotated[str, Path(alias="id", description="The id in the answer 202.")],
            caller: Annotated[str, Depends(scoped_by(scope))],
        ) -> Response:
            return await self._status(key_under(caller, id_))

        return router

    async def _status(self, key: IdempotencyKey) -> Response:
        with _unavailable(self._queue, retry_after=self._retry_after):
            record = await self._rmq.lookup(self._queue, key.correlation_id)
        if record is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "no such request is known", _headers())
        over = record.state in ("done", "failed")
        return Response(
            status_body(record, id_=key.id, correlation_id=key.correlation_id),
            media_type="application/json",
            headers=_headers(None if over else self._retry_after),
        )

    def _status_url(self, request: Request, key: IdempotencyKey) -> str:
        """The path alone: behind a proxy, which scheme and host the caller sees is not known."""
        for shared in ({}, request.path_params):  # the prefix may hold parameters that both routes have
            with suppress(NoMatchFound):
                return request.url_for(self._route, **{**shared, "id": key.id}).path
        raise ConfigError(
            f"the status route of queue {self._queue!r} is not part of the app, or its prefix has parameters"
            " that the path of this route has not: app.include_router(requests.router, prefix=…) with the"
            " `router` of its AcceptedRequests"
        )


# A route is found by its name, and the first one of a name: of one queue, each scope has its own.
_scopes: WeakKeyDictionary[RabbitMQ, dict[str, list[Scope | None]]] = WeakKeyDictionary()


def _route_name(rmq: RabbitMQ, queue: str, scope: Scope | None) -> str:
    scopes = _scopes.setdefault(rmq, {}).setdefault(queue, [])
    if scope not in scopes:
        scopes.append(scope)
    number = scopes.index(scope) + 1
    return f"status of a request to {queue}" + (f" ({number})" if number > 1 else "")


@contextmanager
def _unavailable(queue: str, *, retry_after: int) -> Generator[None]:
    """Answer 503 while broker or store cannot be reached; repeating the request is safe."""
    try:
        yield
    except (BrokerError, StoreError) as error:
        logger.error("queue %s: a request is answered with 503: %s", queue, error)  # noqa: TRY400
        raise HTTPException(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            "not known to be accepted: repeat the request under the same Idempotency-Key",
            _headers(retry_after),
        ) from error


def _headers(retry_after: int | None = None) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    return headers if retry_after is None else {**headers, "Retry-After": str(retry_after)}
