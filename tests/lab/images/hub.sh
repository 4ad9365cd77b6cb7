# The repositories of the lab's hub: a tiny Llama, written by the very transformers that the engine reads it with.
/opt/vllm/bin/python /lab/hub/make_tiny.py /srv/hub
cp /lab/hub/server.py /srv/server.py
