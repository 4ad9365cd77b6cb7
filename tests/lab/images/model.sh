# The lab's tiny Llama, trained by the very transformers that the engine reads it with. An image of its own: it is trained
# again where its script, its answers or vLLM change, and not where the hub's server does. The other models beside it.
export TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1
/opt/vllm/bin/python /lab/model/train.py /srv/tiny-llama
/opt/vllm/bin/python /lab/model/others.py /srv/tiny-llama /srv/others
