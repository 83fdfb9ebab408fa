"""The pricing service."""

from django.apps import AppConfig


class PricingConfig(AppConfig):
    """Knows what things cost. In real life another team's; here it lives in the same project."""

    name = "pricing"
