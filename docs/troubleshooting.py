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

A play that fails shows one message: what was found, what is needed, and the remedy. This table shows where to
look next.

| it fails in | nothing has changed | what to read |
| --- | --- | --- |
| *Decide what this node serves* | yes | the message, which lists all findings |
| *Install Docker* | | [the role's own table][docker] |
| *Install the NVIDIA Container Toolkit* | | [the role's own table][toolkit] |
| *Download the weights* | | the message, and `journalctl -u 'gpunode-weights-*'` on the node |
| *Start the services* | | the cause below, and `journalctl -eu vllm-NAME` on the node |

Then fix the cause and run the same play again. It continues where it failed.

## When an engine does not start

If an engine ends while the play waits for it, the last lines of its journal are compared with this table
(`plugins/module_utils/programs/diagnosis.py`). An ellipsis stands for a part of the log line.

| cause | remedy |
| --- | --- |
"""
TAIL = """
If no row fits, read the engine's log with `journalctl -u vllm-NAME --since -10min`, and please open an
[issue](https://github.com/gpunode/llm/issues) with it, so that the table can be extended.

[docker]: https://github.com/gpunode/llm/blob/main/roles/docker/README.md
[toolkit]: https://github.com/gpunode/llm/blob/main/roles/nvidia_container_toolkit/README.md
"""


def shown(text: str) -> str:
    """A cause or remedy as a table's cell: an ellipsis for each field, and nothing that ends the cell."""
    literal = re.sub(r"(?<!\{)\{\w+\}(?!\})", "…", text).replace("{{", "{").replace("}}", "}")
    return literal.replace("|", "\\|")


def page() -> str:
    return HEAD + "".join(f"| {shown(symptom.cause)} | {shown(symptom.remedy)} |\n" for symptom in SYMPTOMS) + TAIL


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
