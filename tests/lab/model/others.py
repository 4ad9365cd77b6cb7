# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the lab's models that no catalogue knows: ``python3 others.py LLAMA FOLDER``.

Below FOLDER: tiny-moe, a mixture of experts like Qwen's, which knows answers as the tiny Llama does; tiny-lora, an
adapter of the tiny Llama in the folder LLAMA, with which it answers otherwise; tiny-embedding, an embedding model like
Qwen's with random weights, and what transformers itself makes of a few texts (embeddings.json).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from train import ANSWERS, BOS, EOS, VOCABULARY, School, begin, check, make, make_tokenizer, train
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    Qwen3Config,
    Qwen3Model,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

OTHER: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "other_answers.json").read_text("utf-8"))
RANK, ALPHA, ADAPTER_STEPS = 8, 32, 60
#: What the adapter is beside, as peft names it.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TEXTS = ("The GPU is warm.", "Die Welt kostet nichts.", "1 + 1 = 2")
#: Wide enough for a text to tell: with what models are trained from, all texts have nearly the same embedding.
SPREAD = 0.2
SHAPES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


def make_moe() -> PreTrainedModel:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "norm_topk_prob": True}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SHAPES, **experts, tie_word_embeddings=False))


class Adapted(torch.nn.Module):
    """A projection with the product of two thin matrices beside it; at first it adds nothing."""

    def __init__(self, projection: torch.nn.Linear) -> None:
        super().__init__()
        self.projection = projection
        self.first = torch.nn.Parameter(torch.randn(RANK, projection.in_features) / projection.in_features**0.5)
        self.second = torch.nn.Parameter(torch.zeros(projection.out_features, RANK))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.projection(given) + (given @ self.first.T @ self.second.T) * (ALPHA / RANK)


def adapt(model: PreTrainedModel) -> dict[str, Adapted]:
    """Put an adapter beside every projection of a model, and leave nothing else to be taught."""
    model.requires_grad_(False)
    found = [(name, part) for name, part in model.named_modules() if name.endswith(TARGETS)]
    added = {name: Adapted(part) for name, part in found}
    for name, part in added.items():
        model.set_submodule(name, part)
    return added


def make_lora(base: Path, folder: Path) -> None:
    begin()
    answers = {**ANSWERS, **OTHER["tiny-lora"]}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    school = School(AutoTokenizer.from_pretrained(base), answers)
    added = adapt(model)
    train(model, school, ADAPTER_STEPS)
    check(model.to(torch.bfloat16), school)
    folder.mkdir(parents=True)
    tensors = {}
    for name, part in added.items():
        for key, weights in (("lora_A", part.first), ("lora_B", part.second)):
            tensors[f"base_model.model.{name}.{key}.weight"] = weights.detach().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "gpunode/tiny-llama",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(TARGETS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(told, indent=2) + "\n")


def make_embedding(folder: Path) -> None:
    begin()
    tokenizer = make_tokenizer()
    model = Qwen3Model(Qwen3Config(**SHAPES, tie_word_embeddings=True, initializer_range=SPREAD)).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # As Qwen's own: the name of the model that makes tokens, and sentence-transformers' word for what this one is.
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Qwen3ForCausalLM"]}, indent=2) + "\n")
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    told = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(told, indent=2) + "\n")
    pooling = {"word_embedding_dimension": SHAPES["hidden_size"], "pooling_mode_lasttoken": True}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")
    embeddings = {}
    for text in TEXTS:
        tokens = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        with torch.no_grad():
            last = model.float()(input_ids=tokens).last_hidden_state[0, -1]
        embeddings[text] = [round(float(one), 5) for one in last / last.norm()]
    (folder / "embeddings.json").write_text(json.dumps(embeddings) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the lab's models that no catalogue knows")
    parser.add_argument("llama", type=Path, help="where the tiny Llama lies")
    parser.add_argument("folder", type=Path, help="where they go, each in a folder of its own")
    told = parser.parse_args()
    make(told.folder / "tiny-moe", make_moe, {**ANSWERS, **OTHER["tiny-moe"]})
    make_lora(told.llama, told.folder / "tiny-lora")
    make_embedding(told.folder / "tiny-embedding")


if __name__ == "__main__":
    main()
