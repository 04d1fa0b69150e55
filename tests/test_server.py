"""The server of the playground: what it answers, what it refuses, and that nothing is left running."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import io
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import schemathesis
import torch
import websockets
from server_fixtures import (
    Server,
    Told,
    in_one_thread,
    points_of,
    start_message,
    step_of,
    visit,
    walk_message,
)

import pointdiffusion as ptd
from pointdiffusion.cli.app import main
from pointdiffusion.web.guard import Guard, Served
from pointdiffusion.web.limits import LIMITS, checked_training, training_settings
from pointdiffusion.web.protocol import MODEL
from pointdiffusion.web.registry import registry
from pointdiffusion.web.server import make_app
from pointdiffusion.web.sessions import Outbox
from pointdiffusion.web.trainer import model_bytes
from pointdiffusion.web.walks import HEAD, WALK, page_normals


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


# ------------------------------------------------------------------------------------------------------------ answers


def test_the_page_is_served_with_a_policy(server: Server) -> None:
    """It may talk to its own server and to nobody else, and no page of others may hold it in a frame."""
    status, body, headers = server.ask()
    policy = headers["content-security-policy"]
    assert status == 200
    assert "connect-src 'self'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe" not in policy
    assert b"connect-src 'none'" not in body
    assert headers["x-content-type-options"] == "nosniff"
    block = body.partition(b'id="server">')[2].partition(b"</script>")[0]
    known = json.loads(block)
    assert known["token"] is None
    assert known["limits"]["sessions"] == 8


def test_the_registry_is_that_of_the_library(server: Server) -> None:
    status, body, _ = server.ask("/api/registry")
    assert status == 200
    assert json.loads(body) == json.loads(json.dumps(registry()))


def test_defaults_and_help_of_training_are_those_of_the_library() -> None:
    """What the page shows is what `TrainingConfig` has; every default passes the check of its range."""
    shown = training_settings()
    config = ptd.TrainingConfig().to_mapping()
    assert {name: entry["value"] for name, entry in shown.items() if name in config} == {
        name: config[name] for name in shown if name in config
    }
    assert all(len(entry["help"]) > 8 for entry in shown.values())
    training = checked_training({name: entry["value"] for name, entry in shown.items()})
    assert training.steps == shown["steps"]["value"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "npy", "npz", "csv.gz"])
def test_a_table_is_read_in_every_format(server: Server, kind: str) -> None:
    frame = pd.DataFrame({"a": [1.5, 2, 3], "b": [4, np.nan, 6]})
    buffer = io.BytesIO()
    match kind:
        case "parquet":
            frame.to_parquet(buffer)
        case "npy":
            np.save(buffer, frame.to_numpy())
        case "npz":
            np.savez(buffer, a=frame["a"], b=frame["b"])
        case _:
            frame.to_csv(
                buffer, index=False, sep="\t" if kind == "tsv" else ",", compression="gzip" if "gz" in kind else None
            )
    status, body, _ = server.ask(f"/api/table?kind={kind}", "POST", buffer.getvalue())
    found = json.loads(body)
    assert status == 200
    assert found["values"] == [[1.5, 4], [2, None], [3, 6]]
    assert found["rows"] == 3
    assert found["columns"] == (["x1", "x2"] if kind == "npy" else ["a", "b"])


def test_a_packed_table_is_known_by_its_bytes(server: Server) -> None:
    status, body, _ = server.ask("/api/table?kind=tsv", "POST", gzip.compress(b"a\tb\n1\t2\n"))
    assert (status, json.loads(body)["values"]) == (200, [[1, 2]])


def test_texts_and_decimal_commas_are_read(server: Server) -> None:
    body = b"name;height\n<b>Ann</b>;1,5\n;2\n"
    assert json.loads(server.ask("/api/table?kind=csv", "POST", body)[1])["values"] == [["<b>Ann</b>", 1.5], [None, 2]]


def test_of_many_rows_some_are_shown(server: Server) -> None:
    """Evenly chosen, and all are counted."""
    body = b"a,b\n" + b"".join(b"%d,1\n" % k for k in range(30_000))
    found = json.loads(server.ask("/api/table?kind=csv", "POST", body)[1])
    first = np.array([row[0] for row in found["values"]])
    assert found["rows"] == 30_000
    assert 2500 < len(first) <= LIMITS["preview_rows"]
    assert np.diff(first).max() < 3 * np.diff(first).min()
    assert first[0] == 0
    assert first[-1] > 29_900


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/api/table?kind=xls", b"", 422, "kind must be one of"),
        ("/api/table?kind=csv", b"", 422, "table.csv"),
        ("/api/table?kind=parquet", b"PAR1 and then nothing", 422, "table.parquet is damaged"),
        ("/api/table?kind=npy", b"\x93NUMPY", 422, "table.npy is damaged"),
        ("/api/table?kind=csv", b"a\n" + b"1\n" * 200_001, 413, "more than 200,000 rows"),
        ("/api/table?kind=csv", b",".join(b"c%d" % k for k in range(65)) + b"\n" + b",".join([b"1"] * 65), 413, "65"),
        ("/api/table?kind=csv", b"a,b\n" + b"1,2\n" * 6_000_000, 413, "20 MB"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_a_sentence(
    server: Server, path: str, body: bytes, status: int, sentence: str
) -> None:
    """The right status code, a sentence, no path of the machine, and the server goes on."""
    found, detail = server.sentence(path, "POST", body)
    assert found == status
    assert sentence in detail
    assert "/tmp" not in detail  # noqa: S108
    assert server.ask()[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "127.0.0.1:{port}@evil.example",
     "", "127.0.0.1:{port},x", "0.0.0.0:{port}", "[::]:{port}", "x" * 5000],
)  # fmt: skip
def test_another_host_is_not_answered(server: Server, host: str) -> None:
    """What DNS rebinding would send."""
    status, _, _ = server.ask(Host=host.format(port=server.port))
    assert status == 400


def test_two_hosts_are_not_answered(server: Server) -> None:
    own = f"127.0.0.1:{server.port}"
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        raw.sendall(f"GET / HTTP/1.1\r\nHost: {own}\r\nHost: evil.example\r\n\r\n".encode())
        assert b" 400 " in raw.recv(100)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
def test_another_origin_is_not_answered(server: Server, origin: str) -> None:
    origin = origin.format(port=server.port)
    assert server.sentence("/api/table?kind=csv", "POST", b"a\n1", Origin=origin) == (
        403, "requests of other pages are not answered",
    )  # fmt: skip

    async def knock() -> None:
        async with server.connect(origin=origin) as connection:
            await connection.recv()

    with pytest.raises(websockets.exceptions.ConnectionClosedError, match=r"1008.*requests of other pages"):
        asyncio.run(knock())


def test_its_own_origin_is_answered(server: Server) -> None:
    for name in ("127.0.0.1", "localhost"):
        own = f"{name}:{server.port}"
        assert server.ask("/api/registry", Host=own, Origin=f"http://{own}")[0] == 200


TRAVERSALS = [
    f"{start}{step * depth}{target}"
    for start in ("/", "/api/")
    for step in ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..\\", "..%5c", "%252e%252e%252f", "....//", "..;/",
                 "%c0%ae%c0%ae/")
    for depth, target in ((8, "etc/passwd"), (4, "proc/self/environ"), (3, "pyproject.toml"))
]  # fmt: skip


def test_no_route_takes_a_path(server: Server) -> None:
    """Sixty ways to ask for a file: none is answered."""
    assert len(TRAVERSALS) == 60
    for path in TRAVERSALS:
        status, body, _ = server.ask(path)
        assert status == 404, path
        assert b"root:" not in body
        assert server.ask(f"/api/table?kind={path}", "POST", b"a\n1")[0] == 422, path


def test_schemathesis_finds_nothing() -> None:
    """What the OpenAPI describes holds for 500 made-up requests a route, and nothing ends with 500 or above."""
    from hypothesis import HealthCheck, given, settings

    app = make_app(Served(frozenset({"testserver"})))
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers={"Host": "testserver"})
    routes = [operation.ok() for operation in schema.get_all_operations()]
    assert sorted((route.method.upper(), route.path) for route in routes) == [
        ("GET", "/"), ("GET", "/api/registry"), ("POST", "/api/table"),
    ]  # fmt: skip
    for route in routes:

        @given(case=route.as_strategy())
        @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def fuzz(case: Any) -> None:
            case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "host"}
            answer = case.call(headers={"Host": "testserver"})
            assert answer.status_code < 500, case

        fuzz()


def test_another_address_needs_the_token() -> None:
    """Without it, or with a wrong one, nothing is answered; the page hands it on."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(query: str) -> int:
        sent: list[dict[str, Any]] = []

        async def note(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "headers": [(b"host", b"there:1")], "query_string": query.encode()}
        guard = Guard(app, Served(frozenset({"there:1"}), "secret"))
        asyncio.run(guard(scope, None, note))  # type: ignore[arg-type]
        return int(sent[0]["status"])

    assert ask("token=secret") == 200
    assert [ask(query) for query in ("", "token=", "token=secre", "token=secret2", "token=secret&token=x")] == [401] * 5


