# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one origin may know stays with it: scheme, host and port together."""

from __future__ import annotations

import email.message
import io
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.error import HTTPError, URLError

import pytest
from ansible.module_utils.urls import open_url
from ansible_collections.gpunode.llm.plugins.module_utils.node import web
from ansible_collections.gpunode.llm.plugins.module_utils.packages import repository as packages_repository


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://h", "https://h:443/x", True),
        ("http://h:80/", "HTTP://H/x?y", True),
        ("https://h.", "https://u:p@h/", True),
        ("https://[::1]:443/", "https://[::1]/", True),
        ("https://h", "http://h", False),
        ("https://h:443", "http://h:443", False),
        ("https://h", "https://h:8443", False),
        ("https://h", "https://h.evil.example", False),
        ("https://h", "https://h@evil.example", False),
        ("https://h", "https://h:nonsense", False),
        ("https://h", "ftp://h", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(one, other, same):
    for pair in ((one, other), (other, one)):
        assert web.same_origin(*pair) is same


def redirecting(*steps):
    """An open_url that redirects along the steps; what it was asked."""
    requests = []

    def ask(url, follow_redirects, **options):
        requests.append(url)
        assert follow_redirects == "none"
        if len(requests) > len(steps):
            return url
        headers = email.message.Message()
        headers["Location"] = steps[len(requests) - 1]
        raise HTTPError(url, 302, "Found", headers, None)

    return requests, ask


@pytest.mark.parametrize(
    ("steps", "requests"),
    [
        (["/other"], ["https://u:p@h/key", "https://u:p@h/other"]),
        (["https://h:443/other"], ["https://u:p@h/key", "https://u:p@h:443/other"]),
        (["https://h:8443/key"], ["https://u:p@h/key", "https://h:8443/key"]),
        (["https://cdn/key", "https://h/key"], ["https://u:p@h/key", "https://cdn/key", "https://h/key"]),
    ],
)
def test_a_password_stays_with_its_origin(steps, requests):
    seen, ask = redirecting(*steps)
    assert web.following(ask)("https://u:p@h/key", timeout=1) == requests[-1]
    assert seen == requests


@pytest.mark.parametrize("step", ["http://h/key", "file:///etc/shadow", "ftp://h/key", "http://h:443/key"])
def test_nothing_leads_from_https_to_less(step):
    seen, ask = redirecting(step)
    with pytest.raises(URLError, match="not followed"):
        web.following(ask)("https://u:p@h/key")
    assert len(seen) == 1


def test_a_circle_ends():
    seen, ask = redirecting(*["/again"] * 9)
    with pytest.raises(URLError, match="more than 5 times"):
        web.following(ask)("https://h/again")
    assert len(seen) == 6


@pytest.fixture
def serve():
    """Start a server that redirects to an address, or answers; its port and the Authorization that it was sent."""
    running = []

    def start(location=""):
        sent = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                sent.append(self.headers.get("Authorization"))
                self.send_response(302 if location else 200)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "3" if not location else "0")
                self.end_headers()
                self.wfile.write(b"" if location else b"key")

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return server.server_port, sent

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_the_password_in_a_keys_address_goes_to_no_other_host(serve, tmp_path, monkeypatch):
    """ansible's own client sends what .netrc has for the first host to every host that it is redirected to."""
    port, there = serve()
    first, here = serve(f"http://localhost:{port}/key")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password sesame\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("no_proxy", "*")
    given = {"key_url": f"http://127.0.0.1:{first}/key", "timeout": 5}
    assert packages_repository.fetched_key(given, "x", open_url) == b"key"
    assert here[0].startswith("Basic ")
    assert there == [None]


def test_a_password_is_not_in_the_message():
    def refuses(url, **options):
        raise URLError("no route")

    with pytest.raises(ValueError, match="fetched from https://h/key: ") as caught:
        packages_repository.fetched_key({"key_url": "https://ada:sesame@h/key"}, "x", refuses)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("data", [b"no key", b"\x98\x01\x04"])
def test_a_password_is_not_in_the_message_of_another_key(tmp_path, data):
    given = {"key_url": "https://ada:sesame@h/key", "fingerprint": "A" * 40}
    with pytest.raises(ValueError, match=r"https://h/key ") as caught:
        packages_repository.given_key_change(str(tmp_path / "key"), given, "x", lambda url, **options: io.BytesIO(data))
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (URLError(socket.gaierror(-3, "Temporary failure in name resolution")), "Temporary failure in name resolution"),
        (URLError(ConnectionRefusedError(111, "Connection refused")), "Connection refused"),
        (URLError("no host given"), "no host given"),
        (HTTPError("https://h", 404, "Not Found", {}, None), "it answers 404 Not Found"),
        (TimeoutError("timed out"), "timed out"),
        (ValueError("unknown url type: 'h'"), "unknown url type: 'h'"),
    ],
)
def test_a_cause_is_reported_without_pythons_wrapping(trouble, message):
    assert web.cause(trouble) == message
