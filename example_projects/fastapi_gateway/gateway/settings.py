"""What the environment says: RABBITMQ_URL, REDIS_URL and RMQ_PREFIX."""

import os

BROKER = os.environ.get("RABBITMQ_URL") or "amqp://guest:guest@localhost:5672/"
# There is nobody else on a broker in memory: the gateway brings stand-ins for the shop.
ALONE = BROKER.startswith("memory:")

# Where the outcomes of accepted batches are kept. Without it in memory: for this one process, while it lives.
REDIS = os.environ.get("REDIS_URL")

PREFIX = os.environ.get("RMQ_PREFIX") or "shop"

# The shop's, as it has named them. Two services share names and JSON, not code.
ORDERS = f"{PREFIX}.orders"
PRICES = f"{PREFIX}.prices"
EVENTS = f"{PREFIX}.events"

# Our own queues.
BATCHES = f"{PREFIX}.gateway.batches"
FEED = f"{PREFIX}.gateway.events"