def test_on_another_address_a_link_with_a_token_is_printed() -> None:
    server = Server("--host", "0.0.0.0")  # noqa: S104
    try:
        token = server.line.strip().rpartition("?token=")[2]
        assert len(token) >= 32
        assert server.ask()[0] == 401
        assert server.ask(Host="by.any.name:1")[0] == 401
        status, body, _ = server.ask(f"/?token={token}", Host="by.any.name:1")
        assert status == 200
        assert token.encode() in body
        assert server.ask(f"/api/registry?token={token}")[0] == 200
    finally:
        server.stop()


# ----------------------------------------------------------------------------------------------------------- training


def test_a_training_is_seen_from_start_to_end(server: Server) -> None:
    """Samples and losses on the way, the network and its file at the end, and it is what the library trains alone."""
    message = start_message(steps=60)

    async def talk(told: Told) -> bytes:
        await told.say(message)
        started = await told.until("started")
        assert started["steps"] == 60
        assert started["optimal_loss"] > 0
        await told.until("state", state="finished", step=60)
        await told.say({"type": "save"})
        found: bytes = (await told.until("model"))["bytes"]
        losses = [text for text in told.texts if text["type"] == "losses"]
        steps = [step for text in losses for step in text["steps"]]
        assert steps[0] == 0
        assert steps[-1] == 60
        assert steps == sorted(set(steps))
        assert told.frames
        drawn = points_of(told.frames[-1])
        assert step_of(told.frames[-1]) == 60
        assert drawn.shape == (50, 2)
        assert np.isfinite(drawn).all()
        run = next(text["run"] for text in told.texts if text["type"] == "run")
        assert run["network"]["dtype"] == "float32"
        assert run["rows"] == 60
        return found

    found = visit(server, talk)
    alone = model_bytes(in_one_thread(message))
    assert hashlib.sha256(found).hexdigest() == hashlib.sha256(alone).hexdigest()


