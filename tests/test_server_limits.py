"""What one visitor can cost the others: messages, trajectories and uploads made by hand, as no page sends them.

Nothing here is derived from the server's own checks: sizes are written out, and what is compared is what arrives.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from server_fixtures import Server, Told, memory_of, start_message, visit, wait_for, walk_message
from torch import Tensor
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

import pointdiffusion as ptd
from pointdiffusion.config import unknown_name
from pointdiffusion.networks import default_network
from pointdiffusion.web import server as web_server
from pointdiffusion.web import serving
from pointdiffusion.web.guard import Served
from pointdiffusion.web.protocol import parse
from pointdiffusion.web.server import make_app
from pointdiffusion.web.turns import Machine, Portions, Turns, UnwantedError, Walker
from pointdiffusion.web.walks import walk_of


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


# ----------------------------------------------------------------------------------------------------------- messages

LISTS = '{"type":"pause","x":[' + "[]," * 50_000 + "[]]}"
VALUES = '{"type":"pause","x":[' + "1," * 300_000 + "1]}"
DEEP = '{"type":"pause","x":' + "[" * 50_000 + "]" * 50_000 + "}"


@pytest.mark.parametrize("text", [LISTS, VALUES, DEEP], ids=["lists", "values", "deep"])
def test_what_a_message_would_be_made_into_is_counted_first(text: str) -> None:
    """Of 150 kB of lists nothing is made that the garbage collector has to look through."""
    gc.collect()
    before = len(gc.get_objects())
    with pytest.raises(ValueError, match="more lists or values than any message needs") as caught:
        parse(text)
    assert caught.value.__cause__ is None  # refused before it was parsed
    assert len(gc.get_objects()) - before < 1000


def test_the_largest_start_is_still_read() -> None:
    """200,000 labels, and names of columns that are nothing but brackets and commas."""
    columns = [("[{," * 67)[:190] + str(k) for k in range(64)]
    message = {"type": "start", "data": {"labels": [1] * 200_000, "columns": columns}}
    assert parse(json.dumps(message)) == message


@pytest.mark.parametrize("text", [LISTS, VALUES, '{"type":"pause","x":"' + "a" * 70_000 + '"}'])
def test_a_large_message_that_needs_not_be_is_answered(server: Server, text: str) -> None:
    async def talk(told: Told) -> str:
        await told.say(text)
        found = str((await told.until("error"))["message"])
        await told.say({"type": "stop"})
        await told.until("error")
        return found

    assert re.search("than any message needs|has at most 65,536 characters", visit(server, talk))


def test_messages_are_not_packed(server: Server) -> None:
    """20 MB of one letter are 20 kB when packed: whoever sends them must pay for them."""

    async def extensions() -> list[str]:
        async with connect(f"ws://127.0.0.1:{server.port}/ws", compression="deflate") as connection:
            assert connection.response is not None
            return connection.response.headers.get_all("Sec-WebSocket-Extensions")

    assert asyncio.run(extensions()) == []


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (start_message(settings={"z" * 1_000_000: 1}), "unknown setting of training"),
        (start_message(settings={"weighting": "z" * 1_000_000}), "unknown weighting"),
        (start_message(data={"columns": ["a", "\ud800"]}), "lone surrogate"),
        ('{"type":"pause","id":NaN}', "not JSON"),
    ],
    ids=["a long name", "a long choice", "half a letter", "no JSON"],
)  # fmt: skip
def test_a_refusal_is_short_and_comes_before_any_work(server: Server, message: Any, sentence: str) -> None:
    async def talk(told: Told) -> str:
        await told.say(message)
        found = str((await told.until("error"))["message"])
        assert not told.frames
        return found

    found = visit(server, talk)
    assert sentence in found
    assert len(found) < 1000


def test_long_names_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look for the nearest takes time and memory by the square of the length."""
    monkeypatch.setattr("pointdiffusion.config.difflib", None)
    assert str(unknown_name("solver", "z" * 10**6, ["heun"])) == f"unknown solver '{'z' * 60}...' (known: heun)"


