# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The number in every JSON that outlives a play: files for other programs, and records on a node.

A reader that knows no number so high refuses the file. A new key raises nothing; a key that means something else does.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

SCHEMA = 1


def numbered(content: Mapping[str, Any]) -> Dict[str, Any]:
    """The content with its number."""
    return {"schema": SCHEMA, **content}


def number_of(content: Mapping[str, Any]) -> Optional[int]:
    """The number of a content; of one that was written before it was called so, its `format`."""
    found = content.get("schema", content.get("format"))
    return found if isinstance(found, int) else None
