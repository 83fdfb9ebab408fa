"""The handlers of the shop; ``manage.py rmq_consume`` finds them here."""

from decimal import Decimal

from autosell_rmq import Binding, Message, Reject
from autosell_rmq_django import handler, producer
from shop.messages import NewOrder, OrderCreated
from shop.models import Customer, Mail, Order, OrderLine
from shop.names import EVENTS, MAILS, ORDERS


@handler(ORDERS, max_retries=5)
def create_order(new: NewOrder, message: Message) -> OrderCreated:
    """Write an order, once: its rows, its result and its event are committed together.

    A duplicate (a double click, a request sent again, a crash before the ack) gets the stored result.
    """
    if missing := {line.item for line in new.lines} - set(new.prices):
        raise Reject(f"no price for {', '.join(sorted(missing))}")
    total = sum((new.prices[line.item] * line.quantity for line in new.lines), Decimal(0))
    customer, _ = Customer.objects.get_or_create(email=new.customer)
    order = Order.objects.create(customer=customer, total=total)
    OrderLine.objects.bulk_create(
        OrderLine(order=order, item=line.item, quantity=line.quantity, price=new.prices[line.item])
        for line in new.lines
    )
    created = OrderCreated(number=order.pk, customer=customer.email, total=total)
    # In this transaction it becomes a row of the outbox: sent after the commit, before the reply.
    producer.publish_on_commit(EVENTS, "order.created", created, correlation_id=message.correlation_id)
    return created


@handler(MAILS, bind=Binding(EVENTS, "order.*"))
def thank(event: OrderCreated) -> None:
    """Each service that binds a queue gets its own copy of the event; this one writes mails."""
    Mail.objects.create(order_id=event.number, text=f"Thank you for your order over {event.total}.")