def test_a_model_is_in_the_users_units(server: Server, tmp_path: Path) -> None:
    """The page's units are between; columns have their names."""
    data = {"mean": [100.0, -5.0], "scale": [10.0, 0.1], "columns": ["a", "b"]}

    async def talk(told: Told) -> bytes:
        await told.say(start_message(steps=20, data=data))
        await told.until("state", state="finished")
        await told.say({"type": "save"})
        found: bytes = (await told.until("model"))["bytes"]
        return found

    (tmp_path / "model.pt").write_bytes(visit(server, talk))
    model = ptd.load(tmp_path / "model.pt")
    assert model.columns == ["a", "b"]
    assert model.standardiser.mean.tolist() == [100.0, -5.0]
    assert abs(model.sample(500, seed=0)[:, 0].mean() - 100) < 10


def test_pause_step_resume_stop(server: Server) -> None:
    """Paused it stands still, a step is one step, and what was trained is kept when stopped."""

    async def talk(told: Told) -> None:
        await told.say(start_message(steps=100_000))
        await told.until("frame")
        await told.say({"type": "pause"})
        paused = (await told.until("state", state="paused"))["step"]
        assert (await told.until("run"))["step"] == paused
        await asyncio.sleep(0.5)
        await told.say({"type": "step"})
        assert (await told.until("state", state="paused"))["step"] == paused + 1
        await told.say({"type": "save"})
        assert len((await told.until("model"))["bytes"]) > 1000
        await told.say({"type": "resume"})
        await told.until("state", state="running")
        await told.until("frame")
        await told.say({"type": "stop"})
        stopped = (await told.until("state", state="stopped"))["step"]
        assert stopped > paused + 1
        await told.say({"type": "save"})
        assert len((await told.until("model"))["bytes"]) > 1000

    visit(server, talk)


