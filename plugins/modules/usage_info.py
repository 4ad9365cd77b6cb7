# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: usage_info
short_description: Read the usage that is kept on a gateway's host
version_added: 1.1.0
description:
  - Returns requests and tokens by day, client and model, as the role P(gpunode.llm.usage#role) keeps them.
  - Changes nothing.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  days:
    description: How many days to read, the current one included. A day is one in UTC.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Read the usage of the week
  gpunode.llm.usage_info:
    days: 7
  register: usage
"""

RETURN = r"""
rows:
  description:
    - A dictionary for each day, client and model, with C(day), C(client), C(model), C(requests), C(prompt_tokens) and
      C(generation_tokens).
  type: list
  elements: dict
  returned: always
counted:
  description: Whether usage is counted on this node.
  type: bool
  returned: always
trouble:
  description: A sentence for each day that cannot be read.
  type: list
  elements: str
  returned: always
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import names
from ..module_utils.programs import usage


def main():
    module = AnsibleModule(argument_spec={"days": {"type": "int", "default": 30}}, supports_check_mode=True)
    first = usage.day_of(time.time() - (module.params["days"] - 1) * 86400)
    rows, trouble = usage.kept(names.USAGE_STATE, first)
    counted = os.path.exists(names.USAGE_SETTINGS)
    module.exit_json(changed=False, rows=rows, counted=counted, trouble=trouble)


if __name__ == "__main__":
    main()
