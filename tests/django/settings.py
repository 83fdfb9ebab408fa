"""The settings of Django's tests, and of the processes that they start.

Three databases, one per run: ``RMQ_TEST_DB`` is ``sqlite`` (the default), ``postgres`` or ``mariadb``.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KIND = os.environ.get("RMQ_TEST_DB") or "sqlite"

# Runs at the same time do not share a database. A process that a test starts is told its test's databases.
_RUN = os.environ.setdefault("RMQ_TEST_RUN", str(os.getpid()))


def _sqlite(name: str) -> dict[str, Any]:
    path = str(Path(tempfile.gettempdir()) / f"{name}.sqlite3")
    options = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    }
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": options, "TEST": {"NAME": path}}


# How a process keeps its connections to PostgreSQL: as a test wants it.
_CONNECTIONS: dict[str, dict[str, Any]] = {
    "0": {"CONN_HEALTH_CHECKS": True},
    "60": {"CONN_HEALTH_CHECKS": True, "CONN_MAX_AGE": 60},
    "unchecked": {"CONN_HEALTH_CHECKS": False, "CONN_MAX_AGE": None},
    "pool": {"CONN_HEALTH_CHECKS": True, "OPTIONS": {"pool": {"min_size": 1, "max_size": 12, "timeout": 5}}},
}


def _postgres(name: str) -> dict[str, Any]:
    server = _server("POSTGRES_URL", "postgres://postgres:postgres@127.0.0.1:5432", name)
    kept = _CONNECTIONS[os.environ.get("RMQ_TEST_CONNECTIONS") or "0"]
    return server | {"ENGINE": "django.db.backends.postgresql"} | kept


def _mariadb(name: str) -> dict[str, Any]:
    import pymysql

    pymysql.install_as_MySQLdb()
    return _server("MARIADB_URL", "mariadb://root@127.0.0.1:3306", name) | {
        "ENGINE": "django.db.backends.mysql",
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"isolation_level": "read committed", "charset": "utf8mb4"},
    }


def _server(variable: str, usual: str, name: str) -> dict[str, Any]:
    url = urlsplit(os.environ.get(variable) or usual)
    return {
        "HOST": url.hostname,
        "PORT": url.port or "",
        "USER": url.username or "",
        "PASSWORD": url.password or "",
        "NAME": name,
        "TEST": {"NAME": name},
    }


_MAKERS = {"sqlite": _sqlite, "postgres": _postgres, "mariadb": _mariadb}

DATABASES = {alias: _MAKERS[KIND](f"test_rmq_{alias}_{_RUN}") for alias in ("default", "other")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "autosell_rmq_django",
    "tests.django.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.django.urls"
SECRET_KEY = "not a secret: tests only"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = True
STATIC_URL = "static/"
DEBUG = os.environ.get("RMQ_TEST_DEBUG") == "1"

# What the processes log is on their standard error, where tests look for it.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {"autosell_rmq": {"level": "INFO"}},
    "root": {"handlers": ["stderr"] if os.environ.get("RMQ_TEST_SETTINGS") else []},
}

AUTOSELL_RMQ: dict[str, Any] = {
    "URL": os.environ.get("RABBITMQ_URL") or "amqp://guest:guest@127.0.0.1:5672/",
    # What a test wants to be different in a process of its own.
    **json.loads(os.environ.get("RMQ_TEST_SETTINGS") or "{}"),
}
