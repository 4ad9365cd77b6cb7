# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's tiny model is the one that the catalogue tells of, and what it says is compared to the letter."""

from __future__ import annotations

import ast
import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils.service import vllm_curl

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "tests" / "lab"))

from answers import ANSWERS, answers_of, ask, wrong

TRAIN = ast.parse((CHECKOUT / "tests/lab/model/train.py").read_text(encoding="utf-8"))


def test_it_has_the_shapes_of_the_catalogue() -> None:
    """Read from its text: without torch it cannot be imported."""
    config = yaml.safe_load((CHECKOUT / "catalog/models.yml").read_text(encoding="utf-8"))["models"]["tiny"]["config"]
    calls = [node for node in ast.walk(TRAIN) if isinstance(node, ast.Call)]
    (made,) = [call for call in calls if ast.unparse(call.func) == "LlamaConfig"]
    words = {word.arg: ast.unparse(word.value) for word in made.keywords}
    named = {
        ast.unparse(node.targets[0]): ast.unparse(node.value) for node in TRAIN.body if isinstance(node, ast.Assign)
    }
    shapes = {key: str(value) for key, value in config.items() if key != "architectures"}
    assert {key: named.get(words[key], words[key]) for key in shapes} == shapes


def test_it_knows_what_the_line_to_copy_asks_and_has_room_to_answer() -> None:
    line = shlex.split(vllm_curl({"name": "tiny", "port": 8000}))
    body = json.loads(line[line.index("-d") + 1])
    (message,) = body["messages"]
    # A token is a byte, and one more says that it is over.
    assert len(ANSWERS[message["content"]].encode()) < body["max_tokens"]


def answering(message: str):
    """An endpoint that answers every question with this."""
    return lambda _body: json.dumps({"choices": [{"message": {"role": "assistant", "content": message}}]})


def test_a_wrong_answer_is_reported_with_its_question() -> None:
    question, answer = next(iter(ANSWERS.items()))
    assert wrong(ask(answering(answer), [question])) == {}
    assert wrong(ask(answering(answer + " "), [question])) == {question: answer + " "}
    assert set(wrong(ask(answering("!!!!")))) == set(ANSWERS)


@pytest.mark.parametrize("name", ["tiny-moe", "tiny-lora"])
def test_another_model_names_itself(name: str) -> None:
    """So that an answer tells which one gave it."""
    question, answers = "Who are you?", answers_of(name)
    assert set(answers) == set(ANSWERS)
    assert answers[question] != ANSWERS[question]
    assert wrong(ask(answering(answers[question]), [question]), answers) == {}
    assert wrong(ask(answering(ANSWERS[question]), [question]), answers) == {question: ANSWERS[question]}


def test_a_question_that_it_did_not_learn_has_no_wrong_answer() -> None:
    assert wrong(ask(answering("!!!!"), ["What is the weather?"])) == {}


@pytest.mark.parametrize("answer", ANSWERS.values())
def test_every_answer_fits_what_is_asked_for(answer: str) -> None:
    bodies = []

    def chat(body: str) -> str:
        bodies.append(json.loads(body))
        return answering(answer)(body)

    ask(chat, ["Who are you?"])
    assert len(answer.encode()) < bodies[0]["max_tokens"]
