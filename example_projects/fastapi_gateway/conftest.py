"""The tests need no RabbitMQ: the gateway's settings are read when it is imported, which is after this."""

import os

os.environ |= {"RABBITMQ_URL": "memory://gateway", "REDIS_URL": "", "RMQ_PREFIX": ""}
