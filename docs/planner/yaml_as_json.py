# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module `yaml` in the browser: make.py writes the collection's YAML files as JSON, which is read at once."""

from __future__ import annotations

import json
from typing import Any

SafeLoader = BaseLoader = None


class YAMLError(ValueError):
    """What PyYAML raises."""


def load(stream: Any, Loader: Any) -> Any:
    """The content of a file, or of its text."""
    try:
        return json.loads(stream if isinstance(stream, str) else stream.read())
    except ValueError as error:
        raise YAMLError(str(error)) from None
