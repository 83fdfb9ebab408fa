"""The shop in the admin, beside the idempotency records and the outbox."""

from django.contrib import admin

from shop.models import Customer, Mail, Order, OrderLine


class OrderLineInline(admin.TabularInline):
    """The lines of an order."""

    model = OrderLine
    extra = 0


class MailInline(admin.TabularInline):
    """The mails about an order."""

    model = Mail
    extra = 0


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    """Orders with their lines."""

    list_display = ("id", "customer", "total", "created")
    list_select_related = ("customer",)
    search_fields = ("customer__email",)
    inlines = (OrderLineInline, MailInline)


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    """Customers."""

    search_fields = ("email",)
