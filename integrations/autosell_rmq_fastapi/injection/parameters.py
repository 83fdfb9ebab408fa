"""What a dependency's parameter asks for: another dependency, the message, or what a message has not."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import BackgroundTasks, Response, UploadFile, params
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from pydantic.fields import FieldInfo

from autosell_rmq import ConfigError, Message

_MESSAGE = (Message, Message | None)  # optional for those who call it without one, such as tests
# Request and WebSocket are connections, too. FastAPI fills these by their type, whatever their default is.
_OF_HTTP = (HTTPConnection, Response, BackgroundTasks, SecurityScopes, UploadFile)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parameter gets the message."""


_ADVICE = "a message has none: take what you need from a Message, or leave this to routes"

type Asked = params.Depends | Context | None


def asked_for(parameter: inspect.Parameter) -> Asked:
    """What the parameter is filled with; None leaves it to its default.

    Raises:
        ConfigError: a message cannot fill it.
    """
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return None
    annotation, marker = _taken_apart(parameter)
    if isinstance(marker, params.Depends):
        asked: Asked = depends_on(marker, annotation)
    elif marker is not None:
        raise ConfigError(f"wants a {type(marker).__name__}(), which comes with an HTTP request; {_ADVICE}")
    elif inspect.isclass(annotation) and issubclass(annotation, _OF_HTTP):
        raise ConfigError(f"wants the {annotation.__name__}, which comes with an HTTP request; {_ADVICE}")
    elif annotation in _MESSAGE:
        asked = Context()
    elif parameter.default is not inspect.Parameter.empty:
        return None
    else:
        raise ConfigError(
            f"has neither a Depends nor a default: a route takes it from its HTTP request; {_ADVICE}"
        )
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise ConfigError("cannot be passed by its name")
    return asked


def depends_on(marker: object, annotation: object) -> params.Depends:
    """The marker, with the annotated class as its dependency where it names none.

    Raises:
        ConfigError: it is a Security or none of FastAPI's, or there is nothing to call.
    """
    if not isinstance(marker, params.Depends):
        raise ConfigError(f"is a {type(marker).__name__}, not a Depends of FastAPI")
    if isinstance(marker, params.Security):
        raise ConfigError(f"is a Security(), which looks at an HTTP request; {_ADVICE}")
    if marker.dependency is None and annotation is not inspect.Parameter.empty and callable(annotation):
        marker = replace(marker, dependency=annotation)
    if not callable(marker.dependency):
        raise ConfigError("is a Depends() of nothing that can be called")
    return marker


def _taken_apart(parameter: inspect.Parameter) -> tuple[object, object]:
    """The type, and the marker of FastAPI's if there is one: of several, the last one counts."""
    annotation = parameter.annotation
    if isinstance(annotation, typing.TypeAliasType):
        annotation = annotation.__value__
    metadata: tuple[object, ...] = ()
    if typing.get_origin(annotation) is Annotated:
        annotation, *rest = typing.get_args(annotation)
        metadata = tuple(rest)
    found: list[object] = [m for m in metadata if isinstance(m, params.Depends | params.Param | params.Body)]
    if isinstance(parameter.default, params.Depends | FieldInfo):
        found.append(parameter.default)
    return annotation, found[-1] if found else None