ASKED: list[dict[str, Any]] = [
    {}, {"solver": "auto"}, {"solver": "sde-dpmpp-2m"}, {"label": 1}, {"label": 0, "guidance": 2.5},
    {"label": 0, "guidance": 0}, {"solver": "auto", "label": 0, "guidance": 2.5},
]  # fmt: skip


@pytest.fixture(scope="module")
def walked(server: Server) -> Told:
    """Train on two classes, keep the model, walk as in ASKED, and return all that was told; a process takes seconds."""

    async def talk(told: Told) -> Told:
        await told.say(start_message(steps=20, data={"labels": [0, 1] * 30}))
        await told.until("state", state="finished")
        await told.say({"type": "save"})
        await told.until("model")
        for number, asked in enumerate(ASKED, start=1):
            await told.say(walk_message(**asked))
            while len(walks_of(told)) < number:
                await told.hear()
        return told

    found: Told = visit(server, talk)
    return found


def walks_of(told: Told) -> list[bytes]:
    return [frame for frame in told.models if frame[0] == WALK]


@pytest.mark.parametrize("asked", ASKED)
def test_the_trained_network_walks_on_the_server(walked: Told, tmp_path: Path, asked: dict[str, Any]) -> None:
    """From the page's noise to the samples that the library draws of the model that is kept, stochastic ones too."""
    message, frame = walk_message(**asked), walks_of(walked)[ASKED.index(asked)]
    (tmp_path / "model.pt").write_bytes(next(kept[8:] for kept in walked.models if kept[0] == MODEL))
    model = ptd.load(tmp_path / "model.pt")
    kind, version, dims, number, count, levels, nfe, _ = HEAD.unpack_from(frame)
    assert (kind, version, dims, number, count, levels) == (WALK, 1, 2, 5, 40, 9)
    points = np.frombuffer(frame, "<f4", levels * count * dims, HEAD.size + 4 * levels).reshape(levels, count, dims)
    x = torch.from_numpy(np.frombuffer(base64.b64decode(message["x"]), "<f4").reshape(-1, 2).copy())
    denoiser: Any = model.denoiser
    if message["label"] >= 0 and message["guidance"] != 0:
        denoiser = ptd.bind(denoiser, labels=message["label"])
        denoiser = ptd.Guided(denoiser, model.denoiser, message["guidance"]) if message["guidance"] != 1 else denoiser
    settings: dict[str, Any] = {
        "sigmas": torch.tensor(message["sigmas"], dtype=torch.float64),
        "solver": message["solver"],
    }
    if message["solver"] == "auto":
        settings = {"nfe": 8, "sigma_max": 10.0, "sigma_min": model.inference.sigma_min}
    noise = lambda k, draws: page_normals(3, 1000 + k, draws * 80).reshape(draws, 40, 2)  # noqa: E731
    *_, last = ptd.trajectory(denoiser, x, noise=noise, **settings)
    assert nfe == last.nfe
    np.testing.assert_allclose(points[-1], last.x, atol=1e-4)
    np.testing.assert_array_equal(points[0], x)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "there is no network here"),
        ({"solver": "magic"}, "solver"),
        ({"solver": ["heun"]}, "solver"),
        ({"sigmas": [1, 2]}, "sigmas must decrease"),
        ({"sigmas": [2, -1]}, "sigmas must decrease"),
        ({"sigmas": "many"}, "noise levels"),
        ({"sigmas": [float(k) for k in range(2000, 0, -1)]}, "from 2 to 1001"),
        ({"guidance": None}, "guidance"),
        ({"x": "AAAA"}, "rows of 2 numbers"),
        ({"id": -1}, "id must be"),
        ({"panel": 7}, "panel must be"),
        ({"network": "given"}, "there is no network here"),
        ({"network": "any"}, "network must be one of"),
    ],
)  # fmt: skip
def test_a_walk_that_cannot_be_made_is_refused(server: Server, change: dict[str, Any], sentence: str) -> None:
    async def talk(told: Told) -> str:
        await told.say(walk_message(**change))
        return str((await told.until("refused"))["message"])

    assert sentence in visit(server, talk)


