# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: typed
short_description: Read a variable that may have arrived as text
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - C(-e name=value), the surveys of AWX and C(set_stats) send text. This makes of it what the specification of the
    variable says, and lets pass what is that already.
  - >-
    Booleans are V(true), V(yes), V(on), V(1) and their opposites. Lists are C([a, b]) or C(a,b), and a single word is a
    list of one. Dictionaries are C({a: b}) or C(a=b). Where null is a value, the empty text and V(null) are null.
  - What cannot be read is refused with the name, the value and an example. The value of a secret is not shown.
options:
  _input:
    description: The value.
    type: raw
    required: true
  name:
    description: The variable's name, as the specification of its role or of the playbooks has it.
    type: str
    required: true
  otherwise:
    description:
      - What to give where the value cannot be read, instead of failing. For what is worked out before the first task,
        where a failure is a traceback; M(gpunode.llm.settings_check) refuses the value then.
    type: raw
"""

EXAMPLES = r"""
__vllm_rollback: "{{ vllm_rollback | gpunode.llm.typed('vllm_rollback') }}"
"""

RETURN = r"""
_value:
  description: The value as the specification says.
  type: raw
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import values


def typed(value, name, otherwise=None):
    try:
        return values.typed(name, value)
    except ValueError as error:
        if otherwise is not None:
            return otherwise
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    def filters(self):
        return {"typed": typed}
