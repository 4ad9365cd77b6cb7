# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a key may do, asked of the real nginx with the role's own configuration, before an engine that echoes."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.image import usage
from ansible_collections.gpunode.llm.plugins.module_utils.tls import certificate
from ansible_collections.gpunode.llm.tests.unit.roles.gateway.test_gateway_templates import render

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
MODULE = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
SCRIPTED = pytest.mark.skipif(not MODULE.exists(), reason="libnginx-mod-http-lua is not here")
pytestmark = pytest.mark.skipif(not NGINX, reason="nginx is not here")

ADA, GRACE, ALAN = (f"sk-{name}-" + letter * 32 for name, letter in (("ada", "a"), ("grace", "B"), ("alan", "c")))
CHAT = "/v1/chat/completions"
BOTH = [{"name": "8b", "model": "llama-8b"}, {"name": "70b", "served_model_name": "org/Llama-70B"}]


class Engine(http.server.BaseHTTPRequestHandler):
    """Says what it was asked, and has two models."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: Any) -> None:
        pass

    def do_GET(self) -> None:
        models = [{"id": name, "object": "model"} for name in ("org/Llama-8B", "org/Llama-70B")]
        self.say({"object": "list", "data": models})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.say({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body.decode()})

    def say(self, value: Any) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    json: Any

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json["error"]["code"]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Gateway:
    """nginx as the role configures it, on a free port."""

    def __init__(self, folder: Path, engine: int, **settings: Any) -> None:
        self.folder, self.engine, self.port = folder, engine, free_port()
        self.settings = settings
        self.pem, self.key = folder / "pem", folder / "key"
        words = certificate.self_signed(str(self.pem), str(self.key), ["localhost"], 2)
        subprocess.run(words, check=True, capture_output=True)
        self.write()
        line = [str(NGINX), "-p", f"{folder}/", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(line, stdout=self.log, stderr=subprocess.STDOUT)

    def write(self, **settings: Any) -> None:
        self.settings |= settings
        given = {
            "gateway_instances": [{"name": "8b"}],
            "gateway_port": self.port,
            "gateway_host": "127.0.0.1",
            "gateway_certificate": str(self.pem),
            "gateway_certificate_key": str(self.key),
            **self.settings,
        }
        given["gateway_instances"] = [{"port": self.engine, **one} for one in given["gateway_instances"]]
        for name in ("nginx.conf", "keys.conf"):
            text = render(f"{name}.j2", **given).replace("syslog:server=unix:/dev/log,tag=gateway,nohostname", "log")
            text = text.replace("/run/gpunode-usage/over", str(self.folder))
            for place in ("/etc/gpunode/router/", "/run/gpunode-usage/"):
                text = text.replace(place, f"{self.folder}/")
            (self.folder / name).write_text(text)

    def reload(self, **settings: Any) -> None:
        self.write(**settings)
        line = [str(NGINX), "-p", f"{self.folder}/", "-c", str(self.folder / "nginx.conf"), "-s", "reload"]
        subprocess.run(line, check=True, capture_output=True)

    def ask(self, path: str = CHAT, key: str = ADA, body: Any = None, method: str = "", **headers: str) -> Answer:
        tls = ssl.create_default_context(cafile=str(self.pem))
        connection = http.client.HTTPSConnection("localhost", self.port, context=tls, timeout=20)
        try:
            given = {"Authorization": f"Bearer {key}"} if key else {}
            data = body if isinstance(body, bytes) else json.dumps(body or {"model": "org/Llama-8B"}).encode()
            verb = method or ("GET" if path.endswith("/models") else "POST")
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(verb, path, data if verb == "POST" else None, {**given, **named})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read()))
        finally:
            connection.close()

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()


@pytest.fixture
def gateway(tmp_path: Path, engine: int) -> Iterator[Callable[..., Gateway]]:
    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:3]:
        above.chmod(0o755)
    made: list[Gateway] = []

    def begin(keys: Any, **settings: Any) -> Gateway:
        one = Gateway(tmp_path, engine, gateway_keys=keys, **settings)
        made.append(one)
        until(lambda: (tmp_path / "nginx.pid").exists() or one.process.poll() is not None)
        assert one.process.poll() is None, (tmp_path / "log").read_text()
        return one

    yield begin
    for one in made:
        one.end()
        said = (tmp_path / "log").read_text()
        assert not [line for line in said.splitlines() if "[error]" in line or "[alert]" in line], said


def until(true: Callable[[], bool]) -> None:
    for _each in range(200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(true)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


PLAIN = {"ada": ADA, "grace": GRACE}
OBJECTS = {"ada": {"sha256": digest(ADA), "note": "hers"}, "grace": GRACE}
GRADES = [PLAIN, pytest.param(OBJECTS, marks=SCRIPTED)]


@pytest.mark.parametrize("keys", GRADES)
def test_a_key_is_its_own_text_and_no_other(gateway, keys):
    front = gateway(keys, gateway_engine_key="sk-engine")
    for key in (ADA, GRACE):
        told = front.ask(key=key)
        assert told.status == 200
        assert told.json["headers"]["authorization"] == "Bearer sk-engine"
        assert front.ask(key="", x_api_key=key).status == 200
        assert front.ask(key="", authorization=f"bearer {key}").status == 200
        assert "x-api-key" not in front.ask(key="", x_api_key=key).json["headers"]
    for bad in ("", ADA[:-1], ADA + "x", GRACE.lower(), f"{ADA} {ADA}", "ada", f"ada {ADA}", digest(ADA)):
        assert front.ask(key=bad).error == (401, "invalid_api_key"), bad
        assert front.ask(key="", x_api_key=bad).error == (401, "invalid_api_key"), bad
    assert " grace POST " in (front.folder / "log").read_text()


@SCRIPTED
def test_a_key_ends_with_its_last_day(gateway):
    today = datetime.datetime.now(datetime.timezone.utc).date()
    yesterday = today - datetime.timedelta(days=1)
    keys = {"ada": {"key": ADA, "expires": str(yesterday)}, "grace": {"key": GRACE, "expires": today}}
    front = gateway(keys)
    refused = front.ask()
    assert refused.error == (401, "expired_api_key")
    assert refused.json["error"]["message"] == f"This key was valid until {yesterday}, and is no more."
    assert refused.headers["content-type"] == "application/json"
    assert front.ask(key=GRACE).status == 200


@SCRIPTED
def test_a_key_opens_its_models_by_any_of_their_names(gateway):
    keys = {"ada": {"key": ADA, "models": ["org/Llama-70B"]}, "grace": {"key": GRACE, "models": ["llama-8b"]}}
    front = gateway(keys, gateway_instances=BOTH, gateway_default_instance="8b")
    assert [front.ask(f"/70b{CHAT}", key).status for key in (ADA, GRACE)] == [200, 403]
    assert [front.ask(f"/8b{CHAT}", key).status for key in (ADA, GRACE)] == [403, 200]
    refused = front.ask()
    assert refused.error == (403, "model_not_allowed")
    assert refused.json["type"] == "error"
    assert refused.json["error"]["message"] == "This key may not use the model 8b. It may use org/Llama-70B."
    assert front.ask("/70b/v1/models").status == 200
    assert front.ask("/8b/v1/models").error == (403, "model_not_allowed")


ROUTED = {"first": "127.0.0.1:{0}", "second": "127.0.0.1:{0}"}


@pytest.fixture
def routed(gateway, engine):
    """A gateway before a router, whose other name for a model is in a file of its own."""

    def begin(keys, **more):
        router = {name: address.format(engine) for name, address in ROUTED.items()}
        front = gateway(keys, gateway_router=router, gateway_instances=[], **more)
        (front.folder / "aliases.json").write_text(json.dumps({"8b": "org/Llama-8B"}))
        return front

    return begin


@SCRIPTED
def test_behind_a_router_the_model_is_the_one_of_the_request(routed):
    front = routed({"ada": {"key": ADA, "models": ["8b"]}, "grace": GRACE})
    for name, status in (("org/Llama-8B", 200), ("8b", 200), ("org/Llama-70B", 403), ("8B", 403)):
        assert front.ask(body={"messages": [{"model": "x", "content": '"model": "y"'}], "model": name}).status == status
        assert front.ask(key=GRACE, body={"model": name}).status == 200
    large = {"prompt": "x" * (2 << 20), "model": "8b"}
    assert json.loads(front.ask(body=large).json["body"]) == large


def asked_for(answer):
    return json.loads(answer.json["body"])["model"]


@SCRIPTED
def test_a_name_stands_for_a_model_and_the_rest_of_the_request_stays(gateway):
    front = gateway(PLAIN, gateway_aliases={"gpt-4o": "8b"})
    body = {"messages": [{"content": '"model": "gpt-4o" é'}], "model": "gpt-4o", "stop": []}
    assert json.loads(front.ask(body=body).json["body"]) == {**body, "model": "8b"}
    assert asked_for(front.ask(body={"model": "gpt-4"})) == "gpt-4"
    assert front.ask("/v1/models").status == 200
    large = {"prompt": "x" * (2 << 20), "model": "gpt-4o"}
    assert asked_for(front.ask(body=large)) == "8b"


@SCRIPTED
def test_a_name_stands_for_two_models_by_their_weights(routed):
    keys = {"ada": {"key": ADA, "models": ["org/Llama-8B"]}, "grace": GRACE}
    front = routed(keys, gateway_aliases={"chat": {"8b": 3, "70b": 1}, "small": "8b"})
    seen = [asked_for(front.ask(key=GRACE, body={"model": "chat"})) for _each in range(200)]
    assert set(seen) == {"8b", "70b"}
    assert 110 < seen.count("8b") < 185
    assert asked_for(front.ask(body={"model": "small"})) == "8b"
    assert front.ask(body={"model": "org/Llama-70B"}).error == (403, "model_not_allowed")


SMUGGLED = [
    b"{}",
    b"",
    b"[]",
    b'{"model": null}',
    b'{"model": ["8b"]}',
    b'{"model": "8b", "model": "org/Llama-70B"}',
    b'{"model": "8b", "mod\\u0065l": "org/Llama-70B"}',
    b'{"a": {"model": "8b"}}',
    b'{"model": "8\\u0062"}',
    b'{"model": "8b',
    '{"model": "8b"}'.encode("utf-16"),
    '{"model": "8b"}'.encode("utf-16-le"),
]


@SCRIPTED
@pytest.mark.parametrize("body", SMUGGLED)
def test_no_other_model_comes_through_in_another_form(routed, body):
    front = routed({"ada": {"key": ADA, "models": ["8b"]}})
    assert front.ask(body=body or b" ").error == (400, "model_required")


@SCRIPTED
def test_a_key_sees_the_models_that_it_may_use(routed):
    front = routed({"ada": {"key": ADA, "models": ["8b"]}, "grace": GRACE})
    assert [model["id"] for model in front.ask("/v1/models").json["data"]] == ["org/Llama-8B"]
    assert len(front.ask("/v1/models", key=GRACE).json["data"]) == 2
    assert front.ask("/v1/models", key="").status == 401
    assert front.ask("/router/models").error == (404, "not_found")


@SCRIPTED
def test_a_key_without_tokens_is_told_when_there_are_new_ones(gateway):
    front = gateway({"ada": {"key": ADA, "tokens_per_day": 1000}, "grace": GRACE})
    assert front.ask().status == 200
    now = datetime.datetime.now(datetime.timezone.utc)
    (front.folder / "ada").write_text(str(now.date()))
    refused = front.ask()
    assert refused.error == (429, "rate_limit_exceeded")
    left = int(refused.headers["retry-after"])
    midnight = (now + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert abs((midnight - now).total_seconds() - left) < 20
    assert f"used its 1000 tokens of today. They are renewed at {midnight:%Y-%m-%dT%H:%M:%SZ}" in str(refused.json)
    assert front.ask(key=GRACE).status == 200
    # The counter may have died yesterday.
    (front.folder / "ada").write_text(str(now.date() - datetime.timedelta(days=1)))
    assert front.ask().status == 200


@pytest.mark.parametrize("keys", [{"ada": {"key": ADA, "requests_per_second": 1}, "grace": GRACE}])
def test_a_client_at_its_own_limit_does_not_slow_another(gateway, keys):
    front = gateway(keys)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _each: front.ask(), range(100)))
        others = list(pool.map(lambda _each: front.ask(key=GRACE), range(100)))
    refused = next(answer for answer in answers if answer.status == 429)
    assert (refused.error, refused.headers["retry-after"]) == ((429, "rate_limit_exceeded"), "1")
    assert {answer.status for answer in others} == {200}


MANY = [f"sk-of-many-{number:032d}" for number in range(1000)]


@SCRIPTED
def test_a_thousand_keys_that_may_less_are_read(gateway):
    models = ["8b", *(f"model-]==]-{number}" for number in range(20))]
    keys = {f"client-{number}": {"key": key, "models": models} for number, key in enumerate(MANY)}
    front = gateway(keys)
    assert [front.ask(key=key).status for key in (MANY[0], MANY[-1], MANY[-1] + "x")] == [200, 200, 401]


@pytest.mark.parametrize("keys", GRADES)
def test_an_engine_is_told_whose_a_request_is_where_it_counts(gateway, keys):
    front = gateway(keys, gateway_usage=True)
    told = [front.ask(key=key, x_request_id="gpunode-eve-0").json["headers"]["x-request-id"] for key in (ADA, GRACE)]
    assert [usage.client_of([(b"x-request-id", name.encode())]) for name in told] == ["ada", "grace"]
    front.reload(gateway_usage=False)
    until(lambda: re.fullmatch("[0-9a-f]{32}", front.ask(x_request_id="mine").json["headers"]["x-request-id"]))


def test_the_usage_is_shown_to_prometheus_alone(gateway, tmp_path):
    port = free_port()
    front = gateway(PLAIN, gateway_usage=True, gateway_metrics_port=port)
    (tmp_path / "metrics.prom").write_text("gpunode_usage_requests_total 1\n")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/usage/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
        assert answer.read() == b"gpunode_usage_requests_total 1\n"
    assert front.ask("/usage/metrics", method="GET").status == 404


@SCRIPTED
def test_keys_of_another_grade_come_with_a_reload(gateway):
    front = gateway(PLAIN)
    process = front.process.pid
    front.reload(gateway_keys={"ada": {"sha256": digest(ALAN)}})
    until(lambda: front.ask(key=ALAN).status == 200)
    until(lambda: front.ask(key=ADA).status == 401)
    front.reload(gateway_keys=PLAIN)
    until(lambda: front.ask(key=ADA).status == 200)
    assert front.process.pid == process
