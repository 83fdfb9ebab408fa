"""``app.dependency_overrides``: looked at for each message, with dependencies of their own."""

from collections.abc import Iterator
from typing import Annotated

import pytest
from fastapi import Depends, Request

from autosell_rmq import ConfigError, Message
from tests.fastapi.injection.conftest import Service


def get_url() -> str:
    return "postgresql:"


def get_db(url: Annotated[str, Depends(get_url)]) -> str:
    return f"db at {url}"


def get_session(db: Annotated[str, Depends(get_db)]) -> Iterator[str]:
    yield f"session of {db}"


async def handler(payload: object, session: Annotated[str, Depends(get_session)]) -> str:
    return session


async def test_they_are_looked_at_for_each_message(service: Service) -> None:
    overrides = service.app.dependency_overrides
    assert await service.called(handler) == "session of db at postgresql:"

    overrides[get_url] = lambda: "sqlite:"
    assert await service.reply() == "session of db at sqlite:"
    overrides[get_url] = lambda: "mysql:"
    assert await service.reply() == "session of db at mysql:"
    overrides[get_db] = lambda: "a fake"
    assert await service.reply() == "session of a fake"
    service.app.dependency_overrides = {}
    assert await service.reply() == "session of db at postgresql:"


async def test_an_override_has_dependencies_of_its_own_and_may_yield(service: Service) -> None:
    async def fake(url: Annotated[str, Depends(get_url)], message: Message) -> object:
        return f"fake for {message.queue} at {url}"

    def session(db: Annotated[str, Depends(get_db)]) -> Iterator[str]:
        yield db
        service.log.append("closed")

    service.app.dependency_overrides = {get_db: fake, get_session: session, get_url: lambda: "sqlite:"}
    assert await service.called(handler) == f"fake for {service.queue} at sqlite:"
    assert service.log == ["closed"]


async def test_uses_of_the_original_share_the_value_of_the_override(service: Service) -> None:
    calls = 0

    def fake() -> str:
        nonlocal calls
        calls += 1
        return str(calls)

    async def twice(
        payload: object,
        session: Annotated[str, Depends(get_session)],
        db: Annotated[str, Depends(get_db)],
    ) -> list[str]:
        return [session, db]

    service.app.dependency_overrides[get_db] = fake
    assert await service.called(twice) == ["session of 1", "1"]


async def test_two_originals_do_not_share_the_value_of_one_override(service: Service) -> None:
    values = iter(["first", "second"])

    async def both(
        payload: object, url: Annotated[str, Depends(get_url)], db: Annotated[str, Depends(get_db)]
    ) -> list[str]:
        return [url, db]

    def fake() -> str:
        return next(values)

    service.app.dependency_overrides = {get_url: fake, get_db: fake}
    assert await service.called(both) == ["first", "second"]


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> str:
        return "unhashable"


async def test_one_that_cannot_be_hashed_is_refused(service: Service) -> None:
    await service.consume(handler)
    service.app.dependency_overrides[get_db] = Unhashable()
    assert "its parameter 'db' depends on" in await service.reply()


def needs_a_request(request: Request) -> str:
    return request.url.path


async def test_one_that_is_refused_is_a_failure_that_names_it(service: Service) -> None:
    await service.consume(handler)
    service.app.dependency_overrides[get_db] = needs_a_request
    error = await service.reply()

    assert error.startswith(
        f"ConfigError: handler {__name__}.handler: session ({__name__}.get_session) -> db "
    )
    assert (
        f"({__name__}.needs_a_request, which overrides {__name__}.get_db): its parameter 'request'" in error
    )
    service.app.dependency_overrides.clear()
    assert await service.reply() == "session of db at postgresql:"


async def test_one_that_is_refused_at_the_start_ends_it(service: Service) -> None:
    service.app.dependency_overrides[get_db] = needs_a_request
    with pytest.raises(ConfigError, match=r"needs_a_request, which overrides .*get_db"):
        await service.consume(handler)


async def test_what_is_refused_is_refused_though_it_is_overridden(service: Service) -> None:
    async def path(payload: object, path: Annotated[str, Depends(needs_a_request)]) -> None: ...

    service.app.dependency_overrides[needs_a_request] = lambda: "/"
    with pytest.raises(ConfigError, match="wants the Request"):
        await service.consume(path)


async def test_one_that_asks_for_what_it_overrides_is_a_circle(service: Service) -> None:
    def fake(db: Annotated[str, Depends(get_db)]) -> str:
        return db

    await service.consume(handler)
    service.app.dependency_overrides[get_db] = fake
    assert (await service.reply()).endswith("it depends on itself")


async def test_what_the_app_provides_is_overridden_as_well(service: Service) -> None:
    provided = {get_url: lambda: "provided", needs_a_request: lambda: "/provided"}

    async def both(
        payload: object,
        db: Annotated[str, Depends(get_db)],
        path: Annotated[str, Depends(needs_a_request)],
    ) -> list[str]:
        return [db, path]

    assert await service.called(both, provided=provided) == ["db at provided", "/provided"]
    service.app.dependency_overrides[needs_a_request] = lambda: "/overridden"
    assert await service.reply() == ["db at provided", "/overridden"]
