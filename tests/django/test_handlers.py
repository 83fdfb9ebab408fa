"""Handlers are found in the ``rmq.py`` of every app: functions, classes, routers of the core."""

from collections.abc import Callable
from typing import Any

import pytest

from autosell_rmq import ConfigError
from autosell_rmq_django.consuming import build_app
from autosell_rmq_django.registry import Discovery, Registry
from tests.django.handler_fixtures import Project, own_registry, project

__all__ = ["own_registry", "project"]


def queues(found: Discovery) -> dict[str, str]:
    """The app of each queue."""
    return {claim.queue: claim.app for claim in found.claims}


def test_every_apps_module_is_imported(project: Project) -> None:
    found = project(
        billing="""
            from autosell_rmq_django import handler

            @handler("invoices", max_retries=5)
            def bill(data): ...
            """,
        stock="""
            from autosell_rmq_django import handler

            @handler("stock")
            async def count(data): ...
            """,
        plain=None,
    )

    assert queues(found) == {"invoices": "billing", "stock": "stock"}
    assert found.failures == ()
    assert [claim.name for claim in found.claims] == ["billing.rmq.bill", "stock.rmq.count"]
    assert found.claims[0].registration.given == {"max_retries": 5}


def test_a_router_of_the_core_is_taken_too(project: Project) -> None:
    found = project(
        billing="""
            from autosell_rmq import Router
            from autosell_rmq_django import handler

            router = Router()
            more = Router()
            empty = Router()

            @router.handler("invoices")
            def bill(data): ...

            @more.handler("refunds")
            def refund(data): ...

            @handler("reminders")
            def remind(data): ...
            """
    )

    assert queues(found) == {"invoices": "billing", "refunds": "billing", "reminders": "billing"}


def test_a_router_that_another_app_imports_is_taken_once(project: Project) -> None:
    found = project(
        billing="""
            from autosell_rmq import Router

            router = Router()

            @router.handler("invoices")
            def bill(data): ...
            """,
        stock="from billing.rmq import router",
    )

    assert queues(found) == {"invoices": "billing"}
    assert found.conflicts() == {}


def test_a_router_that_includes_another_has_no_second_claim(project: Project) -> None:
    found = project(
        billing="""
            from autosell_rmq import Router

            inner = Router()
            outer = Router()

            @inner.handler("invoices")
            def bill(data): ...

            outer.include(inner)
            """
    )

    assert len(found.claims) == 1


def test_the_app_is_the_one_that_registered_it(project: Project) -> None:
    """Not the one that was imported first, nor the one of the function."""
    found = project(
        billing="""
            import stock.rmq
            from autosell_rmq_django import handler

            @handler("invoices")
            def bill(data): ...
            """,
        stock="""
            from os.path import basename
            from autosell_rmq_django import handler

            handler("names")(basename)

            @handler("stock")
            def count(data): ...
            """,
    )

    assert queues(found) == {"names": "stock", "stock": "stock", "invoices": "billing"}


def test_a_class_is_instantiated_once(project: Project, own_registry: Registry) -> None:
    found = project(
        billing="""
            from autosell_rmq_django import handler

            @handler("invoices")
            class Bill:
                made = 0

                def __init__(self):
                    type(self).made += 1

                async def __call__(self, data: dict) -> int:
                    return self.made
            """
    )
    [claim] = found.claims
    cls = type(claim.registration.handler.function)

    assert claim.name == "billing.rmq.Bill"
    assert claim.registration.handler.is_async
    assert cls.__name__ == "Bill"
    assert vars(cls)["made"] == 1


def test_an_instance_is_a_handler(own_registry: Registry) -> None:
    class Greeter:
        def __init__(self, word: str) -> None:
            self.word = word

        def __call__(self, data: dict[str, str]) -> str:
            return self.word

    greeter = Greeter("hello")

    assert own_registry.router.handler("greetings")(greeter) is greeter
    [registration] = own_registry.router
    assert registration.handler.function is greeter


def test_the_decorator_returns_what_it_got(own_registry: Registry) -> None:
    def function(data: str) -> str:
        return data

    class Class:
        def __call__(self, data: str) -> str:
            return data

    assert own_registry.router.handler("a")(function) is function
    assert own_registry.router.handler("b")(Class) is Class


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: type("Mute", (), {}), "by its method __call__, and it has none"),
        (lambda: type("Needy", (), {"__init__": needy, "__call__": called}), "made without arguments"),
        (lambda: "text", "a handler is a function or another callable"),
        (lambda: many, "nothing fits the parameter 'b'"),
    ],
)
def test_what_cannot_be_served_is_refused_where_it_is_written(
    own_registry: Registry, make: Callable[[], Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        own_registry.router.handler("q")(make())
    assert len(own_registry.router) == 0


def needy(self: object, argument: object) -> None: ...


def called(self: object, data: object) -> None: ...


def many(a: object, b: object) -> None: ...


def test_a_wrong_option_is_refused_where_it_is_written(own_registry: Registry) -> None:
    with pytest.raises(ConfigError, match="max_retries=-1"):
        own_registry.router.handler("q", max_retries=-1)
    with pytest.raises(ConfigError, match="unknown option retries"):
        own_registry.router.handler("q", retries=1)  # type: ignore[call-arg]


def test_a_module_that_fails_hides_no_other(project: Project) -> None:
    found = project(
        billing="import nothing_of_this_name",
        stock="""
            from autosell_rmq_django import handler

            @handler("stock")
            def count(data): ...
            """,
    )

    assert queues(found) == {"stock": "stock"}
    [failure] = found.failures
    assert (failure.app, failure.module) == ("billing", "billing.rmq")
    assert isinstance(failure.error, ModuleNotFoundError)


def test_two_apps_may_not_share_a_queue(project: Project) -> None:
    found = project(billing=CLAIMS_ORDERS, stock=CLAIMS_ORDERS)

    assert [claim.app for claim in found.conflicts()["orders"]] == ["billing", "stock"]
    with pytest.raises(ConfigError) as caught:
        build_app()
    assert "billing.rmq.order (app billing) and stock.rmq.order (app stock)" in str(caught.value)


CLAIMS_ORDERS = """
    from autosell_rmq_django import handler

    @handler("orders")
    def order(data): ...
    """


def test_discovery_happens_once(project: Project, own_registry: Registry) -> None:
    found = project(billing=CLAIMS_ORDERS)

    assert own_registry.discover() is found


def test_the_default_router_is_one_of_the_core(own_registry: Registry) -> None:
    """It can include, and be included."""
    from autosell_rmq import Router

    inner = Router()
    inner.handler("a")(called_with_data)
    own_registry.router.include(inner)
    own_registry.router.handler("b")(called_with_data)
    outer = Router()
    outer.include(own_registry.router, queues=["b"])

    assert [registration.queue for registration in own_registry.router] == ["a", "b"]
    assert [registration.queue for registration in outer] == ["b"]


def called_with_data(data: object) -> None: ...
