# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A receiver of alerts on a node: notes the name of each that fires. Beside it, series that no healthy engine has."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NOTES = Path("/run/alerts")
BEGAN = time.monotonic()
#: Counters that rise by so many a second, and what stands still.
RISING = {
    'vllm:request_success_total{finished_reason="error"}': 1,
    'http_requests_total{status="5xx"}': 5,
    'http_requests_total{status="2xx"}': 5,
}
STILL = {
    "vllm:num_requests_running": 3,
    "vllm:generation_tokens_total": 7,
    "vllm:prompt_tokens_total": 7,
    "smg_worker_health": 0,
}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with NOTES.open("a") as notes:
            for alert in told["alerts"]:
                if alert["status"] == "firing":
                    notes.write(json.dumps({"path": self.path, **alert["labels"], **alert["annotations"]}) + "\n")
        self.answer("")

    def do_GET(self) -> None:
        rising = {name: step * (time.monotonic() - BEGAN) for name, step in RISING.items()}
        self.answer("".join(f"{name} {value}\n" for name, value in {**rising, **STILL}.items()))

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_args: object) -> None:
        """Nothing."""


def main() -> None:
    for port in (9999, 9998):
        threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever).start()


if __name__ == "__main__":
    main()
