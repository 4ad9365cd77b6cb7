# What a fresh Debian server of a cloud has: systemd, ssh, sudo, python3, apt. No Docker, no NVIDIA packages.
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends systemd systemd-sysv dbus openssh-server python3 python3-apt sudo curl gnupg \
  ca-certificates iproute2 procps kmod iptables less >/dev/null
systemctl mask systemd-modules-load.service systemd-udevd.service systemd-udev-trigger.service getty.target \
  console-getty.service apt-daily.timer apt-daily-upgrade.timer >/dev/null 2>&1
systemctl enable ssh >/dev/null 2>&1
useradd --create-home --shell /bin/bash lab
echo 'lab ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/lab
install -d -m 0700 -o lab -g lab /home/lab/.ssh
rm -f /etc/ssh/ssh_host_* /etc/machine-id
touch /etc/machine-id
# The host keys come with the first start, as on a cloud.
mkdir -p /etc/systemd/system/ssh.service.d
printf '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n' \
  >/etc/systemd/system/ssh.service.d/host-keys.conf
apt-get clean
