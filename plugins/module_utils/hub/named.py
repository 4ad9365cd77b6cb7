# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask for models by their names, with the access to the hub that weights have: on the node, or on the controller."""

from __future__ import annotations

import time
from typing import Any, Dict, Mapping

from ..hub import opener as hub_opener, token as hub_token
from .api import Hub
from .described import Wanted, describe
from .folder import Folder

TIMEOUT_S = 20.0
#: The options of whoever asks; the defaults are those of hf_snapshot.
OPTIONS: Mapping[str, Any] = {
    "models": {"type": "list", "elements": "dict", "required": True},
    "home": {"type": "path", "default": "/var/lib/huggingface"},
    "endpoint": {"type": "str", "default": "https://huggingface.co"},
    "source": {"type": "path"},
    "token": {"type": "str", "no_log": True},
    "token_path": {"type": "path", "default": "/etc/huggingface/token"},
    "ca_path": {"type": "path"},
    "update": {"type": "bool", "default": False},
}


def answer(params: Mapping[str, Any]) -> Dict[str, Any]:
    """What each of the models is, by its name."""
    wanted = [Wanted.read(raw) for raw in params["models"]]
    if params["source"]:
        hub: Any = Folder(params["source"], [])
    else:
        token = hub_token.in_force(params["token"], params["token_path"])
        hub = Hub(params["endpoint"], hub_opener.opener(TIMEOUT_S, params["ca_path"]), time.sleep, token)
    return {"models": describe(wanted, hub, params["home"], params["update"])}
