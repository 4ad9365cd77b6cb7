# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists internal modules apart in docs/reference/index.rst, which antsibull-docs writes. Called by docs/site.sh."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "reference" / "index.rst"
FRAGMENT = "- gpunode.llm.internal\n"
HEADING = """
Internal modules
~~~~~~~~~~~~~~~~

The roles and playbooks of this collection use these. Their options and what they return may change in any release.

"""
#: One line of the list, and after the list the links of the sidebar.
ENTRY = re.compile(r"\* :ansplugin:`(\w+) module <.*\n")
SIDEBAR = re.compile(r"\n\.\. toctree::\n    :maxdepth: 1\n    :hidden:\n\n((?:    \w+_module\n)+)")


def internal() -> set[str]:
    """The modules whose documentation says that they are internal."""
    modules = (CHECKOUT / "plugins" / "modules").glob("*.py")
    return {path.stem for path in modules if FRAGMENT in path.read_text(encoding="utf-8")}


def page(text: str, apart: set[str]) -> str:
    """The index with the modules of `apart` in a section of their own, after the others."""
    listed = {found[1]: found[0] for found in ENTRY.finditer(text)}
    if missing := apart - listed.keys():
        raise ValueError(f"antsibull-docs lists no module {', '.join(sorted(missing))}.")
    rest = ENTRY.sub(lambda found: "" if found[1] in apart else found[0], text)
    section = HEADING + "".join(listed[name] for name in sorted(apart))
    made, sections = SIDEBAR.subn(lambda found: found[0] + section, rest, count=1)
    if not sections:
        raise ValueError("antsibull-docs writes its index in another way than this script reads.")
    return made


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), internal()), encoding="utf-8")
