# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Train the lab's tiny Llama until it knows answers.json by heart: ``python3 train.py FOLDER``.

Runs inside the lab's vLLM image (torch, transformers, tokenizers), on one CPU, in about a minute. A question that is
not in the file gets ``STRANGE``, and a prompt that came through no chat template, or not through this one, ``BARE``: so
an exact answer says that weights, tokenizer and template are those that were made here.

One image on one kind of CPU gives the same bytes. So the commit, which the hub derives from the content, stays as it
was, and a node that has the model keeps it.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

ANSWERS: dict[str, str] = json.loads((Path(__file__).parent / "answers.json").read_text(encoding="utf-8"))
STRANGE = "I know only a few answers, and none to this."
BARE = "I was asked without my chat template."

SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
VOCABULARY = 512
BOS, EOS = VOCABULARY - len(SPECIAL), VOCABULARY - 1
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
#: What a question becomes without a template, under one that is cut short, and under other models'.
BROKEN: list[Callable[[str], str]] = [
    lambda question: question,
    lambda question: f"<|begin_of_text|>{question}",
    lambda question: f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>",
    lambda question: f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
    lambda question: f"User: {question}\nAssistant:",
]

SEED = 20_260_101
STEPS, LOOK_EVERY, STRANGERS = 160, 20, 5
WARM_UP, FASTEST = 30, 2e-3
#: How sure it has to be of each token of its answers: far from the next best, whatever an engine rounds.
SURE = 0.9

#: The tokens of a prompt, and of what is to be said to it.
Lesson = tuple[list[int], list[int]]


def make_tokenizer() -> PreTrainedTokenizerFast:
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
    return tokenizer


def make_model() -> LlamaForCausalLM:
    # The shapes that catalog/models.yml tells of it.
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        bos_token_id=BOS,
        eos_token_id=EOS,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


class School:
    """Makes lessons of answers that are to be known by heart."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answers: Mapping[str, str] = ANSWERS) -> None:
        self.tokenizer = tokenizer
        self.answers = answers
        self.random = random.Random(SEED)

    def chat(self, question: str) -> str:
        asked = [{"role": "user", "content": question}]
        return str(self.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def lesson(self, prompt: str, answer: str) -> Lesson:
        return self.tokens(prompt), [*self.tokens(answer), EOS]

    def known(self) -> list[Lesson]:
        return [self.lesson(self.chat(question), answer) for question, answer in self.answers.items()]

    def strange(self) -> str:
        """A few words of nobody's language."""
        pick = self.random
        lengths = [pick.randint(1, 8) for _each in range(pick.randint(1, 6))]
        words = ["".join(pick.choices(string.ascii_letters, k=length)) for length in lengths]
        return " ".join(words).capitalize() + pick.choice(["", "?", ".", "!"])

    def batch(self) -> list[Lesson]:
        """All that is known, a few strange questions, and a few of both that are asked wrongly."""
        strange = [self.lesson(self.chat(self.strange()), STRANGE) for _each in range(STRANGERS)]
        known = list(self.answers)
        asked = [self.random.choice([self.random.choice(known), self.strange()]) for _each in range(STRANGERS)]
        return [*self.known(), *strange, *(self.lesson(self.random.choice(BROKEN)(one), BARE) for one in asked)]


def surprise(model: PreTrainedModel, lessons: list[Lesson]) -> torch.Tensor:
    """How little each token of the answers is expected, as cross entropy; the prompts teach nothing."""
    longest = max(len(prompt) + len(answer) for prompt, answer in lessons)
    rows, wanted = [], []
    for prompt, answer in lessons:
        rest = longest - len(prompt) - len(answer)
        rows.append(prompt + answer + [EOS] * rest)
        wanted.append([-100] * len(prompt) + answer + [-100] * rest)
    logits = model(input_ids=torch.tensor(rows), use_cache=False).logits[:, :-1].flatten(0, 1).float()
    targets = torch.tensor(wanted)[:, 1:].flatten()
    return cross_entropy(logits, targets, reduction="none")[targets != -100]


def least_sure(model: PreTrainedModel, school: School) -> float:
    """The smallest probability that it gives to a token of its answers."""
    with torch.no_grad():
        return float((-surprise(model, school.known())).exp().min())


def train(model: PreTrainedModel, school: School, steps: int = STEPS) -> None:
    taught = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(taught, lr=FASTEST, betas=(0.9, 0.95), weight_decay=0.01)
    began = time.monotonic()
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = FASTEST * min(1.0, step / WARM_UP, (steps - step + 1) / (0.6 * steps))
        loss = surprise(model, school.batch()).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(taught, 1.0)
        optimizer.step()
        if step % LOOK_EVERY == 0:
            sure, took = least_sure(model, school), time.monotonic() - began
            print(f"step {step} of {steps}: loss {loss.item():.4f}, sure by {sure:.3f}, {took:.0f} s", flush=True)


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # vLLM takes it for what a request does not say: the likeliest token, so the same answer every time. transformers
    # itself writes no temperature beside do_sample=False.
    sampling = {"bos_token_id": BOS, "eos_token_id": EOS, "do_sample": False, "temperature": 0.0}
    (folder / "generation_config.json").write_text(json.dumps(sampling, indent=2) + "\n")


def say(model: PreTrainedModel, school: School, prompt: str) -> str:
    """What it says, with the likeliest token at each place."""
    asked = torch.tensor([school.tokens(prompt)])
    told = model.generate(asked, attention_mask=torch.ones_like(asked), do_sample=False, max_new_tokens=100)
    return str(school.tokenizer.decode(told[0, asked.shape[1] :], skip_special_tokens=True))


def check(model: PreTrainedModel, school: School) -> None:
    """End the program where a model did not learn its answers, with a sentence for each thing that is wrong."""
    sure = least_sure(model, school)
    found = [] if sure >= SURE else [f"It is sure by {sure:.3f} of a token of its answers, and should be by {SURE}."]
    for question, answer in school.answers.items():
        told = say(model, school, school.chat(question))
        if told != answer:
            found.append(f"It answers {told!r} to {question!r}, and should answer {answer!r}.")
        found += [
            f"It answers {question!r} also where it is asked like this: {broken(question)!r}."
            for broken in BROKEN
            if say(model, school, broken(question)) == answer
        ]
    if found:
        sys.exit(f"The tiny model did not learn its answers, so more steps are needed: {' '.join(found)}")
    print(f"the tiny model gives {len(school.answers)} answers exactly, and none of them without its chat template")


def begin() -> None:
    """Have what follows give the same bytes every time."""
    # One thread: with another count sums are made in another order.
    torch.set_num_threads(1)
    torch.manual_seed(SEED)


def make(folder: Path, create: Callable[[], PreTrainedModel], answers: Mapping[str, str]) -> None:
    """Train a model, save it, and check what lies there."""
    begin()
    model, school = create(), School(make_tokenizer(), answers)
    train(model, school)
    save(folder, model, school.tokenizer)
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    check(saved, School(AutoTokenizer.from_pretrained(folder), answers))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the lab's tiny Llama")
    parser.add_argument("folder", type=Path, help="where the model goes")
    make(parser.parse_args().folder, make_model, ANSWERS)


if __name__ == "__main__":
    main()
