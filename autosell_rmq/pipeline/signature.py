"""What a handler's signature asks for: which parameter gets the payload, which one the context."""

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
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The parameters that are served.

    Attributes:
        payload: the parameter of the payload, None for a handler that takes the context only.
        context: the parameter annotated `Message`, None without one.
        annotation: of the payload, `NOTHING` where there is none.
        positional: the payload can only be passed by position.
    """

    payload: str | None
    context: str | None
    annotation: object
    positional: bool


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
    contexts = [p for p in wanted if hints.get(p.name) is Message]
    others = [p for p in wanted if p not in contexts]
    payload = others[0] if others and others[0].kind is not inspect.Parameter.KEYWORD_ONLY else None
    _check(name, payload, contexts, others)
    return Signature(
        payload=payload.name if payload else None,
        context=contexts[0].name if contexts else None,
        annotation=hints.get(payload.name, NOTHING) if payload else NOTHING,
        positional=payload is not None and payload.kind is inspect.Parameter.POSITIONAL_ONLY,
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


def _check(
    name: str,
    payload: inspect.Parameter | None,
    contexts: list[inspect.Parameter],
    others: list[inspect.Parameter],
) -> None:
    for parameter in others:
        if parameter is not payload and parameter.default is inspect.Parameter.empty:
            raise ConfigError(
                f"handler {name}: nothing fits the parameter {parameter.name!r}; a handler takes the payload"
                " and, annotated as Message, the context"
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
