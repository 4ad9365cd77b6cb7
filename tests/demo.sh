#!/usr/bin/env bash
# The whole way on this machine: the lab, a fresh node, site.yml over ssh, and the model's answers.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=tests/lab/lab
export GPUNODE_LAB_NODES=demo

say() { printf '\n\033[1m[demo] %s\033[0m\n' "$*"; }

say "1/4 the lab: Docker, signed package repositories, an image registry, a model hub (the first time builds a real vLLM and trains a tiny model, some 10 minutes)"
$lab up
say "2/4 a node: Debian 12 with systemd and ssh, nothing else (one is kept if it is there)"
$lab node demo
say "3/4 ansible-playbook site.yml -e model=tiny"
ansible-playbook -i inventories/lab site.yml -e model=tiny
say "4/4 three chats with the model, on the node itself: http://127.0.0.1:8000/v1/chat/completions"
$lab ask demo "Who are you?" "What is six times seven?" "Was kostet die Welt?"
cat <<'END'

A real vLLM on the node gave these answers, and the model was trained to give exactly these. Weights that were loaded
wrong, another chat template or a damaged file would have it say something else, and this would have ended here.

Ask it yourself:  tests/lab/lab ask demo "Say hello."
Look around:      tests/lab/lab ssh demo            then: systemctl status vllm-tiny, journalctl -u vllm-tiny,
                                                    cat /etc/vllm/tiny.yaml, sudo docker ps
Run it again:     make demo                         nothing to do: changed=0
Another node:     tests/lab/lab node NAME --board h100x1
Take it down:     make demo-down                    what was built is kept for the next time
END
