"""The routes of the document and its page."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from autosell_rmq import RabbitMQ, asyncapi_document, asyncapi_json, asyncapi_yaml
from autosell_rmq_fastapi.docs.page import CONTENT_SECURITY_POLICY, page


def rmq_docs_router(
    rmq: RabbitMQ, *, title: str | None = None, version: str | None = None, description: str | None = None
) -> APIRouter:
    """Make the routes ``/rmq/docs``, ``/rmq/asyncapi.json`` and ``/rmq/asyncapi.yaml``.

    They are no part of the app's OpenAPI schema. The page fetches nothing but itself, has no script, and
    works under any prefix. The document says where the broker is, without the login: give `include_router` a
    dependency where that is nobody's business.

    Args:
        rmq: the app to describe.
        title: the application's name; by default the FastAPI app's.
        version: the application's version; by default the FastAPI app's.
        description: of the application; by default the FastAPI app's.
    """
    router = APIRouter(include_in_schema=False)

    # Plain functions: pydantic makes the schemas in a thread, and the event loop goes on.
    def document(request: Request) -> dict[str, Any]:
        app = request.app
        return asyncapi_document(
            rmq,
            title=title or app.title,
            version=version or app.version,
            description=description or app.description,
        )

    @router.get("/rmq/asyncapi.json")
    def asyncapi_as_json(request: Request) -> Response:
        return Response(asyncapi_json(document(request)), media_type="application/json")

    @router.get("/rmq/asyncapi.yaml")
    def asyncapi_as_yaml(request: Request) -> Response:
        return Response(asyncapi_yaml(document(request)), media_type="application/yaml")

    @router.get("/rmq/docs")
    def docs(request: Request) -> Response:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return Response(page(document(request)), media_type="text/html", headers=headers)

    return router
