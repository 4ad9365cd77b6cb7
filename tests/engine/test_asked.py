# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node asks its image before a service is stopped, asked of the release that the lab serves with, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prepare import BASE, prepare

HERE = Path(__file__).resolve().parent
#: 4 layers of 2 KV heads of 32, in BF16: 1 KiB of KV cache for a token.
DENSE: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "dtype": "bfloat16",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
MIXTURE = {
    **DENSE,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "head_dim": 32,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
}
CONTEXT = 4096
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "whole": (DENSE, {"max-model-len": CONTEXT}),
    "half": (DENSE, {"max-model-len": CONTEXT, "tensor-parallel-size": 2}),
    "replicas": (DENSE, {"max-model-len": CONTEXT, "data-parallel-size": 2}),
    "engine's context": (DENSE, {"max-model-len": "auto"}),
    "stages": (DENSE, {"pipeline-parallel-size": 2}),
    "quantised": (DENSE, {"quantization": "fp8"}),
    "mixture": (MIXTURE, {"max-model-len": CONTEXT}),
    "shared experts": (MIXTURE, {"data-parallel-size": 2}),
    "too long": (DENSE, {"max-model-len": 65536}),
}


def linear() -> int:
    """Parameters of DENSE's matrices, which TP cuts in halves."""
    hidden, inner, kv = DENSE["hidden_size"], DENSE["intermediate_size"], 64
    layer = 2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner
    return int(DENSE["num_hidden_layers"] * layer + DENSE["vocab_size"] * hidden)


def test_what_the_engine_answers() -> None:
    cases = [{"hf": hf, "options": options} for hf, options in CASES.values()]
    done = prepare(BASE).run(HERE / "_ask.py", json.dumps(cases))
    assert done.returncode == 0, done.stderr[-3000:]
    answers = dict(zip(CASES, json.loads(done.stdout)))
    token = 4 * 2 * 2 * 32 * 2
    assert answers["whole"]["request_bytes"] == CONTEXT * token
    assert (answers["whole"]["max_model_len"], answers["whole"]["device"]) == (CONTEXT, "cpu")
    small = answers["whole"]["weights_bytes"] - 2 * linear()  # norms and biases
    assert 0 < small < 0.01 * answers["whole"]["weights_bytes"]
    assert answers["half"]["request_bytes"] == CONTEXT * token // 2
    assert linear() < answers["half"]["weights_bytes"] < linear() + small
    assert answers["replicas"] == answers["whole"]
    assert answers["engine's context"] == {**answers["whole"], "request_bytes": None, "max_model_len": 32768}
    assert answers["mixture"]["weights_bytes"] > 4 * 8 * 3 * 256 * 64 * 2
    assert answers["stages"] == {"cannot": "ValueError: the stages of a pipeline are not built here"}
    assert "quantises when it loads" in answers["quantised"]["cannot"]
    assert answers["shared experts"] == {"cannot": "ValueError: experts that replicas share are not built here"}
    assert "65536" in answers["too long"]["cannot"]
