# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry that is asked as Docker asks it: tables of answers, and a small registry on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.docker import registry as docker_registry
from ansible_collections.gpunode.llm.plugins.module_utils.docker.registry import Answer, Docker, Login

IMAGE = "vllm/vllm-openai:v0.33.0"
HUB = "https://registry-1.docker.io/v2/vllm/vllm-openai/manifests/v0.33.0"
OWN = "registry.test:5000/vllm:v1"
NOBODY = Login()
ARM = {"manifests": [{"digest": f"sha256:{'d' * 64}", "platform": {"os": "linux", "architecture": "arm64"}}]}


class Registries:
    """Addresses and what they answer; whatever is not listed is not reached."""

    def __init__(self, answers: dict[str, Answer | list[Answer]]) -> None:
        self.answers = {url: answer if isinstance(answer, list) else [answer] for url, answer in answers.items()}
        self.requests: list[tuple[str, str, dict[str, str], bool]] = []

    def __call__(self, method, url, headers, verified):
        self.requests.append((method, url, dict(headers), verified))
        answers = self.answers.get(url.partition("?")[0], [Answer(0, reason="dial tcp: Connection refused")])
        return answers.pop(0) if len(answers) > 1 else answers[0]


def finding(answers, image=IMAGE, machine="x86_64", config=None, login=NOBODY):
    return docker_registry.finding(image, Docker(Registries(answers), config or {}, lambda _registry: login), machine)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(200), ""),
        (
            Answer(404),
            "docker.io answers, but has no such image: check the name and the tag of vllm/vllm-openai:v0.33.0.",
        ),
        (Answer(401), "docker.io denies this node access to vllm/vllm-openai:v0.33.0: log in (docker login docker.io"),
        (Answer(403), "docker.io denies this node access"),
        (Answer(429), "docker.io limits how often this address pulls"),
        (Answer(503), "The transfer from docker.io was cut: Service Unavailable (503)."),
        (Answer(0, reason="no such host: Name or service not known"), "docker.io cannot be reached: its name does not"),
        (
            Answer(0, reason="x509: self-signed certificate"),
            "This node does not trust the certificate of docker.io",
        ),
        (
            Answer(0, reason="dial tcp: timed out"),
            "docker.io cannot be reached from this node: check its route and its proxy",
        ),
        (Answer(418), ""),  # nobody can tell, and Docker may
    ],
)
def test_meaning_of_registry_answers(answer, words):
    message = finding({HUB: answer})
    assert message.startswith(words)
    assert bool(message) is bool(words)
    assert message.endswith("skip this check with preflight_skip: [registry].") is (answer.status == 0)


def test_the_head_alone_is_asked_for():
    ask = Registries({HUB: Answer(200)})
    assert docker_registry.finding(IMAGE, Docker(ask), "x86_64") == ""
    ((method, url, headers, verified),) = ask.requests
    assert (method, url, verified) == ("HEAD", HUB, True)
    assert "application/vnd.oci.image.index.v1+json" in headers["Accept"]


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("debian:12", "https://registry-1.docker.io/v2/library/debian/manifests/12"),
        ("docker.io/vllm/x:1", "https://registry-1.docker.io/v2/vllm/x/manifests/1"),
        ("quay.test/a/b/c:1", "https://quay.test/v2/a/b/c/manifests/1"),
        ("quay.test/a:1@sha256:" + "a" * 64, "https://quay.test/v2/a/manifests/sha256:" + "a" * 64),
    ],
)
def test_where_an_image_is(image, path):
    assert finding({path: Answer(200)}, image) == ""


def test_another_architecture_is_named_where_it_counts():
    listed = {HUB: Answer(200, body=json.dumps(ARM).encode())}
    assert finding(listed, machine="aarch64") == ""
    message = finding(listed, machine="riscv64")
    assert message == f"{IMAGE} cannot run on this machine: the image has no variant for linux on riscv64."


CHALLENGE = {"www-authenticate": 'Bearer realm="https://auth.test/token",service="registry",scope="repository:v:pull"'}
TOKEN = Answer(200, body=b'{"token": "t0"}')


