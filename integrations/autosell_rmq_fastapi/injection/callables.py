"""What a dependency is: its name, how it is run, and the parameters of its signature."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from autosell_rmq import ConfigError

type Kind = Literal["async", "sync", "async generator", "generator"]


def name_of(call: object) -> str:
    """``shop.deps.get_db``, or the class of an instance."""
    named = _impartial(call)
    if not hasattr(named, "__qualname__"):
        named = type(named)
    return f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"


def kind_of(call: Callable[..., object]) -> Kind:
    """How FastAPI runs it: a class, and what is none of the others, in a thread."""
    targets = list(_targets(call))
    if any(map(inspect.isasyncgenfunction, targets)):
        return "async generator"
    if any(map(inspect.isgeneratorfunction, targets)):
        return "generator"
    return "async" if any(map(inspect.iscoroutinefunction, targets)) else "sync"


def parameters_of(call: Callable[..., object]) -> list[inspect.Parameter]:
    """The parameters, with their annotations resolved.

    Raises:
        ConfigError: the signature cannot be read, or an annotation not be resolved.
    """
    call = typing.get_origin(call) or call  # of Page[int] the class: the alias takes whatever it is given
    try:
        signature = inspect.signature(call, eval_str=True)
    except NameError:  # maybe in an annotation that does not matter, such as of the result
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        raise ConfigError("its signature cannot be read; wrap it in a function") from None
    return _resolved(call, list(signature.parameters.values()))


def _resolved(call: Callable[..., object], parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    texts = {p.name: p.annotation for p in parameters if isinstance(p.annotation, str)}
    if not texts:
        return parameters

    def bearer() -> None: ...

    bearer.__annotations__ = texts
    try:
        hints = typing.get_type_hints(bearer, *_names(call), include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise ConfigError(f"an annotation cannot be resolved: {error}") from None
    return [p.replace(annotation=hints.get(p.name, p.annotation)) for p in parameters]


def _names(call: Callable[..., object]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What the annotations of a dependency may name: globals, and what it uses of an enclosing function."""
    target = inspect.unwrap(_impartial(call))
    if inspect.isclass(target):
        target = target.__init__
    elif not inspect.isroutine(target):
        target = type(target).__call__
    enclosing = inspect.getclosurevars(target).nonlocals if inspect.isfunction(target) else {}
    return getattr(target, "__globals__", {}), enclosing


def _targets(call: Callable[..., object]) -> Iterator[object]:
    """What may be a coroutine function or a generator: the inner function, or ``__call__``."""
    inner = _impartial(call)
    unwrapped = inspect.unwrap(inner)
    yield inner
    yield unwrapped
    if not inspect.isclass(unwrapped):
        for thing in (inner, unwrapped):
            method = getattr(thing, "__call__", None)  # noqa: B004 - the method itself
            yield method
            if callable(method):
                yield inspect.unwrap(method)


def _impartial(call: Any) -> Any:  # noqa: ANN401 - whatever users pass
    while isinstance(call, functools.partial):
        call = call.func
    return call
