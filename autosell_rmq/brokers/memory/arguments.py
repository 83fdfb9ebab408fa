"""Arguments of queues and exchanges: what RabbitMQ refuses, in its words."""

from __future__ import annotations

from autosell_rmq.exceptions import TopologyMismatch
from autosell_rmq.message import Headers

_NUMBERS = (
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-delivery-limit",
)
_QUORUM_ONLY = ("x-delivery-limit", "x-dead-letter-strategy")
_CHOICES = {
    "x-queue-type": ("classic", "quorum"),
    "x-overflow": ("drop-head", "reject-publish", "reject-publish-dlx"),
    "x-dead-letter-strategy": ("at-most-once", "at-least-once"),
}
# A redeclaration has to repeat these; RabbitMQ does not look at others.
_COMPARED = (
    *_NUMBERS,
    *_CHOICES,
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-single-active-consumer",
    "x-queue-mode",
)
ALTERNATE = "alternate-exchange"  # of an exchange
_INTEGERS = (("byte", 7), ("short", 15), ("signedint", 31), ("long", 63))  # AMQP's name, bits


def refuse_invalid(name: str, vhost: str, arguments: Headers) -> None:
    """Raise `TopologyMismatch` for an argument that no queue can have."""
    for argument, value in arguments.items():
        why = _invalid(argument, value)
        if argument == "x-dead-letter-routing-key" and "x-dead-letter-exchange" not in arguments:
            why = ": routing_key_but_no_dlx_defined"
        if argument in _QUORUM_ONLY and arguments.get("x-queue-type") != "quorum":
            why = " of queue type rabbit_classic_queue"
        if why:
            raise TopologyMismatch(
                f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{name}' in vhost '{vhost}'{why}"
            )


def refuse_inequivalent(name: str, vhost: str, current: Headers, received: Headers) -> None:
    """Raise `TopologyMismatch` where a queue would be declared again with other arguments."""
    for argument in _COMPARED:
        is_there, comes = current.get(argument), received.get(argument)
        if {is_there, comes} != {None, "classic"}:  # classic is the default
            _refuse_other(argument, f"queue '{name}' in vhost '{vhost}'", is_there, comes)


def refuse_other_alternate(name: str, vhost: str, current: Headers, received: Headers) -> None:
    """Raise `TopologyMismatch` where an exchange would be declared again with another alternate exchange.

    RabbitMQ does not look at other arguments of an exchange.
    """
    where = f"exchange '{name}' in vhost '{vhost}'"
    _refuse_other(ALTERNATE, where, current.get(ALTERNATE), received.get(ALTERNATE))


def _refuse_other(argument: str, where: str, is_there: object, comes: object) -> None:
    if is_there == comes:
        return
    if is_there is None or comes is None:
        difference = f"received {_described(comes)} but current is {_described(is_there)}"
    else:
        difference = f"received '{_written(comes)}' but current is '{_written(is_there)}'"
    raise TopologyMismatch(f"PRECONDITION_FAILED - inequivalent arg '{argument}' for {where}: {difference}")


def _invalid(argument: str, value: object) -> str:
    if argument in _NUMBERS:
        if not isinstance(value, int) or isinstance(value, bool):
            return f': "expected integer, got {_type(value)}"'
        if value < 0:
            return f": {{value_negative,{value}}}"
        if argument == "x-max-priority" and value > 255:
            return f": {{max_value_exceeded,{value}}}"
    if argument in _CHOICES and value not in _CHOICES[argument]:
        return f': "unsupported value {value!r}"'
    return ""


def _described(value: object) -> str:
    return "none" if value is None else f"the value '{_written(value)}' of type '{_type(value)}'"


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return next((name for name, bits in _INTEGERS if -(2**bits) <= value < 2**bits), "long")
    return "longstr" if isinstance(value, str) else type(value).__name__
