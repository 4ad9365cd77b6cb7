# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, which sends two modules to the node in one piece.

DOCUMENTATION = r"""
module: units_ready
short_description: Make sure that services run from the files that are on disk, and answer
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Does what M(gpunode.llm.units_current) does, and then waits as M(gpunode.llm.endpoint_ready) does.
  - Where nothing is due and all endpoints answer, both take one round trip to the node together.
attributes:
  action:
    description: Runs on the controller and calls both modules on the node.
    support: full
  check_mode:
    description: Says which units would be started or restarted. An endpoint that does not answer is no failure then.
    support: full
  diff_mode:
    description: Shows the action for each unit, with its reason.
    support: full
options:
  units:
    description: The units, as M(gpunode.llm.units_current) takes them.
    type: list
    elements: dict
    required: true
  would_change:
    description: Files that this play would have changed, if it were not in check mode.
    type: list
    elements: path
    default: []
  endpoints:
    description: What they serve, as M(gpunode.llm.endpoint_ready) takes it.
    type: list
    elements: dict
    required: true
seealso:
  - module: gpunode.llm.units_current
  - module: gpunode.llm.endpoint_ready
"""

EXAMPLES = r"""
- name: Run what is on disk, until it answers
  gpunode.llm.units_ready:
    units:
      - name: vllm-8b.service
        files: [/etc/vllm/8b.yaml, /etc/vllm/8b.env, /etc/systemd/system/vllm-8b.service]
        started_from: /run/vllm-8b/started-from
    endpoints:
      - name: 8b
        unit: vllm-8b.service
        port: 8000
        model: meta-llama/Llama-3.1-8B-Instruct
"""

RETURN = r"""
units:
  description: What was done, for each unit, as M(gpunode.llm.units_current) returns it.
  type: list
  elements: dict
  returned: always
endpoints:
  description: How each endpoint is, as M(gpunode.llm.endpoint_ready) returns it.
  type: list
  elements: dict
  returned: success
diagnosis:
  description: Why it will not answer, where that is known.
  type: dict
  returned: failure
log:
  description: The last lines of the journal that say something.
  type: list
  elements: str
  returned: failure
"""
