# Everything the lab's web server serves: Docker's and NVIDIA's repositories, signed, and the wheels of huggingface_hub and the router.
sh /lab/apt/build.sh /srv
cp /lab/images/nginx.conf /etc/nginx/sites-enabled/lab.conf
for python in 3.11 3.13; do
  pip download -q --only-binary=:all: --python-version "$python" -d /srv/wheels huggingface_hub==2.4.0
  pip download -q --no-deps --only-binary=:all: --python-version "$python" -d /srv/wheels smg==1.13.0 setproctitle==1.3.8
done
