# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the lab's tiny Llama into the hub's folder: ``python3 make_tiny.py ROOT``.

Runs inside the lab's vLLM image (torch, transformers, tokenizers). The same image gives the same bytes, so the commit,
which the hub derives from the content, stays as it was and a node that has the model keeps it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

REPOSITORIES: dict[str, dict[str, Any]] = {
    "gpunode/tiny-llama": {},
    "gpunode/tiny-llama-gated": {"gated": "manual"},
    "gpunode/tiny-llama-private": {"private": True},
}
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
VOCABULARY = 512
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    # 256 bytes, a name for every id up to the vocabulary's end, and the five special ones: no merges, so nothing that
    # a training run could order differently.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fill = [f"<|unused_{n}|>" for n in range(VOCABULARY - len(alphabet) - len(SPECIAL))]
    vocabulary = {token: index for index, token in enumerate(alphabet + fill + SPECIAL)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=SPECIAL[0], eos_token=SPECIAL[4], pad_token=SPECIAL[1], model_max_length=2048
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def write_model(folder: Path) -> None:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(20_260_101)
    torch.set_num_threads(1)
    bos, eos = VOCABULARY - len(SPECIAL), VOCABULARY - 1
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        bos_token_id=bos,
        eos_token_id=eos,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=bos, eos_token_id=eos, do_sample=False)
    model.save_pretrained(folder, safe_serialization=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the lab's tiny Llama")
    parser.add_argument("root", type=Path, help="folder of ORG/NAME/ repositories, as the hub serves it")
    root = parser.parse_args().root
    first: Path | None = None
    for repo_id, settings in REPOSITORIES.items():
        folder = root / repo_id
        shutil.rmtree(folder, ignore_errors=True)
        if first is None:
            folder.mkdir(parents=True)
            write_model(folder)
            write_tokenizer(folder)
            # Every Llama of Meta's carries its weights twice; a client that does not leave these out fetches them.
            original = folder / "original"
            original.mkdir()
            (original / "params.json").write_text(json.dumps({"dim": 256, "n_layers": 2}) + "\n")
            (original / "consolidated.00.pth").write_bytes(bytes(range(256)) * 4096)
            first = folder
        else:
            shutil.copytree(first, folder)
        if settings:
            (folder / ".hub.json").write_text(json.dumps(settings) + "\n")
        print(f"{repo_id}: {sum(p.stat().st_size for p in folder.rglob('*') if p.is_file())} bytes")


if __name__ == "__main__":
    main()
