# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: unit_arg
short_description: Quote one argument of a command in a systemd unit
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Quotes a value so that systemd hands it to the program as one argument, unchanged, whatever it holds.
options:
  _input:
    description: The argument.
    type: raw
    required: true
"""

EXAMPLES = r"""
line: "ExecStart=/usr/bin/echo {{ some_text | gpunode.llm.unit_arg }}"
"""

RETURN = r"""
_value:
  description: The text as it must stand in the file.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import quoting


def unit_arg(value):
    try:
        return quoting.unit_arg(value)
    except ValueError as error:
        raise AnsibleFilterError(f"gpunode.llm.unit_arg: {error}") from error


class FilterModule:
    def filters(self):
        return {"unit_arg": unit_arg}
