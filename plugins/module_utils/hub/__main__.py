# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the job that ``pull.py`` describes: ``python -m ….module_utils.hub JOB_FOLDER``.

A file of its own: what runs as ``__main__`` has other classes than what is imported by its real name.
"""

from __future__ import annotations

import sys

from . import pull as hub_pull

if __name__ == "__main__":
    raise SystemExit(hub_pull.main(sys.argv[1]))
