"""The Django app: it registers checks and listens for changed settings, and configures nothing."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.utils.translation import gettext_lazy as _


class AutosellRmqConfig(AppConfig):
    """Known to Django, in table names and ``manage.py`` too, as ``autosell_rmq``."""

    name = "autosell_rmq_django"
    label = "autosell_rmq"
    verbose_name = _("RabbitMQ")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from autosell_rmq_django import checks, conf

        checks.register()
        setting_changed.connect(conf.forget, dispatch_uid="autosell_rmq.conf")
