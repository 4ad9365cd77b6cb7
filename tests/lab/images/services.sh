# What the lab's servers and the makers of its packages run on.
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends docker-registry nginx-light python3 reprepro apt-utils dpkg-dev equivs \
  gnupg ca-certificates python3-pip >/dev/null
rm -f /etc/nginx/sites-enabled/default
cp /lab/images/registry.yml /etc/docker/registry/lab.yml
apt-get clean
