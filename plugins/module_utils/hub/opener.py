# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The opener that modules pass to ``api.py``: Ansible's HTTP client, which uses the node's proxy settings."""

from __future__ import annotations

from typing import Any, Mapping
from urllib.error import HTTPError, URLError

from ansible.module_utils.urls import open_url

from ..node import web
from .api import Answer, Opener

LARGEST_ANSWER = 64 * 1024 * 1024


def opener(timeout_s: float, ca_path: str | None = None) -> Opener:
    def ask(method: str, url: str, headers: Mapping[str, str]) -> Answer:
        try:
            response = open_url(
                url,
                method=method,
                headers=dict(headers),
                timeout=timeout_s,
                ca_path=ca_path,
                follow_redirects="none",
                http_agent="gpunode.llm",
            )
        except HTTPError as refusal:
            response = refusal
        except (URLError, OSError, ValueError) as trouble:
            return Answer(0, reason=web.cause(trouble))
        return read(response)

    return ask


def read(response: Any) -> Answer:
    headers = {key.lower(): value for key, value in response.headers.items()}
    try:
        body = response.read(LARGEST_ANSWER)
    except OSError as trouble:
        return Answer(0, reason=f"the answer was cut short: {trouble}")
    return Answer(response.getcode(), headers, body, getattr(response, "reason", None) or "")
