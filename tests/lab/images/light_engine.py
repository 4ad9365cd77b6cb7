# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers what an engine is asked until it counts as started, from the configuration that an engine reads."""

import json
import re
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

with open(sys.argv[sys.argv.index("--config") + 1], encoding="utf-8") as config:
    CONFIG = config.read()
PORT = int(re.search(r"^port: (\d+)$", CONFIG, re.MULTILINE).group(1))
NAMES = re.search(r"^served-model-name:\n((?:- .+\n)+)", CONFIG, re.MULTILINE).group(1).split("\n")
METRICS = 'vllm:num_requests_running{engine="0"} 0.0\nvllm:num_requests_waiting{engine="0"} 0.0\n'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/v1/models":
            self.answer(json.dumps({"data": [{"id": name[2:]} for name in NAMES if name]}))
        else:
            self.answer(METRICS if self.path == "/metrics" else "")

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(json.dumps({"choices": [{"text": "light"}], "usage": {"completion_tokens": 1}}))

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


signal.signal(signal.SIGTERM, lambda *_told: sys.exit(143))
ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever()
