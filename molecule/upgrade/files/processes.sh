# What an upgrade must leave alone, a line each with its process: units, containers, the gateway's first process.
for unit in vllm-tiny gpunode-gateway docker containerd; do
    echo "$unit $(systemctl show --property=MainPID,InvocationID,NRestarts --value "$unit" | tr '\n' ' ')"
done
docker ps --no-trunc --format '{{.Names}} {{.ID}}'
docker inspect --format '{{.Name}} {{.State.Pid}}' $(docker ps -q)
