"""Health routes for probes: whether the process serves, and whether its RabbitMQ works."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response, status
from pydantic import BaseModel, Field

from autosell_rmq import ConfigError, Health, RabbitMQ


class Liveness(BaseModel):
    """The process serves."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether RabbitMQ works for this app."""

    status: Literal["ready", "degraded", "unavailable"] = Field(
        description="degraded: there are problems, and the app wants requests all the same"
    )
    problems: list[str] = Field(description="why it is not ready, in words")


def rmq_router(*rmqs: RabbitMQ, require_broker: bool = True) -> APIRouter:
    """Make a router with ``/health/live``, ``ready`` and ``details``; `include_router` may give it a prefix.

    Live is 200 while the process serves. Ready is 200 while every one of `rmqs` can do what it was started
    for (see `RabbitMQ.problems`), else 503; its body names the problems. Details has the `Health` of each of
    `rmqs`. Both tell of queues and hosts, so keep them from the public.

    Args:
        rmqs: the app's.
        require_broker: False for an app whose routes are of use without RabbitMQ: ready is always 200, and
            an outage shows in the body alone.
    """
    if not rmqs or not all(isinstance(rmq, RabbitMQ) for rmq in rmqs):
        raise ConfigError("rmq_router() wants the app's RabbitMQ object, or several")
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", summary="Whether the process serves")
    async def live() -> Liveness:
        return Liveness()

    @router.get(
        "/ready",
        summary="Whether RabbitMQ works",
        responses={
            status.HTTP_503_SERVICE_UNAVAILABLE: {"model": Readiness, "description": "It does not, and why"}
        }
        if require_broker
        else {},
    )
    async def ready(response: Response) -> Readiness:
        problems = [problem for rmq in rmqs for problem in rmq.problems]
        if not problems:
            return Readiness(status="ready", problems=[])
        if not require_broker:
            return Readiness(status="degraded", problems=problems)
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return Readiness(status="unavailable", problems=problems)

    @router.get("/details", summary="How RabbitMQ is, for operators")
    async def details() -> list[Health]:
        return [rmq.health for rmq in rmqs]

    return router
