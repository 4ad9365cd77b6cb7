# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether certbot's certificate and its renewal settings are as requested.

certbot records how it renews each certificate. It does not record the contact address for the authority, so that is
noted in a separate file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import AbstractSet, Dict, List, Mapping, Sequence, Tuple

#: certbot's name for the gateway's certificate, whatever host names it has.
LINEAGE = "gpunode-gateway"


@dataclass(frozen=True)
class Request:
    names: Sequence[str]
    server: str
    webroot: str
    hook: str
    email: str

    @property
    def note(self) -> str:
        """The line to record once the authority has the contact address."""
        return f"{self.server} {self.email}\n"


def parse_renewal(text: str) -> Tuple[Dict[str, str], Dict[str, str]]:
    """The parameters in certbot's renewal file, and for each host name the folder of its challenges."""
    values: Dict[str, str] = {}
    webroots: Dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        if re.match(r"\s*\[", line):
            section = line.strip().strip("[]").strip()
        elif "=" in line and not line.lstrip().startswith("#"):
            key, value = (part.strip().strip("\"'") for part in line.split("=", 1))
            (webroots if section == "webroot_map" else values)[key] = value
    return values, webroots


def differs(request: Request, renewal: str, names: AbstractSet[str]) -> List[str]:
    """Why a new certificate is needed, as clauses. ``names``: the host names of the current one."""
    if not renewal or not names:
        return ["certbot has none yet"]
    values, webroots = parse_renewal(renewal)
    wanted = {name.lower() for name in request.names}
    differences = []
    if {name.lower() for name in names} != wanted:
        differences.append(f"it is for {_list(names)}, but should be for {_list(wanted)}")
    for what, key, right in (
        ("from the authority", "server", request.server),
        ("by the way of", "authenticator", "webroot"),
        ("with the hook", "renew_hook", request.hook),
    ):
        if values.get(key, "") != right:
            differences.append(f"it is renewed {what} {values.get(key) or 'none'}, but should be {what} {right}")
    folders = set(webroots.values()) or set(_words(values))
    # certbot writes the folder without a trailing slash.
    if values.get("authenticator") == "webroot" and folders != {os.path.normpath(request.webroot)}:
        differences.append(f"its challenges are in {_list(folders)}, but should be in {request.webroot}")
    return differences


def _words(values: Mapping[str, str]) -> List[str]:
    return [word.strip() for word in values.get("webroot_path", "").split(",") if word.strip()]


def _list(names: AbstractSet[str]) -> str:
    return ", ".join(sorted(names)) or "none"
