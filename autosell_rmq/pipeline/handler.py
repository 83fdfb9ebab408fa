"""A user's function as the pipeline calls it: payload validated, context passed, sync or async."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from autosell_rmq.codec import decode, may_hold_non_finite, rejects_non_finite
from autosell_rmq.exceptions import ConfigError, DecodeError
from autosell_rmq.message import Message
from autosell_rmq.pipeline.invalid_message import InvalidMessage
from autosell_rmq.pipeline.signature import NOTHING, Injected, call_method, read_signature, unwrapped

if TYPE_CHECKING:
    import pydantic


class Handler:
    """A function, and what its signature asks for.

    The first parameter that is not annotated `Message` gets the payload: as decoded where it has no
    annotation, or ``dict`` or ``Any``; else validated by pydantic. One annotated `Message` gets the context.
    Those that bear a marker (see `Injected`) are neither.

    Raises:
        ConfigError: the signature asks for something else, or an annotation cannot be resolved.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        if not callable(function):
            raise ConfigError(f"a handler is a function or another callable, not {function!r}")
        self.function = function
        self.name = handler_name(function)
        self.is_async = _is_async(function)
        if _is_generator(function):
            raise ConfigError(f"handler {self.name}: a generator cannot handle messages; return the result")
        self._signature = read_signature(function, self.name)
        self._validate = _validator(self._signature.annotation, self.name)

    @property
    def injected(self) -> tuple[Injected, ...]:
        """The parameters that an `Injector` has to serve."""
        return self._signature.injected

    @property
    def takes_message(self) -> bool:
        """Whether a parameter gets the message."""
        return self._signature.context is not None

    @property
    def payload_type(self) -> object:
        """What the payload is annotated with; ``dict`` where it has no annotation."""
        return dict if self._signature.annotation is NOTHING else self._signature.annotation

    @property
    def result_type(self) -> object:
        """What the result is annotated with; ``Any`` where it has no annotation."""
        return Any if self._signature.returns is NOTHING else self._signature.returns

    @property
    def description(self) -> str:
        """The function's docstring, without its indentation; empty without one."""
        return inspect.getdoc(unwrapped(self.function)) or ""

    def arguments(self, message: Message) -> Mapping[str, object]:
        """Decode and validate the payload.

        Raises:
            DecodeError: the body is no JSON.
            InvalidMessage: it is, but not of the annotated type.
        """
        arguments: dict[str, object] = {}
        payload = self._validate(message.body)
        if self._signature.payload is not None:
            arguments[self._signature.payload] = payload
        return arguments

    def call(self, message: Message, arguments: Mapping[str, object]) -> object:
        """Call the function; an async one gives its coroutine."""
        signature = self._signature
        if signature.context is None and not signature.positional:
            return self.function(**arguments)
        named = dict(arguments)
        if signature.context is not None:
            named[signature.context] = message
        if signature.positional and signature.payload is not None:
            return self.function(named.pop(signature.payload), **named)
        return self.function(**named)


def handler_name(function: object) -> str:
    """How logs and errors name a handler: ``shop.rmq.create_order``."""
    if callable(function):
        function = unwrapped(function)
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', repr(named))}"


def _is_async(function: Callable[..., object]) -> bool:
    return any(map(inspect.iscoroutinefunction, (unwrapped(function), call_method(function))))


def _is_generator(function: Callable[..., object]) -> bool:
    targets = (unwrapped(function), call_method(function))
    return any(inspect.isgeneratorfunction(t) or inspect.isasyncgenfunction(t) for t in targets)


def _validator(annotation: object, name: str) -> Callable[[bytes], object]:
    if annotation in (NOTHING, Any, object, dict):
        return decode
    import pydantic  # here, since a service of plain dicts need not load it

    try:
        adapter: pydantic.TypeAdapter[object] = pydantic.TypeAdapter(cast("type[object]", annotation))
    except pydantic.PydanticSchemaGenerationError as error:
        raise ConfigError(
            f"handler {name}: pydantic cannot validate a payload of type {annotation!r}: {error}"
        ) from None

    def validate(body: bytes) -> object:
        try:
            value = adapter.validate_json(body)
        except pydantic.ValidationError as error:
            decode(body)  # a body that is no JSON is told apart from one of another shape
            raise InvalidMessage(error) from None
        except ValueError as error:
            raise DecodeError(str(error)) from None
        if may_hold_non_finite(body):
            decode(body)
        rejects_non_finite(body)
        return value

    return validate
