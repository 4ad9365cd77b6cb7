#!/usr/bin/env bash
# The whole way on this machine: the lab, a fresh node, site.yml over ssh, and the model's answer.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=tests/lab/lab
export GPUNODE_LAB_NODES=demo

say() { printf '\n\033[1m[demo] %s\033[0m\n' "$*"; }

say "1/4 the lab: Docker, signed package repositories, an image registry, a model hub (the first time builds a real vLLM, some 10 minutes)"
$lab up
say "2/4 a node: Debian 12 with systemd and ssh, nothing else (one is kept if it is there)"
$lab node demo
say "3/4 ansible-playbook site.yml -e model=tiny"
ansible-playbook -i inventories/lab site.yml -e model=tiny
say "4/4 a chat with the model, asked on the node itself"
question='{"model": "tiny", "messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 24}'
echo "POST http://127.0.0.1:8000/v1/chat/completions $question"
$lab ssh demo "curl -fsS http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d '$question'" \
  | python3 -m json.tool --no-ensure-ascii
cat <<'END'

The answer above came from a real vLLM on the node. The model has random weights, so it babbles.

Look around:      tests/lab/lab ssh demo            then: systemctl status vllm-tiny, journalctl -u vllm-tiny,
                                                    cat /etc/vllm/tiny.yaml, sudo docker ps
Run it again:     make demo                         nothing to do: changed=0
Another node:     tests/lab/lab node NAME --board h100x1
Take it down:     make demo-down                    what was built is kept for the next time
END
