# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recorded figures of the engine are what the engine says."""

from __future__ import annotations

import shapes

#: One of each kind: plain, window, chunk, state, MLA, sparse MLA, encoder and decoder, without a cache.
KINDS = [
    "Qwen/Qwen3-8B",
    "google/gemma-2-9b",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "deepseek-ai/DeepSeek-V2-Lite",
    "deepseek-ai/DeepSeek-V3.2",
    "openai/whisper-tiny",
    "BAAI/bge-large-en",
]


def test_the_engine_still_gives_the_recorded_figures():
    recorded = {shapes.key(record): record for record in shapes.read(shapes.FIGURES)}
    answers = shapes.ask("0.33.0", shapes.cases(KINDS))
    assert len(answers) == len(KINDS) * len(shapes.WIDTHS)
    for record in answers:
        assert record == recorded[shapes.key(record)]
