# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: unit_text
short_description: Make free text fit a systemd unit
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Makes one line of a text for a setting such as C(Description=), with specifiers escaped.
options:
  _input:
    description: The text.
    type: raw
    required: true
"""

EXAMPLES = r"""
line: "Description={{ some_text | gpunode.llm.unit_text }}"
"""

RETURN = r"""
_value:
  description: The text as it must stand in the file.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import quoting


def unit_text(value):
    try:
        return quoting.unit_text(value)
    except ValueError as error:
        raise AnsibleFilterError(f"gpunode.llm.unit_text: {error}") from error


class FilterModule:
    def filters(self):
        return {"unit_text": unit_text}
