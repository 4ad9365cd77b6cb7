# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded figures of pipeline stages are what the engine says, and it cuts the layers as the planner does."""

from __future__ import annotations

import shapes
import stages
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import even_cut

#: Ends on each stage, ends apart, a head that is the embedding.
KINDS = ("mistralai/Mixtral-8x7B-v0.1", "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.2-1B-Instruct")


def test_the_engine_still_gives_the_recorded_stages() -> None:
    recorded = [record for record in shapes.read(stages.FIGURES) if record["repo_id"] in KINDS]
    assert {record["repo_id"] for record in recorded} == set(KINDS)
    assert stages.ask("0.33.0", recorded) == recorded


def test_the_layers_are_cut_as_the_engine_cuts_them() -> None:
    """Each layer of these models has a cache."""
    for record in shapes.read(stages.FIGURES):
        if record["repo_id"] in KINDS:
            config = next(
                line["config"] for line in shapes.read(shapes.CONFIGS) if line["repo_id"] == record["repo_id"]
            )
            cut = even_cut(config["num_hidden_layers"], record["pipeline_parallel"])
            assert record["cached_layers"] == cut[record["stage"]]


def test_a_cut_of_the_users_is_taken() -> None:
    (name,) = KINDS[1:2]
    wanted = {"repo_id": name, "tensor_parallel": 1, "pipeline_parallel": 3, "stage": 0, "partition": "10,12,10"}
    (answer,) = stages.ask("0.33.0", [wanted])
    assert answer["cached_layers"] == 10