@pytest.mark.parametrize("login", [Login(), Login("ada", "secret")])
def test_a_token_is_fetched_as_docker_does(login):
    ask = Registries({HUB: [Answer(401, CHALLENGE), Answer(200)], "https://auth.test/token": TOKEN})
    assert docker_registry.finding(IMAGE, Docker(ask, login=lambda _registry: login), "x86_64") == ""
    first, token, second = ask.requests
    assert token[1] == "https://auth.test/token?service=registry&scope=repository%3Av%3Apull"
    assert token[2] == login.basic()
    assert "Authorization" not in first[2]
    assert second[2]["Authorization"] == "Bearer t0"


def test_a_password_does_not_go_to_a_realm_without_tls():
    plain = {"www-authenticate": CHALLENGE["www-authenticate"].replace("https", "http")}
    ask = Registries({HUB: Answer(401, plain)})
    assert "denies this node access" in docker_registry.finding(
        IMAGE, Docker(ask, login=lambda _r: Login("a", "b")), "x86_64"
    )
    assert [url for _method, url, _headers, _verified in ask.requests] == [HUB, HUB]


def test_basic():
    ask = Registries({HUB: [Answer(401, {"www-authenticate": 'Basic realm="r"'}), Answer(200)]})
    assert docker_registry.finding(IMAGE, Docker(ask, login=lambda docker_registry: Login("a", "b")), "x86_64") == ""
    assert ask.requests[1][2]["Authorization"] == "Basic YTpi"


def test_a_login_that_only_docker_can_use_is_not_judged():
    assert finding({HUB: Answer(401)}, login=Login(unknown=True)) == ""
    assert "no such image" in finding({HUB: Answer(404)}, login=Login(unknown=True))


def test_a_redirect_elsewhere_gets_no_token():
    blob = "https://blobs.test/x"
    moved = Answer(307, {"location": blob})
    ask = Registries({HUB: [Answer(401, CHALLENGE), moved], "https://auth.test/token": TOKEN, blob: Answer(200)})
    assert docker_registry.finding(IMAGE, Docker(ask), "x86_64") == ""
    assert "Authorization" not in ask.requests[-1][2]


def test_a_redirect_to_a_file_of_this_node_is_not_followed():
    ask = Registries({HUB: Answer(307, {"location": "file:///etc/shadow"})})
    assert docker_registry.finding(IMAGE, Docker(ask), "x86_64") == ""
    assert [url for _method, url, _headers, _verified in ask.requests] == [HUB]


def test_a_mirror_is_asked_first_and_the_registry_where_it_has_nothing():
    config = {"registry-mirrors": ["https://mirror.test/docker/"]}
    mirror = "https://mirror.test/docker/v2/vllm/vllm-openai/manifests/v0.33.0"
    assert finding({mirror: Answer(200)}, config=config) == ""
    assert finding({mirror: Answer(404), HUB: Answer(200)}, config=config) == ""
    assert "has no such image" in finding({mirror: Answer(404), HUB: Answer(404)}, config=config)
    assert "cannot be reached" in finding({mirror: Answer(200)}, OWN, config=config)


@pytest.mark.parametrize(
    ("config", "answers", "reached"),
    [
        ({}, {"http://registry.test:5000": Answer(200)}, False),
        ({"insecure-registries": ["registry.test:5000"]}, {"http://registry.test:5000": Answer(200)}, True),
        ({"insecure-registries": ["registry.test:5000"]}, {"https://registry.test:5000": Answer(200)}, True),
        ({"insecure-registries": ["registry.test"]}, {"http://registry.test:5000": Answer(200)}, False),
    ],
)
def test_plain_http_only_where_docker_would(config, answers, reached):
    by_url = {f"{url}/v2/vllm/manifests/v1": answer for url, answer in answers.items()}
    assert (finding(by_url, OWN, config=config) == "") is reached


@pytest.mark.parametrize(
    ("host", "listed", "expected"),
    [
        ("localhost:5000", [], True),
        ("127.0.0.1:5000", [], True),
        ("10.1.2.3:5000", ["10.0.0.0/8"], True),
        ("10.1.2.3:5000", ["10.2.0.0/16"], False),
        ("r.test", ["r.test"], True),
        ("r.test", [], False),
    ],
)
def test_insecure(host, listed, expected):
    assert docker_registry.insecure(host, {"insecure-registries": listed}) is expected


