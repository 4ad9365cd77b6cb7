# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab's tiny model was trained to say (model/train.py), and what one that is served says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from shell import LabError

MODEL = Path(__file__).parent / "model"
ANSWERS: dict[str, str] = json.loads((MODEL / "answers.json").read_text(encoding="utf-8"))

#: Posts a body to /v1/chat/completions, and returns what is answered.
Chat = Callable[[str], str | bytes]


def answers_of(name: str) -> dict[str, str]:
    """What another model of the lab's was trained to say (model/others.py)."""
    return {**ANSWERS, **json.loads((MODEL / "other_answers.json").read_text(encoding="utf-8"))[name]}


def over_ssh(ssh: list[str], port: int = 8000, key: str = "") -> Chat:
    """Ask on the node itself; ``ssh`` is the command that enters it.

    Raises:
        LabError: nothing was answered, or no answer.
    """

    def chat(body: str) -> str:
        headers = ["Content-Type: application/json", *([f"Authorization: Bearer {key}"] if key else [])]
        options = [("url", f"http://127.0.0.1:{port}/v1/chat/completions"), ("data", body)]
        options += [("header", header) for header in headers]
        # By standard input, in curl's own form: a key is in no command line, and so in no journal.
        lines = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in options)
        command = [*ssh, "curl -sS --fail-with-body -m 120 -K -"]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"port {port} gives no answer: {done.stderr.strip()} {done.stdout.strip()}")
        return done.stdout

    return chat


def ask(chat: Chat, questions: Iterable[str] = ANSWERS, model: str = "tiny") -> dict[str, str]:
    """What is said to each question, each in a chat of its own."""
    replies = {}
    for question in questions:
        messages = [{"role": "user", "content": question}]
        reply = json.loads(chat(json.dumps({"model": model, "messages": messages, "max_tokens": 100})))
        replies[question] = reply["choices"][0]["message"]["content"]
    return replies


def wrong(replies: Mapping[str, str], answers: Mapping[str, str] = ANSWERS) -> dict[str, str]:
    """Of what was said, what is not as it was learnt; a question that was not learnt has no right answer."""
    return {question: answer for question, answer in replies.items() if answer != answers.get(question, answer)}
