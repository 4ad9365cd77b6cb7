# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the certificate that certbot keeps, and how it renews it, is what was asked for.

certbot writes down how it renews each certificate. What it does not write down is whom the authority may write to, so
that is noted beside it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import AbstractSet, Dict, List, Mapping, Sequence, Tuple

#: The name of the gateway's certificate in certbot, for any server names.
LINEAGE = "gpunode-gateway"


@dataclass(frozen=True)
class Asked:
    names: Sequence[str]
    server: str
    webroot: str
    hook: str
    email: str

    @property
    def note(self) -> str:
        """The line that is written down once the authority knows it."""
        return f"{self.server} {self.email}\n"


def parse_renewal(text: str) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Of certbot's renewal file the parameters, and for each name the folder of its challenges."""
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


def differs(asked: Asked, renewal: str, names: AbstractSet[str]) -> List[str]:
    """Why certbot is to be asked for a certificate, a clause each. ``names``: those of the one that it keeps."""
    if not renewal or not names:
        return ["certbot has none yet"]
    values, webroots = parse_renewal(renewal)
    wanted = {name.lower() for name in asked.names}
    found = []
    if {name.lower() for name in names} != wanted:
        found.append(f"it is for {_list(names)}, and is to be for {_list(wanted)}")
    for what, key, right in (
        ("from the authority", "server", asked.server),
        ("by the way of", "authenticator", "webroot"),
        ("with the hook", "renew_hook", asked.hook),
    ):
        if values.get(key, "") != right:
            found.append(f"it is renewed {what} {values.get(key) or 'none'}, and is to be {what} {right}")
    folders = set(webroots.values()) or set(_words(values))
    # certbot writes a folder without the slash that may end it.
    if values.get("authenticator") == "webroot" and folders != {os.path.normpath(asked.webroot)}:
        found.append(f"its challenges are put into {_list(folders)}, and are to be put into {asked.webroot}")
    return found


def _words(values: Mapping[str, str]) -> List[str]:
    return [word.strip() for word in values.get("webroot_path", "").split(",") if word.strip()]


def _list(names: AbstractSet[str]) -> str:
    return ", ".join(sorted(names)) or "none"
