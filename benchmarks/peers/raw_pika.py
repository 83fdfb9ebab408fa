"""pika's blocking connection."""

from __future__ import annotations

import json
import uuid

import pika
from measured import Run, main, payload, ready, sequential
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic

PERSISTENT = 2


def _channel(run: Run) -> BlockingChannel:
    channel = pika.BlockingConnection(pika.URLParameters(run.url)).channel()
    channel.basic_qos(prefetch_count=run.prefetch)
    return channel


def publish(run: Run) -> None:
    """One after the other: with confirms, a publish blocks."""
    channel = _channel(run)
    channel.confirm_delivery()
    data = payload(run.size)

    def call() -> None:
        properties = pika.BasicProperties(
            content_type="application/json", delivery_mode=PERSISTENT, message_id=uuid.uuid4().hex
        )
        channel.basic_publish("", run.queue, json.dumps(data).encode(), properties, mandatory=True)

    sequential(run, call)


def consume(run: Run) -> None:
    """A callback that decodes and acks."""
    channel = _channel(run)
    left = run.n

    def on_message(
        channel: BlockingChannel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
    ) -> None:
        nonlocal left
        json.loads(body)
        channel.basic_ack(method.delivery_tag)
        left -= 1
        if left == 0:
            channel.stop_consuming()

    run.start()
    for queue in run.queues:
        channel.basic_consume(queue, on_message)
    channel.start_consuming()
    run.stop()


def answer(run: Run) -> None:
    """The server of the requests; the reply is confirmed before the request is acked."""
    channel = _channel(run)
    channel.confirm_delivery()

    def on_message(
        channel: BlockingChannel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
    ) -> None:
        json.loads(body)
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, b'{"ok": true}', reply)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(run.queue, on_message)
    ready()
    channel.start_consuming()


def request(run: Run) -> None:
    """One request at a time: its publish blocks."""
    channel = _channel(run)
    channel.confirm_delivery()
    data = payload(run.size)
    replies: dict[str, object] = {}

    def on_reply(
        channel: BlockingChannel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes
    ) -> None:
        replies[properties.correlation_id] = json.loads(body)

    address = "amq.rabbitmq.reply-to"
    channel.basic_consume(address, on_reply, auto_ack=True)

    def call() -> None:
        id_ = uuid.uuid4().hex
        properties = pika.BasicProperties(
            content_type="application/json", delivery_mode=PERSISTENT, correlation_id=id_, reply_to=address
        )
        channel.basic_publish("", run.queue, json.dumps(data).encode(), properties, mandatory=True)
        while replies.pop(id_, None) is None:
            channel.connection.process_data_events(1)

    sequential(run, call)


if __name__ == "__main__":
    main({"publish": publish, "consume": consume, "serve": answer, "request": request})