AUTH = base64.b64encode(b"ada:se:cret").decode()


@pytest.mark.parametrize(
    ("config", "registry", "expected"),
    [
        ({}, "docker.io", Login()),
        ({"auths": {"https://index.docker.io/v1/": {"auth": AUTH}}}, "docker.io", Login("ada", "se:cret")),
        ({"auths": {"r.test:5000": {"auth": AUTH}}}, "r.test:5000", Login("ada", "se:cret")),
        ({"auths": {"https://r.test/v1/": {"auth": AUTH}}}, "r.test", Login("ada", "se:cret")),
        ({"auths": {"r.test": {"auth": AUTH}}}, "other.test", Login()),
        ({"auths": {"r.test": {"auth": AUTH, "identitytoken": "x"}}}, "r.test", Login("ada", "se:cret", True)),
        ({"auths": {"r.test": {}}}, "r.test", Login(unknown=True)),
        ({"auths": {"r.test": {"auth": "?"}}}, "r.test", Login(unknown=True)),
        ({"credHelpers": {"r.test": "ecr"}}, "r.test", Login("ecr", "r.test")),
        ({"credsStore": "pass"}, "docker.io", Login("pass", "https://index.docker.io/v1/")),
        ({"credsStore": "none"}, "docker.io", Login(unknown=True)),
        ({"credsStore": "<token>"}, "docker.io", Login(unknown=True)),
    ],
)
def test_logins(config, registry, expected):
    def helper(name, address):
        return None if name == "none" else {"Username": name, "Secret": address}

    assert docker_registry.login_in(config, registry, helper) == expected


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("https://r.example.net/v2/", "", True),
        ("https://r.example.net/v2/", ".example.net", False),
        ("https://r.example.net/v2/", "example.net,x", False),
        ("https://r.example.net/v2/", "*.example.net", False),
        ("https://rexample.net/v2/", "example.net", True),
        ("https://r.example.net:5000/v2/", "r.example.net:443", True),
        ("https://r.example.net/v2/", "r.example.net:443", False),
        ("https://10.1.2.3/v2/", "10.0.0.0/8", False),
        ("https://r.example.net/v2/", "*", False),
        ("https://localhost:5000/v2/", "", False),
        ("http://r.example.net/v2/", "", False),
    ],
)
def test_proxy(url, no_proxy, proxied):
    proxy = docker_registry.proxy_for(url, {"https": "http://proxy:3128", "no_proxy": no_proxy})
    assert proxy == ("http://proxy:3128" if proxied else "")


@pytest.fixture
def registry() -> Iterator[str]:
    """One image, for those who have a token; plain HTTP on this machine, as Docker speaks it there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send(200, b'{"token": "t0"}')

        def do_HEAD(self):
            if self.headers.get("Authorization") != "Bearer t0":
                realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="s",scope="x"'
                return self.send(401, b"", ("WWW-Authenticate", realm))
            return self.send(200 if self.path == "/v2/vllm/manifests/v1" else 404, b"")

        def send(self, status, body, *headers):
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_registry_on_this_machine(registry, monkeypatch, tmp_path):
    monkeypatch.setattr(docker_registry, "DAEMON", str(tmp_path / "none"))
    monkeypatch.setattr(docker_registry, "client", dict)
    docker = docker_registry.of_node({}, lambda _command: (0, "", ""))
    assert docker_registry.finding(f"{registry}/vllm:v1", docker, "x86_64") == ""
    message = docker_registry.finding(f"{registry}/vllm:v2", docker, "x86_64")
    assert message == f"{registry} answers, but has no such image: check the name and the tag of {registry}/vllm:v2."


def test_what_the_service_has_of_a_proxy(tmp_path):
    file = tmp_path / "proxy.env"
    file.write_text('# why\nHTTPS_PROXY="http://file:1"\n')
    show = f'Environment="HTTP_PROXY=http://unit:1" NO_PROXY=a,b\nEnvironmentFiles={file} (ignore_errors=no)\n'
    proxies = docker_registry.service_proxies(lambda _command: (0, show, ""))
    assert proxies == {"http": "http://unit:1", "https": "http://file:1", "no_proxy": "a,b"}
    assert docker_registry.service_proxies(lambda _command: (0, "Environment=\n", "")) == {}
