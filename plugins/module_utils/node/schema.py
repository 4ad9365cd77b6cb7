# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema number in every JSON that outlives a play: files for other programs, and records on a node.

A reader rejects a file with a higher number than it knows. A new key keeps the number; a changed meaning raises it.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

SCHEMA = 1


def numbered(content: Mapping[str, Any]) -> Dict[str, Any]:
    """The content with its schema number."""
    return {"schema": SCHEMA, **content}


def number_of(content: Mapping[str, Any]) -> Optional[int]:
    """The schema number of a content, or its `format`, the key's earlier name."""
    number = content.get("schema", content.get("format"))
    return number if isinstance(number, int) else None
