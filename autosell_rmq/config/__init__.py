"""What can be set, with its defaults and limits; a wrong value is refused here, by name."""

from autosell_rmq.config.handler import (
    DELAY_LINE,
    HOME,
    HOMELESS,
    Binding,
    HandlerKwargs,
    HandlerOptions,
    IdempotencyKey,
    QueueKwargs,
    default_dlq,
    of_delay_line,
)
from autosell_rmq.config.settings import (
    SETTING_NAMES,
    Settings,
    SettingsKwargs,
    SharedKwargs,
    from_environment,
)
from autosell_rmq.config.url import BrokerURL, bracketed, joined

__all__ = [
    "DELAY_LINE",
    "HOME",
    "HOMELESS",
    "SETTING_NAMES",
    "Binding",
    "BrokerURL",
    "HandlerKwargs",
    "HandlerOptions",
    "IdempotencyKey",
    "QueueKwargs",
    "Settings",
    "SettingsKwargs",
    "SharedKwargs",
    "bracketed",
    "default_dlq",
    "from_environment",
    "joined",
    "of_delay_line",
]
