# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that read what a user gives. NAME.yml in this folder documents filter NAME."""

from __future__ import annotations

import os

from ansible.errors import AnsibleFilterError

from ..plugin_utils import values


def typed(value, name, otherwise=None):
    try:
        return values.typed(name, value)
    except ValueError as error:
        if otherwise is not None:
            return otherwise
        raise AnsibleFilterError(str(error)) from None


def from_here(path):
    return os.path.abspath(os.path.expanduser(str(path))) if path else ""


class FilterModule:
    def filters(self):
        return {"from_here": from_here, "typed": typed}
