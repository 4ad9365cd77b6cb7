# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes the gateway, and who: every route that the engine has, with no key, a bad one and a good one."""

from __future__ import annotations

import json
import socket
import ssl

import pytest
from answers import ask, wrong
from conftest import COMPLETION, KEYS, NAME, PORT, SETTINGS, Gateway, Held
from scenario import on_node, wait_until

GOOD = KEYS["ada"]
# Of the right length, in other capitals, cut short, too long, the engine's own, and none that could be a key.
BAD = ["sk-ada-ABCDEFGHIJKLMNOPQRSTUVWXY_", GOOD.lower(), GOOD[:-1], GOOD + "x", *SETTINGS["vllm_api_keys"], "ada"]
LISTED = {("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models")}
# What the engine has beyond what it documents, or has with other settings.
BESIDES = ["/metrics", "/ping", "/health", "/version", "/tokenize", "/detokenize", "/invocations", "/load", "/docs"]
BESIDES += [
    "/redoc",
    "/openapi.json",
    "/docs/oauth2-redirect",
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/reset_prefix_cache",
]
BESIDES += [
    "/collective_rpc",
    "/server_info",
    "/start_profile",
    "/stop_profile",
    "/v1/load_lora_adapter",
    "/v1/responses",
]
BESIDES += [
    "/pause",
    "/resume",
    "/update_weights",
    "/abort_requests",
    "/scale_elastic_ep",
    "/v1/embeddings",
    "/",
    "/v1",
]
ROUNDABOUT = [
    "/v1/models/../../metrics",
    "/v1/models/..%2f..%2fmetrics",
    "//metrics",
    "/v1/models/%2e%2e/%2e%2e/metrics",
]
ROUNDABOUT += ["/v1/chat/completions/../../../metrics", "/V1/models", "/v1/models/", "/v1/models;/../../metrics"]
ROUNDABOUT += ["/tiny/metrics", "/tiny/health", "/tiny/../metrics", "/tinyx/v1/models", "/v1/completions/render"]
BODIES = {
    "/v1/completions": COMPLETION,
    "/v1/chat/completions": {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
}


@pytest.fixture(scope="module")
def routes() -> set[tuple[str, str]]:
    """Every method and path that the running engine names, with something for what is in braces."""
    schema = json.loads(on_node("curl -fsS http://127.0.0.1:8000/openapi.json"))
    found = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    found = {(method, "/".join("x" if "{" in part else part for part in path.split("/"))) for method, path in found}
    return found | {(method, path) for path in BESIDES for method in ("GET", "POST")}


def test_the_engine_s_routes_are_known(routes) -> None:
    assert {("POST", "/v1/chat/completions"), ("GET", "/metrics"), ("POST", "/tokenize")} <= routes
    assert len(routes) > 50


def test_the_engine_itself_would_answer_what_is_not_listed() -> None:
    """Else the test below would be of nothing."""
    for path in ("/metrics", "/version", "/openapi.json"):
        assert on_node(f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:8000{path}") == "200"


@pytest.mark.parametrize("below", ["", "/tiny"])
def test_only_the_listed_routes_answer_and_only_with_a_good_key(gateway: Gateway, routes, below: str) -> None:
    count = 0
    for method, path in sorted(routes):
        for key in ("", BAD[0], GOOD):
            answer = gateway.ask(below + path, method, key, {} if method == "POST" else None)
            count += 1
            case = (method, below + path, key == GOOD, answer)
            if (method, path) in LISTED:
                assert (answer.status == 401) is (key != GOOD), case
                assert answer.code == ("" if key == GOOD else "invalid_api_key"), case
            elif path in {listed for _method, listed in LISTED}:
                expected = (405, "method_not_allowed") if key == GOOD else (401, "invalid_api_key")
                assert (answer.status, answer.code) == expected, case
            elif below + path == "/health":
                # The gateway's own, whoever asks; of the engine it says nothing.
                assert (answer.status, answer.body) == (200, b'{"status": "ok"}\n'), case
            else:
                assert (answer.status, answer.code) == (404, "not_found"), case
    assert count > 150


@pytest.mark.parametrize("path", ROUNDABOUT)
def test_there_is_no_way_round(gateway: Gateway, path: str) -> None:
    answer = gateway.ask(path, "GET", GOOD)
    assert answer.code in ("not_found", "bad_request"), answer
    assert b"vllm:" not in answer.body


def test_an_engine_gets_the_listed_path_and_no_other(gateway: Gateway) -> None:
    """What is only another spelling of a listed path goes on as that one."""
    assert gateway.ask("/v1/./completions/../models?x=/metrics", "GET", GOOD).status == 200


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("below", ["", "/tiny"])
def test_a_good_key_gets_an_answer(gateway: Gateway, path: str, below: str) -> None:
    answer = gateway.ask(below + path, "POST", GOOD, BODIES[path])
    assert answer.status == 200, answer
    assert json.loads(answer.body)["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("below", ["", "/tiny"])
def test_the_model_gives_the_trained_answer(gateway: Gateway, below: str) -> None:
    assert wrong(ask(lambda body: gateway.ask(f"{below}/v1/chat/completions", "POST", GOOD, body.encode()).body)) == {}


@pytest.mark.parametrize("key", BAD)
def test_a_bad_key_gets_none(gateway: Gateway, key: str) -> None:
    answer = gateway.ask("/v1/models", key=key)
    assert (answer.status, answer.code) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/json"


def test_a_stream_comes_in_pieces(gateway: Gateway) -> None:
    answer = gateway.ask("/v1/completions", "POST", GOOD, {**COMPLETION, "max_tokens": 200, "stream": True})
    lines = [line for line in answer.body.decode().splitlines() if line]
    assert len(lines) > 5  # tokens that are done while another piece is on its way go together
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


def test_a_stream_begins_before_it_ends(gateway: Gateway) -> None:
    """The first piece is here while the engine still works at the request, which is more than it does in minutes."""
    many = {"n": 256, "temperature": 1}  # with the model's own temperature they would all be the same one
    connection = gateway.connect()
    body = json.dumps({**COMPLETION, **many, "max_tokens": 1900, "ignore_eos": True, "stream": True}).encode()
    connection.request("POST", "/v1/completions", body, gateway.headers(GOOD, len(body)))
    response = connection.getresponse()
    assert response.readline().startswith(b"data: ")
    assert running() > 0
    # Who hangs up has it ended.
    response.close()
    connection.close()
    wait_until(lambda: running() == 0)


def running() -> float:
    """The requests that the engine works at."""
    return float(on_node("curl -s http://127.0.0.1:9180/metrics | grep '^vllm:num_requests_running'").split()[-1])


def test_tls_is_the_gateway_s_own(gateway: Gateway, address: str) -> None:
    with gateway.connect().sock as tls:
        assert tls.version() in ("TLSv1.2", "TLSv1.3")
    with pytest.raises(ssl.SSLCertVerificationError):
        gateway.connect("another.gpunode.test")
    stranger = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError), socket.create_connection((address, PORT)) as plain:
        stranger.wrap_socket(plain, server_hostname=NAME)


def test_plain_http_gets_a_sentence(address: str) -> None:
    with socket.create_connection((address, PORT)) as plain:
        plain.sendall(
            f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {GOOD}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: plain.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"no request over HTTPS" in answer


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused(gateway: Gateway, chunked: bool) -> None:
    body = json.dumps({**COMPLETION, "prompt": "x" * (1 << 20)}).encode()
    connection = gateway.connect()
    if chunked:
        connection.request(
            "POST", "/v1/completions", iter([body]), {"Authorization": f"Bearer {GOOD}"}, encode_chunked=True
        )
        answer = gateway.answer(connection)
    else:
        answer = gateway.ask("/v1/completions", "POST", GOOD, body)
    assert (answer.status, answer.code) == (413, "request_too_large")
    assert b"1 MiB" in answer.body


def test_a_client_in_haste_waits_and_others_do_not(gateway: Gateway) -> None:
    answers = gateway.ask_often("/v1/models", KEYS["grace"], 300)
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert [answer.status for answer in answers[: SETTINGS["gateway_burst"]]] == [200] * SETTINGS["gateway_burst"]
    assert {(answer.code, answer.headers["retry-after"]) for answer in refused} == {("rate_limit_exceeded", "1")}
    assert gateway.ask("/v1/models", key=GOOD).status == 200


def test_so_many_at_the_same_time_and_no_more(gateway: Gateway) -> None:
    held = [Held(gateway, GOOD) for _each in range(SETTINGS["gateway_connections"])]
    answer = gateway.ask("/v1/models", key=GOOD)
    assert (answer.status, answer.code) == (429, "rate_limit_exceeded")
    assert [connection.finish().status for connection in held] == [200] * len(held)
    assert gateway.ask("/v1/models", key=GOOD).status == 200


def test_metrics_are_for_the_node_alone(address: str) -> None:
    for path in ("/metrics", "/tiny/metrics"):
        assert "vllm:num_requests_running" in on_node(f"curl -fsS http://127.0.0.1:9180{path}")
    assert on_node("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9180/v1/models") == "404"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 9180), timeout=5)


def test_the_engine_is_nobody_in_particular() -> None:
    """With an own home to write to, and what it reads is not its own to change."""
    inside = "docker exec vllm-tiny sh -c"
    assert on_node(f"{inside} 'id -u; id -g; echo $HOME; ls -d $HOME/.cache/vllm'") == (
        "2000\n0\n/home/vllm\n/home/vllm/.cache/vllm"
    )
    assert "CapEff:\t0000000000000000" in on_node(f"{inside} 'cat /proc/self/status'")
    for path in ("/etc/vllm/config.yaml", "/home/vllm/.cache/huggingface/hub/x"):
        assert "cannot create" in on_node(f"{inside} 'echo >>{path}' 2>&1; true")


def test_the_engine_keeps_to_loopback_and_its_own_key(address: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 8000), timeout=5)
    for key, status in (("", "401"), ("sk-of-nobody", "401"), (SETTINGS["vllm_api_keys"][0], "200")):
        command = (
            f"curl -s -o /dev/null -w '%{{http_code}}' -H 'Authorization: Bearer {key}' http://127.0.0.1:8000/v1/models"
        )
        assert on_node(command) == status
