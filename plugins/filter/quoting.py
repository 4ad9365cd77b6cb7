# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that quote a text by the rules of the file it stands in. NAME.yml in this folder documents filter NAME."""

from __future__ import annotations

from ..plugin_utils import quoting
from ..plugin_utils.refusal import refusing

FILTERS = (
    quoting.bind_mount,
    quoting.comment_text,
    quoting.env_file,
    quoting.mount_units,
    quoting.nginx_text,
    quoting.unit_arg,
    quoting.unit_text,
)


class FilterModule:
    def filters(self):
        return {function.__name__: refusing(function.__name__, function) for function in FILTERS}
