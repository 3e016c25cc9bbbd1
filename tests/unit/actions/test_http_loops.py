"""`http.request` on event loops: one for each call, or one for many; nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from parallelizer.actions.http import connections, request
from parallelizer.actions.http.addresses import parse_networks
from parallelizer.actions.http.errors import (
    AddressRefused,
    ReplyTooLarge,
)
from tests.support.http_calls import LOOPBACK, call, context, open_visits
from tests.support.waiting import wait_until
from tests.support.web import Site, Visit, hold_until


def sockets_of_this_process() -> int:
    return sum(connection.status != psutil.CONN_NONE for connection in psutil.Process().net_connections("tcp"))


def test_a_loop_for_each_call_leaves_nothing_behind(site: Site) -> None:
    site.say("/", b"ok")
    site.say("/large", b"x" * 100_000)
    site.say("/moved", b"", 302, location="/")

    def rounds(number: int) -> None:
        for _ in range(number):
            assert call(site.url())["body"] == "ok"
            assert call(site.url("/moved"))["body"] == "ok"
            with pytest.raises(ReplyTooLarge):
                call(site.url("/large"), max_bytes=10)
            with pytest.raises(AddressRefused):
                call("http://10.0.0.1/")
        gc.collect()  # what was not closed warns now, and warnings are errors

    rounds(1)
    assert connections._pools == {}
    wait_until(lambda: open_visits() == 0, "the server has no connection left")
    before = sockets_of_this_process()
    rounds(10)
    wait_until(lambda: open_visits() == 0, "the server has no connection left")
    assert sockets_of_this_process() == before


def test_one_loop_in_a_thread_reuses_connections_and_closes_them_at_its_end(site: Site) -> None:
    site.say("/", b"ok")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        for _ in range(5):
            waiting = asyncio.run_coroutine_threadsafe(request(context(), site.url()), loop)
            assert waiting.result(30)["status"] == 200
        assert len({came.client for came in site.received}) == 1
        assert len(connections._pools) == 1
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert connections._pools == {}
    wait_until(lambda: open_visits() == 0, "the server has no connection left")
    gc.collect()


def test_many_requests_run_side_by_side_in_one_loop(site: Site) -> None:
    together = threading.Barrier(30)

    @site.page("/meet")
    def meet(visit: Visit) -> None:
        together.wait(30)
        visit.reply(b"met")

    async def all_at_once() -> list[dict[str, Any]]:
        return await asyncio.gather(*(request(context(), site.url("/meet")) for _ in range(30)))

    assert {reply["body"] for reply in asyncio.run(all_at_once())} == {"met"}


def test_loops_of_several_threads_do_not_meet(site: Site) -> None:
    site.say("/", b"ok")
    with ThreadPoolExecutor(4) as threads:
        replies = [threads.submit(call, site.url()) for _ in range(40)]
    assert {reply.result()["body"] for reply in replies} == {"ok"}
    assert connections._pools == {}


def test_requests_that_are_given_up_leave_no_connection_in_use(site: Site) -> None:
    ended = threading.Event()
    site.pages["/silent"] = hold_until(ended)
    site.say("/", b"ok")

    async def given_up_and_then_one_more() -> None:
        waiting = [asyncio.create_task(request(context(), site.url("/silent"))) for _ in range(5)]
        await asyncio.to_thread(wait_until, lambda: len(site.received) == 5, "all are under way")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        pool = await connections.pool_for(parse_networks(LOOPBACK))
        assert pool.connections == []
        assert (await request(context(), site.url()))["body"] == "ok"

    try:
        asyncio.run(given_up_and_then_one_more())
    finally:
        ended.set()


def test_a_connection_is_not_shared_with_those_who_may_not_call_its_address(site: Site) -> None:
    site.say("/", b"ok")

    async def first_allowed_then_not() -> None:
        await request(context(), site.url())
        with pytest.raises(AddressRefused):
            await request(context(()), site.url())

    asyncio.run(first_allowed_then_not())


def test_a_loop_that_was_closed_without_care_is_forgotten_by_the_next() -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(AddressRefused):
        loop.run_until_complete(request(context(), "http://10.0.0.1/"))
    loop.close()
    assert [key[0] for key in connections._pools] == [loop]
    with pytest.raises(AddressRefused):
        call("http://10.0.0.1/")
    assert connections._pools == {}


def test_a_server_that_hung_up_an_idle_connection_is_called_anew(site: Site) -> None:
    @site.page("/once")
    def once(visit: Visit) -> None:
        visit.reply(b"ok")
        visit.close_connection = True  # without saying so

    async def twice() -> None:
        await request(context(), site.url("/once"))
        await asyncio.to_thread(wait_until, lambda: open_visits() == 0, "the server has hung up")
        await request(context(), site.url("/once"))

    asyncio.run(twice())
    assert len({came.client for came in site.received}) == 2


def test_httpx_is_not_loaded_before_the_first_request() -> None:
    code = (
        "import sys; from orchestration.registry import load_actions; load_actions(())\n"
        "assert 'parallelizer.actions.http' in sys.modules; sys.exit(bool({'httpx', 'httpcore'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
