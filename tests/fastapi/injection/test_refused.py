"""What only a route can give is refused at the start, with the way to it."""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    File,
    Form,
    Header,
    Path,
    Query,
    Request,
    Response,
    Security,
    UploadFile,
    WebSocket,
)
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from pydantic import Field

from autosell_rmq import ConfigError
from tests.fastapi.injection.conftest import Service

MODULE = __name__


def of_type(annotation: object, default: object = ...) -> Callable[..., object]:
    """A dependency with a parameter ``wanted``."""

    def dependency(wanted: object) -> object:
        return wanted

    dependency.__annotations__["wanted"] = annotation
    dependency.__defaults__ = None if default is ... else (default,)
    return dependency


async def refusal(service: Service, dependency: Callable[..., object]) -> str:
    """The error of a start with a handler that depends on this."""

    async def handler(payload: object, value: Annotated[object, Depends(dependency)]) -> None: ...

    return await refusal_of(service, handler)


async def refusal_of(service: Service, handler: Callable[..., object]) -> str:
    with pytest.raises(ConfigError) as raised:
        await service.consume(handler)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "type_",
    [
        *(Request, WebSocket, HTTPConnection, Response, JSONResponse),
        *(BackgroundTasks, SecurityScopes, UploadFile),
    ],
)
@pytest.mark.parametrize("default", [..., None])
async def test_what_comes_with_a_request(service: Service, type_: type, default: object) -> None:
    text = await refusal(service, of_type(type_, default))
    assert f": its parameter 'wanted' wants the {type_.__name__}, which comes with an HTTP request;" in text


@pytest.mark.parametrize("marker", [Query, Header, Path, Body, Cookie, Form, File])
async def test_what_is_read_from_a_request(service: Service, marker: Callable[..., Any]) -> None:
    for dependency in (
        of_type(Annotated[str, marker()]),
        of_type(Annotated[str, marker()], "default" if marker is not Path else ...),
        of_type(str, marker() if marker is Path else marker("default")),
    ):
        text = await refusal(service, dependency)
        assert (
            f": its parameter 'wanted' wants a {marker.__name__}(), which comes with an HTTP request;" in text
        )


async def test_a_plain_parameter_which_a_route_takes_from_the_query(service: Service) -> None:
    for annotation in (str, Annotated[int, Field(gt=0)], dict[str, str]):
        text = await refusal(service, of_type(annotation))
        assert ": its parameter 'wanted' has neither a Depends nor a default" in text
    assert "its parameter 'wanted' wants a FieldInfo()" in await refusal(service, of_type(int, Field(3)))


@pytest.mark.parametrize("scheme", [OAuth2PasswordBearer("token"), HTTPBearer()])
async def test_a_security_scheme_wherever_it_is(service: Service, scheme: Any) -> None:  # noqa: ANN401
    name = f"{type(scheme).__module__}.{type(scheme).__name__}"

    def user(token: Annotated[str, Depends(scheme)]) -> str:
        return token

    def order(user: Annotated[str, Depends(user)]) -> Iterator[str]:
        yield user

    text = await refusal(service, order)
    assert text == (
        f"handler {MODULE}.refusal.<locals>.handler: "
        f"value ({MODULE}.{order.__qualname__}) -> user ({MODULE}.{user.__qualname__}) -> token ({name}):"
        " its parameter 'request' wants the HTTPConnection, which comes with an HTTP request; a message has"
        " none: take what you need from a Message, or leave this to routes"
    )


async def test_a_security_in_a_handler_and_in_a_dependency(service: Service) -> None:
    def user() -> str:
        return "somebody"

    def dependency(user: Annotated[str, Security(user, scopes=["orders"])]) -> str:
        return user

    async def handler(payload: object, user: Annotated[str, Security(user)]) -> None: ...

    assert "its parameter 'user' is a Security()" in await refusal(service, dependency)
    assert "handler: its parameter 'user' is a Security()" in await refusal_of(service, handler)


async def test_a_circle(service: Service) -> None:
    def first(second: object) -> object: ...
    def second(first: Annotated[object, Depends(first)]) -> object: ...

    first.__annotations__["second"] = Annotated[object, Depends(second)]
    text = await refusal(service, first)
    assert re.search(
        r": value \(\S+first\) -> second \(\S+second\) -> first \(\S+first\): it depends on itself", text
    )


async def test_what_is_closed_later_cannot_use_what_is_closed_sooner(service: Service) -> None:
    def sooner() -> Iterator[None]:
        yield

    def later(sooner: Annotated[None, Depends(sooner, scope="function")]) -> Iterator[None]:
        yield

    assert 'it has the scope "request", and cannot depend on' in await refusal(service, later)


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> None: ...


def positional(message: Annotated[object, Depends(Unhashable)], /) -> None: ...


async def test_what_cannot_be_called_at_all(service: Service) -> None:
    not_callable: Any = "text"

    async def nothing(payload: object, value=Depends()) -> None: ...  # type: ignore[no-untyped-def] # noqa: ANN001, B008
    async def text(payload: object, value: Annotated[object, Depends(not_callable)]) -> None: ...

    class Marker:
        dependency = None

    async def foreign(payload: object, value: Annotated[object, Marker()]) -> None: ...

    for handler in (nothing, text):
        assert "its parameter 'value' is a Depends() of nothing that can be called" in await refusal_of(
            service, handler
        )
    assert "its parameter 'value' is a Marker, not a Depends of FastAPI" in await refusal_of(service, foreign)
    assert "builtins.dict): its signature cannot be read" in await refusal(service, dict)
    assert "builtins.dict.get): its parameter 'self'" in await refusal(service, dict.get)
    assert "Unhashable, which cannot be hashed" in await refusal(service, Unhashable())
    assert "its parameter 'message' cannot be passed by its name" in await refusal(service, positional)


def unknown(value: object) -> object:
    return value


unknown.__annotations__["value"] = "Annotated[str, Depends(unheard_of)]"


async def test_an_annotation_that_cannot_be_resolved(service: Service) -> None:
    text = await refusal(service, unknown)
    assert "unknown): an annotation cannot be resolved: name 'unheard_of' is not defined" in text


async def test_a_marker_of_a_request_in_the_handler_itself(service: Service) -> None:
    async def header(payload: object, agent: str = Header("none")) -> None: ...
    async def request(payload: object, request: Request = None) -> None: ...  # type: ignore[assignment]
    async def payload(payload: Annotated[dict[str, str], Body()], limit: int = 3) -> int:
        return limit

    assert "header: its parameter 'agent' wants a Header()" in await refusal_of(service, header)
    assert "request: its parameter 'request' wants the Request" in await refusal_of(service, request)
    assert await service.called(payload, {"a": "b"}) == 3


async def test_nothing_is_connected_to_a_queue_where_one_handler_is_refused(service: Service) -> None:
    await refusal(service, of_type(Request))
    assert service.rmq.problems == ("not consuming",)
