# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's settings, its gateway from the node itself, its plays, and the hub as it was or out of reach."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from scenario import Play, on_node, run_play

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "converge.yml").read_text())[0]["vars"]
MIXTURE, EMBEDDING, LLAMA = SETTINGS["models"]


def play(name: str, **more: Any) -> Play:
    """Run a playbook with the settings of the node."""
    return run_play(f"{name}.yml", "-e", json.dumps({**SETTINGS, **more}))


def through_the_gateway(path: str, body: str | None = None) -> tuple[int, str]:
    """Ask the gateway with a good key, by POST where there is a body: status and text."""
    name, port, key = SETTINGS["gateway_names"][0], SETTINGS["gateway_port"], SETTINGS["gateway_keys"]["ada"]
    command = ["curl", "-sS", "-m", "120", "-w", "\n%{http_code}", "--cacert", "/etc/gpunode/gateway/certificate.pem"]
    command += ["--resolve", f"{name}:{port}:127.0.0.1", "-H", f"Authorization: Bearer {key}"]
    command += [] if body is None else ["-H", "Content-Type: application/json", "-d", body]
    text, _line, status = on_node(shlex.join([*command, f"https://{name}:{port}{path}"])).rpartition("\n")
    return int(status), text


def asked_of(unit: str) -> list[str]:
    """Every request of work that the engine of a unit has logged since it started: "POST /v1/completions 200"."""
    run = on_node(f"systemctl show --value --property=InvocationID {unit}")
    log = on_node(f"journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID={run}")
    lines = [line.rpartition('"POST ')[2] for line in log.splitlines() if '"POST ' in line]
    return [f"POST {words[0]} {words[2]}" for words in map(str.split, lines)]


def embedded(texts: list[str]) -> list[list[float]]:
    """The vectors that the embedding model makes of texts, through the gateway."""
    body = json.dumps({"model": EMBEDDING, "input": texts})
    status, text = through_the_gateway("/tiny-embedding/v1/embeddings", body)
    assert status == 200, text
    return [row["embedding"] for row in json.loads(text)["data"]]


@contextmanager
def no_hub() -> Iterator[None]:
    """The hub is down for this node: its address is one where nobody listens."""
    on_node("cp /etc/hosts /run/hosts && echo 127.0.0.1 hub.gpunode.test >>/etc/hosts")
    try:
        assert on_node("curl -s http://hub.gpunode.test/api/models/lab/tiny-moe; echo $?") == "7"
        yield
    finally:
        on_node("cat /run/hosts >/etc/hosts")
