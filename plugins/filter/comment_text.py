# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: comment_text
short_description: Make free text fit a comment
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Makes one line of a text, so that nothing in it can leave the comment that it stands in.
options:
  _input:
    description: The text.
    type: raw
    required: true
"""

EXAMPLES = r"""
line: "# {{ some_text | gpunode.llm.comment_text }}"
"""

RETURN = r"""
_value:
  description: The text as it must stand in the file.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import quoting


def comment_text(value):
    try:
        return quoting.comment_text(value)
    except ValueError as error:
        raise AnsibleFilterError(f"gpunode.llm.comment_text: {error}") from error


class FilterModule:
    def filters(self):
        return {"comment_text": comment_text}
