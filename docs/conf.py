# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx: the site is these pages, and one for each plugin and role, which antsibull-docs writes. See `make site`."""

from pathlib import Path

import yaml

GALAXY = yaml.safe_load((Path(__file__).resolve().parents[1] / "galaxy.yml").read_text())

project = f"{GALAXY['namespace']}.{GALAXY['name']}"
version = release = GALAXY["version"]
author = copyright = "gpunode contributors"
html_title = f"{project} {version}"

extensions = ["myst_parser", "sphinx_antsibull_ext"]
exclude_patterns = ["_build", "_planner", "_pyodide"]
# What the page of the planner loads, made by planner/make.py.
html_extra_path = ["_planner"]
html_theme = "furo"
html_theme_options = {
    "source_repository": GALAXY["repository"],
    "source_branch": "main",
    "source_directory": "docs/",
}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# The generated pages refer to labels of Ansible's own documentation, which a build without a network cannot look up.
# Links between the guides are checked all the same: those are MyST's.
suppress_warnings = ["ref.ref"]