def test_classes_are_trained(walked: Told) -> None:
    run = next(text["run"] for text in walked.texts if text["type"] == "run")
    assert run["classes"] == ["0", "1"]
    assert run["network"]["spec"]["condition"]["num_classes"] == 2


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("{", "not JSON"),
        ("[1]", "must have a type"),
        ({"type": "launch"}, "must have a type"),
        ({"type": "pause"}, "nothing is being trained"),
        ({"type": "save"}, "nothing is being trained"),
        ({"type": "start"}, "dims must be a whole number from 1 to 64"),
        (start_message(data={"points": "AAAA"}), "rows of 2 numbers"),
        (start_message(data={"points": 7}), "rows of 2 numbers"),
        (start_message(data={"points": base64.b64encode(np.full(8, np.nan, "<f4").tobytes()).decode()}), "finite"),
        (start_message(count=1), "from 2 to 200,000 points"),
        (start_message(data={"labels": [0]}), "one class for each"),
        (start_message(data={"labels": ["<b>"] * 60}), "whole numbers from 0 to 99"),
        (start_message(data={"scale": [0, 1]}), "scale must be positive"),
        (start_message(data={"mean": [10**400, 0]}), "2 finite numbers"),
        (start_message(data={"columns": ["a", "a"]}), "names of their own"),
        (start_message(settings={"steps": 10**9}), "steps must be a whole number from 1 to 100000"),
        (start_message(settings={"batch_size": 1.5}), "batch_size must be a whole number"),
        (start_message(settings={"learning_rate": "fast"}), "learning_rate must be a number"),
        (start_message(settings={"weighting": "heavy"}), "weighting"),
        (start_message(settings={"optimiser": "sgd"}), "optimiser"),
        (start_message(settings={"sigma_min": 1, "sigma_max": 1}), "sigma_min must lie below sigma_max"),
        (start_message(seed=-1), "seed must be a whole number"),
        (start_message(live={"count": 10**6}), "count must be a whole number"),
    ],
)  # fmt: skip
def test_a_wrong_message_is_answered_with_a_sentence(server: Server, message: Any, sentence: str) -> None:
    """The connection stays, and no process is started for it."""

    async def talk(told: Told) -> str:
        await told.say(message)
        found: str = (await told.until("error"))["message"]
        await told.say({"type": "stop"})
        await told.until("error")
        return found

    assert sentence in visit(server, talk)


def test_bytes_are_no_message(server: Server) -> None:
    async def talk(told: Told) -> str:
        await told.connection.send(b"\0" * 1000)
        return str((await told.until("error"))["message"])

    assert visit(server, talk) == "messages are texts"


def test_too_many_messages_are_refused_and_then_cut_off(server: Server) -> None:
    """A sentence first; who goes on is cut off, and the server serves the others."""

    async def flood(told: Told) -> None:
        for _ in range(5000):
            await told.say({"type": "pause"})
        while True:
            await told.hear()

    async def talk(told: Told) -> None:
        for _ in range(2 * LIMITS["messages_a_second"]):
            await told.say({"type": "pause"})
        while "too many messages" not in (await told.until("error"))["message"]:
            pass
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await flood(told)

    visit(server, talk)
    assert server.ask()[0] == 200


def test_a_walk_too_many_is_refused_by_its_number(server: Server) -> None:
    """So that the page does not wait for it."""

    async def talk(told: Told) -> dict[str, Any]:
        for number in range(2 * LIMITS["messages_a_second"]):
            await told.say(walk_message(id=number))
        while True:
            found = await told.until("refused")
            if "too many messages" in found["message"]:
                return found

    assert visit(server, talk)["id"] >= LIMITS["messages_a_second"] - 1


def test_a_message_larger_than_allowed_ends_the_connection_alone(server: Server) -> None:
    async def flood(told: Told) -> None:
        await told.say("x" * (LIMITS["message_bytes"] + 1))
        await told.hear()

    async def talk(told: Told) -> None:
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await flood(told)

    visit(server, talk)
    assert server.ask()[0] == 200


