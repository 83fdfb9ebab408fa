"""The addresses of the shop."""

from django.contrib import admin
from django.urls import path

from shop import views

urlpatterns = [
    path("", views.index, name="index"),
    path("api/orders", views.orders, name="orders"),
    path("api/prices/<str:item>", views.price, name="price"),
    path("admin/", admin.site.urls),
]