@pytest.mark.parametrize("number", ["1e999", "-1", "1.5", '"5"', "[1,2]", "true", "null", "4294967296", "9" * 4000])
def test_what_is_no_number_of_a_walk_is_not_repeated(server: Server, number: str) -> None:
    """The answer is JSON by the letter, whatever came in place of the number."""
    text = re.sub(r'"id": 5', f'"id": {number}', json.dumps(walk_message()))

    def strict(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    async def talk(told: Told) -> Any:
        await told.say(text)
        return json.loads(str(await told.connection.recv()), parse_constant=strict)

    found = visit(server, talk)
    assert found["type"] == "refused"
    assert found["id"] is None


# --------------------------------------------------------------------------------------------------------- trajectories


@pytest.mark.parametrize("sigmas", [[1.0, 1e-300], [9e299, 1.0], [1e7, 1.0], [1.0, 1e-7, 0.0]])
@pytest.mark.parametrize("solver", ["sde-dpmpp-2m", "midpoint"])
def test_noise_levels_beyond_single_precision_are_refused(server: Server, solver: str, sigmas: list[float]) -> None:
    async def talk(told: Told) -> str:
        await told.say(walk_message(solver, sigmas=sigmas))
        return str((await told.until("refused"))["message"])

    assert visit(server, talk) == "noise levels must lie between 1e-06 and 1e+06; the last may be 0"


def test_whatever_goes_wrong_is_answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An error that nobody thought of is a sentence for the page, and no traceback for the terminal."""

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("of some kind")

    monkeypatch.setattr("pointdiffusion.web.turns.walk", fail)
    monkeypatch.setattr(web_server, "start_of", fail)

    async def talk(port: int) -> list[str]:
        async with connect(f"ws://127.0.0.1:{port}/ws") as connection:
            told = Told(connection)
            await told.say(walk_message(network="given"))
            refused = await told.until("refused")
            await told.say(start_message())
            return [refused["message"], (await told.until("error"))["message"]]

    for sentence in run_here(talk, model=small_model()):
        assert "ZeroDivisionError" in sentence
    assert "Traceback" not in capsys.readouterr().err


def small_model() -> ptd.DiffusionModel:
    return ptd.fit(ptd.DATASETS["moons"](60, random_state=0), ptd.TrainingConfig(epochs=1), seed=0)


def wide_model() -> ptd.DiffusionModel:
    """Return a model with the largest network that the page can ask for, not trained."""
    network = ptd.KarrasDenoiser(default_network(2, 512, 8))
    return ptd.DiffusionModel(network, ptd.Standardiser(np.zeros(2), np.ones(2)), torch.eye(2), ["x", "y"])


def run_here(talk: Callable[[int], Any], **served: Any) -> Any:
    """Serve in this process while `talk(port)` goes on, and return what that returns."""

    async def whole() -> Any:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
            app = make_app(Served(**{"hosts": frozenset({f"127.0.0.1:{port}"}), **served}))
            running = serving.server_of(app)
            task = asyncio.create_task(running._serve([listening]))
            try:
                while not running.started:
                    await asyncio.sleep(0.01)
                return await asyncio.wait_for(talk(port), 120)
            finally:
                running.should_exit = True
                await task

    return asyncio.run(whole())


def test_a_network_is_asked_about_some_rows_at_a_time() -> None:
    """The same points as all at once, in calls of bounded size, with one noise level for all rows or for each."""
    model = small_model()
    sizes = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        sizes.append(len(x))
        return model.denoiser(x, sigma)

    x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    portions = Portions(denoiser, 300, Turns(), lambda: True)
    for sigma in (torch.tensor(0.5), torch.linspace(0.1, 2, 1000)):
        torch.testing.assert_close(portions(x, sigma), model.denoiser(x, sigma), rtol=0, atol=1e-6)
    assert sizes == [300, 300, 300, 100] * 2


def test_a_trajectory_ends_within_a_step_when_nobody_waits() -> None:
    calls = []

    def denoiser(x: Tensor, _: Tensor) -> Tensor:
        calls.append(len(x))
        return x

    portions = Portions(denoiser, 10, Turns(), lambda: len(calls) < 3)
    with pytest.raises(UnwantedError):
        portions(torch.zeros(1000, 2), torch.tensor(1.0))
    assert calls == [10, 10, 10]


def test_turns_are_had_in_the_order_of_asking() -> None:
    """So that a small trajectory waits for one call of each large one, not for their ends."""
    turns, order = Turns(), list[int]()

    def ask(number: int) -> None:
        with turns:
            order.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    with turns:
        for number, thread in enumerate(threads):
            thread.start()
            wait_for(lambda number=number: turns._next == number + 2)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_a_small_trajectory_overtakes_large_ones_and_memory_is_bounded() -> None:
    """Three visitors ask the widest network about 200,000 points: at once, each call would take 2 GB and a minute."""
    wide = wide_model()
    x = base64.b64encode(np.zeros((200_000, 2), dtype="<f4").tobytes()).decode()
    large = walk_message("euler", x=x, sigmas=[10.0, 5.0, 2.0, 1.0, 0.5, 0.2], network="given")
    small = walk_message("euler", sigmas=[10.0, 1.0, 0.0], network="given")

    async def talk(port: int) -> int:
        async with contextlib.AsyncExitStack() as stack:
            addresses = [f"ws://127.0.0.1:{port}/ws"] * 4
            *many, last = [Told(await stack.enter_async_context(connect(address))) for address in addresses]
            before = memory_of(os.getpid())
            for told in many:
                await told.say(large)
            await last.say(small)
            while not last.models:
                await last.hear()
            grown = memory_of(os.getpid()) - before
            for told in many:
                with pytest.raises(TimeoutError):  # not yet answered
                    await asyncio.wait_for(told.connection.recv(), 0.01)
        return grown

    assert run_here(talk, model=wide) < 400 * 2**20


def test_a_trajectory_ends_when_its_visitor_leaves() -> None:
    """After some calls of the network for some rows of it, of thousands."""
    wide = wide_model()
    message = walk_message("euler", network="given", sigmas=[10.0, 5.0, 2.0, 1.0, 0.5])
    x = base64.b64encode(np.zeros((200_000, 2), dtype="<f4").tobytes()).decode()
    answers: list[Any] = []

    async def talk() -> int:
        machine = Machine()
        walker = Walker(machine, lambda _: wide, lambda *answer: answers.append(answer))
        walker.ask(walk_of({**message, "x": x}))
        while machine.turns._now < 2:
            await asyncio.sleep(0.01)
        await walker.leave()
        machine.close()
        return machine.turns._now

    assert asyncio.run(talk()) < 500
    assert answers == []


# -------------------------------------------------------------------------------------------------------------- uploads


def upload(body: bytes, length: int | None = None) -> bytes:
    """Return a request that hands in a table, or begins to."""
    head = f"POST /api/table?kind=csv HTTP/1.1\r\nHost: HOST\r\nContent-Length: {length or len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


async def answered(port: int, request: bytes) -> tuple[int, Any]:
    """Send a request, and return the status and the content of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.replace(b"HOST", b"127.0.0.1:%d" % port))
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def standing_still(port: int, count: int) -> AsyncIterator[list[asyncio.Task[tuple[int, Any]]]]:
    """Begin uploads that never end."""
    begun = upload(b"a,b\n1,2\n", 1000)
    tasks = [asyncio.create_task(answered(port, begun)) for _ in range(count)]
    await asyncio.sleep(0.2)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_uploads_that_stand_still_hold_nobody_up() -> None:
    """An honest one is answered while eight of them still wait."""

    async def talk(port: int) -> None:
        async with standing_still(port, 8) as tasks:
            status, found = await answered(port, upload(b"a,b\n1,2\n"))
            assert (status, found["values"]) == (200, [[1, 2]])
            assert not any(task.done() for task in tasks)

    run_here(talk)


