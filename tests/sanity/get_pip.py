# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What get-pip.py does, with the wheel that lies beside this file: `pip install` into a venv that has no pip yet.

ansible-test fetches get-pip.py from a host of its own, which a site with nothing but a mirror of PyPI does not reach.
"""

from __future__ import annotations

import glob
import os
import runpy
import sys

(wheel,) = glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "pip-*.whl"))
# Two options of get-pip.py's own: with no setuptools and no wheel asked for, there are none.
asked = [arg for arg in sys.argv[1:] if arg not in ("--no-setuptools", "--no-wheel")]
sys.path.insert(0, wheel)
sys.argv = ["pip", "install", *asked]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
