# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node serves and no list names."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.listed import listed, sentence, unlisted


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["8b"], {"8b"}),
        (["meta-llama/Llama-3.1-8B-Instruct", {"model": "70b", "name": "Large One"}], {"8b", "large-one"}),
        # Nothing is said of a list that is not there, or not understood.
        ([], None),
        (["no-such-model"], None),
        (["8b", "no-such-model"], None),
    ],
)
def test_the_names_of_a_list(models: list[Any], names: set[str] | None) -> None:
    assert listed(models) == names


def test_those_that_no_list_names() -> None:
    assert unlisted(["b", "a", "c"], ["c"]) == ["a", "b"]
    assert sentence([]) == ""
    assert sentence(["a"]) == "a is no longer listed and stays: -e vllm_remove_unlisted=true removes it."
    assert sentence(["a", "b", "c"]).startswith("a, b and c are no longer listed and stay: ")
