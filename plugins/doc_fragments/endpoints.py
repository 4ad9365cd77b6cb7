# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoints that modules ask, or wait for."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  endpoints:
    description: The endpoints. They are asked together.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: A name for messages.
        type: str
        required: true
      unit:
        description: The systemd unit that serves it, with its suffix. Without it, only the endpoint is asked.
        type: str
      host:
        description: The address that it listens on.
        type: str
        default: 127.0.0.1
      port:
        description: Its port.
        type: int
        default: 8000
      model:
        description: The name under which the model is served.
        type: str
        required: true
      env_file:
        description: A file on the node that holds C(VLLM_API_KEY). The key never leaves the node.
        type: path
      timeout_s:
        description: How long it may take to answer, in seconds.
        type: int
        default: 900
"""
