"""Customers, their orders, and the mails about them."""

from django.db import models


class Customer(models.Model):
    """Who orders."""

    email = models.CharField(max_length=200, unique=True)

    def __str__(self) -> str:
        return self.email


class Order(models.Model):
    """An order; its number is its id."""

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="orders")
    total = models.DecimalField(max_digits=12, decimal_places=2)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"order {self.pk}"


class OrderLine(models.Model):
    """So many of a thing, at the price that was quoted."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    item = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.quantity} × {self.item}"


class Mail(models.Model):
    """What would be sent to the customer."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="mails")
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.text
