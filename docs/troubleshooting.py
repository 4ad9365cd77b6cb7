# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/troubleshooting.md from the table that names an engine's causes: python docs/troubleshooting.py"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "troubleshooting.md"
# Lets this be run from a checkout as it is.
runpy.run_path(str(CHECKOUT / "tests" / "unit" / "conftest.py"))

from ansible_collections.gpunode.llm.plugins.module_utils.programs.diagnosis import SYMPTOMS

HEAD = """# Troubleshooting, by message

A play stops with one sentence: what is there, what is needed, what would work. Where it stops tells where to look.

| it stops in | nothing has changed | what to read |
| --- | --- | --- |
| *Decide what this node serves* | yes | the message: it lists all findings at once |
| *Install Docker* | | [the role's own table][docker] |
| *Install the NVIDIA Container Toolkit* | | [the role's own table][toolkit] |
| *Download the weights* | | the message, and `journalctl -u 'gpunode-weights-*'` on the node |
| *Start the services* | | the cause below, and `journalctl -eu vllm-NAME` on the node |

After any of them: mend it and run the same play again. It goes on where it was.

## When an engine does not start

The wait for an endpoint ends as soon as its unit does, and the last lines of its journal are compared with this table,
which is `plugins/module_utils/programs/diagnosis.py`. An ellipsis stands for what the log names.

| cause | remedy |
| --- | --- |
"""
TAIL = """
Nothing of this fits? `journalctl -u vllm-NAME --since -10min` has all that the engine said, and an
[issue](https://github.com/gpunode/llm/issues) with it makes the table longer.

[docker]: https://github.com/gpunode/llm/blob/main/roles/docker/README.md
[toolkit]: https://github.com/gpunode/llm/blob/main/roles/nvidia_container_toolkit/README.md
"""


def shown(text: str) -> str:
    """A cause or remedy as a table's cell: an ellipsis for each field, and nothing that ends the cell."""
    literal = re.sub(r"(?<!\{)\{\w+\}(?!\})", "…", text).replace("{{", "{").replace("}}", "}")
    return literal.replace("|", "\\|")


def page() -> str:
    return HEAD + "".join(f"| {shown(one.cause)} | {shown(one.remedy)} |\n" for one in SYMPTOMS) + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
