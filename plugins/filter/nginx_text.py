# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: nginx_text
short_description: Quote a text in nginx's configuration
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Puts a text into quotes so that nginx reads it as one word, whatever it holds. Where nginx looks for variables, a
    dollar still begins one. Messages never show the text.
options:
  _input:
    description: The text.
    type: raw
    required: true
"""

EXAMPLES = r"""
line: "ssl_certificate {{ '/srv/my certificate.pem' | gpunode.llm.nginx_text }};"
"""

RETURN = r"""
_value:
  description: The text as it must stand in the file.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ..plugin_utils import gateway


def nginx_text(value):
    try:
        return gateway.nginx_text(value)
    except ValueError as error:
        raise AnsibleFilterError(f"gpunode.llm.nginx_text: {error}") from error


class FilterModule:
    def filters(self):
        return {"nginx_text": nginx_text}
