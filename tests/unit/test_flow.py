"""The gate in front of the handlers: held by several, open when none holds it."""

import asyncio

from autosell_rmq.consumer.flow import Flow


def state(flow: Flow) -> tuple[bool, list[str]]:
    return flow.is_open, list(flow.reasons)


async def test_it_opens_when_the_last_holder_has_released_it() -> None:
    flow = Flow()
    await flow.wait()

    flow.hold("a", "no confirm")
    flow.hold("b", "no store")
    flow.hold("a", "no confirm, again")
    assert flow.reasons == ("no confirm, again", "no store")
    flow.release("a")
    assert state(flow) == (False, ["no store"])
    flow.release("nobody")
    flow.release("b")
    assert state(flow) == (True, [])


async def test_those_who_wait_go_on_together() -> None:
    flow = Flow()
    flow.hold("a", "no confirm")
    waiting = [asyncio.create_task(flow.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    flow.release("a")
    await asyncio.gather(*waiting)


async def test_of_two_pauses_the_later_end_counts() -> None:
    flow = Flow()
    clock = asyncio.get_running_loop().time
    began = clock()
    flow.hold_for(0.3, "no store")
    flow.hold_for(0.05, "no store")
    assert flow.reasons == ("no store",)
    await flow.wait()
    assert clock() - began >= 0.29
