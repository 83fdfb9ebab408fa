"""The stages of the integration tests: FastAPI apps play on both brokers, too."""

from tests.integration.conftest import clean_environment, memory, rabbit, stage

__all__ = ["clean_environment", "memory", "rabbit", "stage"]