def test_an_upload_that_stands_still_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "LONGEST_PAUSE", 0.3)

    async def talk(port: int) -> None:
        async with standing_still(port, 1) as tasks:
            status, found = await tasks[0]
            assert status == 408
            assert "stood still" in found["detail"]

    run_here(talk)


def test_all_uploads_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived counts, and counts no more once it is answered or broken off."""
    monkeypatch.setitem(web_server.LIMITS, "uploads_bytes", 20)

    async def talk(port: int) -> None:
        body = b"a,b\n1,2\n3,4\n5,6\n"
        async with standing_still(port, 1):
            status, found = await answered(port, upload(body))
            assert status == 503
            assert "try again" in found["detail"]
        for _ in range(3):
            while (await answered(port, upload(body)))[0] == 503:
                await asyncio.sleep(0.05)

    run_here(talk)


def test_an_upload_that_is_broken_off_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    async def talk(port: int) -> None:
        async with standing_still(port, 3):
            pass
        assert (await answered(port, upload(b"a\n1\n")))[0] == 200

    run_here(talk)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_connection_that_asks_for_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does half a request keep it open; a page that is open and silent stays."""
    monkeypatch.setattr(serving, "SILENCE", 0.3)

    async def talk(port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/ws") as page:
            for begun in (b"", b"GET / HTTP/1.1\r\nHo"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(begun)
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
            await page.send('{"type":"stop"}')
            assert "nothing is being trained" in str(await page.recv())

    run_here(talk)


# ------------------------------------------------------------------------------------------------- refused, with a word


def test_who_is_refused_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser shows nothing of a handshake that fails, and the code and the reason of a connection that is closed."""
    monkeypatch.setitem(web_server.LIMITS, "connections", 1)

    async def reason(port: int, **settings: Any) -> tuple[int, str]:
        async with connect(f"ws://127.0.0.1:{port}/ws", **settings) as connection:
            with pytest.raises(ConnectionClosedError) as caught:
                await connection.recv()
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code, caught.value.rcvd.reason

    async def talk(port: int) -> None:
        assert await reason(port, origin="http://evil.example") == (1008, "requests of other pages are not answered")
        async with connect(f"ws://127.0.0.1:{port}/ws"):
            code, sentence = await reason(port)
            assert code == 1013
            assert "too many pages are open" in sentence

    run_here(talk)


@pytest.mark.parametrize(
    ("served", "word"), [({"token": "secret"}, "token"), ({"hosts": frozenset({"another:1"})}, "address")]
)
def test_who_came_by_another_way_is_told_the_right_one(served: dict[str, Any], word: str) -> None:
    async def talk(port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/ws") as connection:
            with pytest.raises(ConnectionClosedError, match=rf"1008.*{word}"):
                await connection.recv()

    run_here(talk, **served)
