# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the gateway, on this machine, that knows the certificate that was made on the node."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from scenario import Play, docker, nodes, on_node, run_play

HERE = Path(__file__).parent
SETTINGS = yaml.safe_load((HERE.parent / "converge.yml").read_text())[0]["vars"]
KEYS = SETTINGS["gateway_keys"]
PORT = SETTINGS["gateway_port"]
NAME = SETTINGS["gateway_names"][0]
COMPLETION = {"model": "tiny", "prompt": "The GPU", "max_tokens": 5}


def site(*args: str, **settings: Any) -> Play:
    """Run site.yml as the node was converged, with other settings on top."""
    return run_play("site.yml", "-e", json.dumps({**SETTINGS, **settings}), *args)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error of the gateway's own; vLLM has a number there, or another form."""
        try:
            code = json.loads(self.body)["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return ""
        return code if isinstance(code, str) else ""


class Gateway:
    """Connections to the gateway, each verified against its certificate."""

    def __init__(self, address: str, certificate: str) -> None:
        self.address = address
        self.tls = ssl.create_default_context(cadata=certificate)

    def connect(self, name: str = NAME) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(name, PORT, timeout=60)
        connection.sock = self.tls.wrap_socket(
            socket.create_connection((self.address, PORT), timeout=60), server_hostname=name
        )
        return connection

    def ask(self, path: str, method: str = "GET", key: str = "", body: Any = None) -> Answer:
        """One request over a connection of its own."""
        connection = self.connect()
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.putrequest(method, path, skip_accept_encoding=True)
            for header, value in self.headers(key, len(data or b"")).items():
                connection.putheader(header, value)
            connection.endheaders(data)
            return self.answer(connection)
        finally:
            connection.close()

    def ask_often(self, path: str, key: str, count: int) -> list[Answer]:
        """As fast as it goes: over one connection."""
        connection = self.connect()
        try:
            answers = []
            for _each in range(count):
                connection.request("GET", path, headers=self.headers(key, 0))
                answers.append(self.answer(connection))
            return answers
        finally:
            connection.close()

    @staticmethod
    def headers(key: str, length: int) -> dict[str, str]:
        plain = {"Content-Type": "application/json", "Content-Length": str(length)}
        return {**plain, "Authorization": f"Bearer {key}"} if key else plain

    @staticmethod
    def answer(connection: http.client.HTTPSConnection) -> Answer:
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


class Held:
    """A request whose body comes a byte at a time, so that it is in flight for as long as the test wants."""

    def __init__(self, gateway: Gateway, key: str, **more: Any) -> None:
        body = json.dumps({**COMPLETION, **more}).encode()
        self.left = [body[at : at + 1] for at in range(len(body))]
        self.connection = gateway.connect()
        self.connection.putrequest("POST", "/v1/completions")
        for header, value in gateway.headers(key, len(body)).items():
            self.connection.putheader(header, value)
        self.connection.endheaders(self.left.pop(0))
        self.enough = threading.Event()
        self.drip = threading.Thread(target=self.send_slowly)
        self.drip.start()

    def send_slowly(self) -> None:
        # Well within the time that the gateway gives a client that says nothing.
        while len(self.left) > 1 and not self.enough.wait(10):
            self.connection.send(self.left.pop(0))

    def finish(self) -> Answer:
        self.enough.set()
        self.drip.join()
        self.connection.send(b"".join(self.left))
        try:
            return Gateway.answer(self.connection)
        finally:
            self.connection.close()


@pytest.fixture(scope="session")
def address() -> str:
    form = '{{(index .NetworkSettings.Networks "gpunode-lab-net").IPAddress}}'
    return docker("inspect", "-f", form, f"gpunode-lab-node-{nodes()[0]}")


@pytest.fixture(scope="session")
def gateway(address: str) -> Gateway:
    return Gateway(address, on_node("cat /etc/gpunode/gateway/certificate.pem"))
