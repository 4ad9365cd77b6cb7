# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of AWX's API (v2) as the awx.awx modules ask for: lists with filters, objects, and what belongs to them."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

# Where a name is looked up among objects of several kinds.
UNIFIED = {"job_templates": "job_template", "workflow_job_templates": "workflow_job_template", "projects": "project"}


class Awx:
    """The objects by their kind and number, and what is associated with them."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[int, dict[str, Any]]] = {}
        self.links: dict[str, list[int]] = {}
        self.surveys: dict[str, Any] = {}
        self.writes: list[str] = []
        self._last = 0

    def named(self, kind: str, name: str) -> dict[str, Any]:
        """The one object of a kind that has the name, or identifier."""
        (found,) = (o for o in self.objects[kind].values() if name in (o.get("name"), o.get("identifier")))
        return found

    def make(self, kind: str, given: dict[str, Any]) -> dict[str, Any]:
        self._last += 1
        url = f"/api/v2/{kind}/{self._last}/"
        made = {**given, "id": self._last, "url": url, "type": kind.rstrip("s"), "related": {}}
        if kind.endswith("job_templates"):
            made["related"]["survey_spec"] = f"{url}survey_spec/"
        if kind == "projects":  # fetched already
            made |= {"scm_revision": "0" * 40, "summary_fields": {}}
        self.objects.setdefault(kind, {})[self._last] = made
        return made

    def found(self, kind: str, query: dict[str, str]) -> list[dict[str, Any]]:
        """The objects that a list's filters leave."""
        if kind == "unified_job_templates":
            kinds = [k for k, name in UNIFIED.items() if query.get("type") == name]
            return [o for k in kinds for o in self.found(k, {"name": query["name"]})]
        filters = {name: value for name, value in query.items() if not name.startswith(("page", "order"))}
        objects = self.objects.get(kind, {}).values()
        return [o for o in objects if all(str(o.get(name)) == value for name, value in filters.items())]

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """What AWX answers."""
        if method != "GET":
            self.writes.append(f"{method} {path}")
        parts = re.fullmatch(r"/api/v2/(\w+)/(?:(\d+)/)?(?:(\w+)/)?", path)
        if path in ("/api/", "/api/v2/ping/", "/api/v2/config/"):
            return 200, {"current_version": "/api/v2/", "version": "24.6.1"}
        if not parts:
            return 404, {"detail": path}
        kind, number, below = parts.groups()
        if number is None:
            if method == "POST":
                return 201, self.make(kind, body)
            found = self.found(kind, query)
            return 200, {"count": len(found), "next": None, "results": found}
        entry = self.objects[kind][int(number)]
        if below:
            return self._below(method, path, below, entry, body)
        entry.update(body if method == "PATCH" else {})
        return 200, entry

    def _below(self, method: str, path: str, below: str, entry: dict[str, Any], body: Any) -> tuple[int, Any]:
        if below == "survey_spec":
            if method == "POST":
                self.surveys[entry["name"]] = body
            return 200, self.surveys.get(entry["name"], {})
        if below == "create_approval_template":
            made = self.make("workflow_approval_templates", body)
            entry["related"]["unified_job_template"] = made["url"]
            entry["unified_job_template"] = made["id"]
            return 201, made
        linked = self.links.setdefault(path, [])
        if method == "POST":
            linked.append(body["id"])
            return 204, None
        return 200, {"count": len(linked), "next": None, "results": [{"id": number} for number in linked]}


class Server:
    """The API on a port of this machine, for as long as the block lasts."""

    def __init__(self) -> None:
        self.awx = awx = Awx()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: pytest's output is for failures."""

            def serve(self) -> None:
                address = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or "null")
                status, answer = awx.answer(self.command, address.path, dict(parse_qsl(address.query)), body)
                data = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("X-API-Product-Name", "AWX")
                self.send_header("X-API-Product-Version", "24.6.1")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = serve

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.shutdown()
