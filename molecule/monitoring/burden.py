# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""More than an engine can bear: long answers, so many at a time that some wait and some are turned away."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

AT_ONCE, TOKENS = 40, 1900


def ask(number: int, key: str) -> None:
    """One after the other, for ever."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for turn in range(1_000_000):
        request = {"model": "tiny", "prompt": f"{number} {turn}", "max_tokens": TOKENS, "ignore_eos": True}
        connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=600)
        try:
            connection.request("POST", "/v1/completions", json.dumps(request), headers)
            status = connection.getresponse().status
        except OSError:
            status = 0
        connection.close()
        if status != 200:
            time.sleep(2)


if __name__ == "__main__":
    for one in range(AT_ONCE):
        threading.Thread(target=ask, args=(one, sys.argv[1])).start()