def test_a_page_that_reads_nothing_costs_little_memory(server: Server) -> None:
    """Frames are dropped, not heaped up; neither do half-open connections cost much."""

    async def talk() -> int:
        async with server.connect() as one, server.connect() as two:
            for each in (one, two):
                await each.send(json.dumps(start_message(steps=100_000, live={"count": 5000, "nfe": 1, "seed": 0})))
                await each.recv()
            before = server.memory()
            for each in (one, two):
                each.transport.pause_reading()
            await asyncio.sleep(6)
            return server.memory() - before

    idle = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(50)]
    try:
        for each in idle:
            each.sendall(b"GET /ws HTTP/1.1\r\nHost: ")
        grown = asyncio.run(talk())
    finally:
        for each in idle:
            each.close()
    assert grown < 50 * 2**20


def test_what_waits_for_a_page_is_bounded() -> None:
    """Of frames and states the latest, of losses a thinned list."""

    async def fill() -> list[str | bytes]:
        box = Outbox()
        for step in range(50_000):
            box.put("frame", b"%d" % step)
            box.add_losses([step], [0.5])
        return await box.take()

    frame, losses = asyncio.run(fill())
    assert frame == b"49999"
    steps = json.loads(losses)["steps"]
    assert len(steps) <= 20_001
    assert steps == sorted(steps)


# --------------------------------------------------------------------------------------------------- the command line


def test_a_port_that_is_taken_is_told(server: Server) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "pointdiffusion", "play", "--no-browser", "--port", str(server.port)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 2
    assert "give another --port" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--data", "words.csv"], "words.csv"),
        (["--model", "nowhere/model.pt"], "nowhere"),
        (["--host", "no.such.address.invalid"], "no.such.address.invalid cannot be served on"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_told(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "words.csv").write_bytes(b"PAR1")
    monkeypatch.chdir(tmp_path)
    assert main(["play", "--no-browser", *arguments]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""


def test_without_the_server_installed_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "pointdiffusion.web.serving", raising=False)  # loaded by an earlier test
    assert main(["play", "--no-browser"]) == 2
    assert 'pip install "pointdiffusion[playground]"' in capsys.readouterr().err


def test_a_table_and_a_model_can_be_there_at_the_start(tmp_path: Path) -> None:
    points = ptd.DATASETS["moons"](100, random_state=0)
    pd.DataFrame(points, columns=["<i>a</i>", "b"]).to_csv(tmp_path / "moons.csv", index=False)
    model = ptd.fit(points, ptd.TrainingConfig(epochs=1), seed=0)
    model.save(tmp_path / "model.pt")
    server = Server("--data", str(tmp_path / "moons.csv"), "--model", str(tmp_path / "model.pt"))

    async def talk(told: Told) -> bytes:
        """The model that it began with walks; of one that was never trained here nobody is given another's points."""
        await told.say(walk_message(network="trained"))
        await told.until("refused")
        await told.say(walk_message(network="given"))
        while not told.models:
            await told.hear()
        return told.models[0]

    try:
        body, frame = server.ask()[1].decode(), visit(server, talk)
    finally:
        server.stop()
    sigmas = torch.tensor(walk_message()["sigmas"], dtype=torch.float64)
    x = torch.from_numpy(np.frombuffer(base64.b64decode(walk_message()["x"]), "<f4").reshape(-1, 2).copy())
    end = np.frombuffer(frame, "<f4", 80, len(frame) - 4 * 80).reshape(40, 2)
    np.testing.assert_allclose(end, ptd.sample(model.denoiser, x, sigmas, solver="heun"), atol=1e-4)
    known = json.loads(body.partition('id="server">')[2].partition("</script>")[0])
    run = json.loads(body.partition('id="run">')[2].partition("</script>")[0])["run"]
    assert known["table"]["columns"] == ["<i>a</i>", "b"]
    assert np.allclose(known["table"]["values"], points)
    assert run["network"] is not None
    assert run["recorded"]["shape"][1:] == [2000, 2]
    assert "<i>a</i>" not in body
