# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site's index lists what users may use, and apart from it what is internal."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
# As antsibull-docs 2.28 writes it.
INDEX = """\
Modules
~~~~~~~

* :ansplugin:`gpu_info module <gpunode.llm.gpu_info#module>` -- Report the NVIDIA GPUs of a node
* :ansplugin:`node_lock module <gpunode.llm.node_lock#module>` -- Lock a node
* :ansplugin:`rpm_source module <gpunode.llm.rpm_source#module>` -- A dnf repository

.. toctree::
    :maxdepth: 1
    :hidden:

    gpu_info_module
    node_lock_module
    rpm_source_module

.. _filter_plugins_in_gpunode.llm:

Filter Plugins
~~~~~~~~~~~~~~

* :ansplugin:`typed filter <gpunode.llm.typed#filter>` -- Read a variable
"""


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("maker", DOCS / "reference_index.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_internal_modules_are_listed_apart(maker: ModuleType) -> None:
    public, rest = maker.page(INDEX, {"node_lock"}).split("Internal modules\n")
    internal, filters = rest.split("Filter Plugins\n")
    assert "gpu_info module" in public
    assert "rpm_source module" in public
    assert "node_lock module" not in public
    assert internal.count(":ansplugin:") == 1
    assert "* :ansplugin:`node_lock module <gpunode.llm.node_lock#module>` -- Lock a node\n" in internal
    assert "typed filter" in filters
    # Its page is still a page of the site.
    assert "    node_lock_module\n" in public


@pytest.mark.parametrize(("text", "apart"), [(INDEX, {"gone"}), ("Modules\n", set())])
def test_another_form_of_the_index_is_refused(maker: ModuleType, text: str, apart: set[str]) -> None:
    with pytest.raises(ValueError, match="antsibull-docs"):
        maker.page(text, apart)


def test_internal_modules_document_that_they_are_internal(maker: ModuleType) -> None:
    assert {"node_lock", "rendered_files"} <= maker.internal()
    assert {"gpu_info", "serving_plan"} & maker.internal() == set()


def test_the_site_is_built_with_it() -> None:
    script = (DOCS / "site.sh").read_text(encoding="utf-8")
    assert script.index("antsibull-docs collection") < script.index("reference_index.py") < script.index("sphinx-build")
