"""What a handler's signature asks for: the payload, the context, what is injected."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autosell_rmq.exceptions import ConfigError
from autosell_rmq.message import Message

NOTHING: object = inspect.Parameter.empty  # the annotation of a parameter without one
_CONTEXT = (Message, Message | None)  # optional for callers without a message, such as tests
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """A parameter that bears a marker: an object with an attribute ``dependency``, such as ``Depends(…)``.

    Attributes:
        annotation: its type, without the ``Annotated`` around it; `inspect.Parameter.empty` for none.
    """

    name: str
    annotation: object
    marker: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The parameters that are served.

    Attributes:
        payload: the parameter of the payload, None for a handler that takes the context only.
        context: the parameter annotated `Message` (or ``Message | None``), None without one.
        annotation: of the payload, `NOTHING` where there is none.
        returns: the annotation of the result, `NOTHING` where there is none.
        positional: the payload can only be passed by position.
        injected: the parameters that bear a marker.
    """

    payload: str | None
    context: str | None
    annotation: object
    returns: object
    positional: bool
    injected: tuple[Injected, ...] = ()


def read_signature(function: Callable[..., object], name: str) -> Signature:
    """Read the signature of a handler that errors call `name`.

    Raises:
        ConfigError: it asks for something that nothing fits, or an annotation cannot be resolved.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise ConfigError(f"handler {name}: its signature cannot be read; wrap it in a function") from None
    hints = _hints(function, name)
    wanted = [p for p in parameters.values() if p.kind not in _VARIADIC]
    injected = [found for p in wanted if (found := _injected(p, hints.get(p.name, NOTHING)))]
    marked = {entry.name for entry in injected}
    contexts = [p for p in wanted if hints.get(p.name) in _CONTEXT and p.name not in marked]
    others = [p for p in wanted if p not in contexts and p.name not in marked]
    payload = others[0] if others and others[0].kind is not inspect.Parameter.KEYWORD_ONLY else None
    _check(name, payload, contexts, others)
    for parameter in wanted:
        if parameter.name in marked and parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise ConfigError(
                f"handler {name}: the parameter {parameter.name!r} cannot be passed by its name"
            )
    return Signature(
        payload=payload.name if payload else None,
        context=contexts[0].name if contexts else None,
        annotation=hints.get(payload.name, NOTHING) if payload else NOTHING,
        returns=hints.get("return", NOTHING),
        positional=payload is not None and payload.kind is inspect.Parameter.POSITIONAL_ONLY,
        injected=tuple(injected),
    )


def unwrapped(function: Callable[..., object]) -> Callable[..., object]:
    """The function, method or class instance inside of ``functools.partial``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def call_method(function: Callable[..., object]) -> Callable[..., object]:
    """The ``__call__`` of an instance; of a function, some wrapper without interest."""
    method: Callable[..., object] = unwrapped(function).__call__  # type: ignore[operator]
    return method


def _injected(parameter: inspect.Parameter, annotation: object) -> Injected | None:
    """The parameter, if its default or its ``Annotated`` holds a marker; the last one counts."""
    if isinstance(annotation, typing.TypeAliasType):
        annotation = annotation.__value__
    metadata: tuple[object, ...] = ()
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *rest = typing.get_args(annotation)
        metadata = tuple(rest)
    markers = [thing for thing in (*metadata, parameter.default) if _is_marker(thing)]
    return Injected(name=parameter.name, annotation=annotation, marker=markers[-1]) if markers else None


def _is_marker(thing: object) -> bool:
    # Statically: a default may be an object that answers to any name, or runs code for it.
    return inspect.getattr_static(thing, "dependency", NOTHING) is not NOTHING


def _check(
    name: str,
    payload: inspect.Parameter | None,
    contexts: list[inspect.Parameter],
    others: list[inspect.Parameter],
) -> None:
    for parameter in others:
        if parameter is not payload and parameter.default is inspect.Parameter.empty:
            raise ConfigError(
                f"handler {name}: nothing fits the parameter {parameter.name!r}; a handler takes the payload,"
                " the context (annotated as Message) and what is injected (a Depends)"
            )
    if payload is None and not contexts:
        raise ConfigError(f"handler {name}: it has no parameter for the payload")
    if len(contexts) > 1 or any(p.kind is inspect.Parameter.POSITIONAL_ONLY for p in contexts):
        raise ConfigError(f"handler {name}: one parameter is annotated as Message, and not positional-only")


def _hints(function: Callable[..., object], name: str) -> dict[str, Any]:
    target = unwrapped(function)
    if not (inspect.isfunction(target) or inspect.ismethod(target)):
        target = call_method(target)
    target = inspect.unwrap(target)
    # An annotation may name something local of the function that the handler is defined in.
    enclosing = inspect.getclosurevars(target).nonlocals if inspect.isfunction(target) else {}
    try:
        return typing.get_type_hints(target, localns=dict(enclosing) or None, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise ConfigError(f"handler {name}: an annotation cannot be resolved: {error}") from None
