# The repositories of the lab's hub, three times the same tiny Llama and the models of no catalogue, and the server.
for repository in tiny-llama tiny-llama-gated tiny-llama-private; do
  folder=/srv/hub/gpunode/$repository
  mkdir -p "$folder/original"
  cp /srv/tiny-llama/* "$folder"
  # Every Llama of Meta's carries its weights twice; a client that does not leave these out fetches them.
  echo '{"dim": 256, "n_layers": 2}' >"$folder/original/params.json"
  head -c 1048576 /dev/zero >"$folder/original/consolidated.00.pth"
done
echo '{"gated": "manual"}' >/srv/hub/gpunode/tiny-llama-gated/.hub.json
echo '{"private": true}' >/srv/hub/gpunode/tiny-llama-private/.hub.json
cp -r /srv/others /srv/hub/lab
cp /lab/hub/server.py /srv/server.py
