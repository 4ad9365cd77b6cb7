# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since no node is asked.

DOCUMENTATION = r"""
module: gateway_key
short_description: Make, list and revoke keys of the gateway in a file on the controller
version_added: 1.1.0
author:
  - gpunode contributors (@gpunode)
description:
  - Keeps C(gateway_keys) in a file on the controller, with the digest of each key and without the key.
  - Shows a new key once, on the screen. It is neither in the result nor in Ansible's log.
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  action:
    description: Runs on the controller alone.
    support: full
  check_mode:
    description: Makes no key and changes no file.
    support: full
  diff_mode:
    description: Shows no difference.
    support: none
options:
  file:
    description: The file.
    type: path
    required: true
  make:
    description: The client to make a key for.
    type: str
  revoke:
    description: The client whose key is revoked. It cannot be combined with O(make).
    type: str
  limits:
    description: What a new key may do. What is not set is not limited.
    type: dict
    default: {}
    suboptions:
      models:
        description: The models that it may use.
        type: list
        elements: str
      requests_per_second:
        description: Requests per second.
        type: int
      tokens_per_day:
        description: Tokens by the day, in and out.
        type: int
      expires:
        description: The last day on which it is valid, in UTC.
        type: str
      note:
        description: A note.
        type: str
"""

EXAMPLES = r"""
- name: Make a key
  gpunode.llm.gateway_key:
    file: keys.yml
    make: ada
    limits:
      expires: "2027-01-31"
"""

RETURN = r"""
clients:
  description: The clients that have a key.
  type: list
  elements: str
  returned: success
"""
