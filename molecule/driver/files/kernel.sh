#!/bin/sh
# A stand-in for what a kernel tells of boards and modules, on a node that has neither: it runs at boot, and as modprobe, modinfo and lsmod.
#
#   /etc/gpunode-lab/boards         a line for each board: its address, its device id and its class
#   /lib/modules/…/nvidia.ko        a text with the version and the licence: the module that is installed
#   /run/gpunode-lab/modules        what is loaded; it goes with a restart, as it does on a machine
set -eu
at=/run/gpunode-lab
module=/lib/modules/$(uname -r)/updates/dkms/nvidia.ko

blacklisted() { grep -qsr '^blacklist nouveau' /etc/modprobe.d; }

boot() {
  mkdir -p $at/pci $at/drivers/nouveau
  : >$at/modules
  while read -r address device class; do
    folder=$at/pci/$address
    mkdir -p "$folder"
    echo 0x10de >"$folder/vendor"
    echo "0x$device" >"$folder/device"
    echo "$class" >"$folder/class"
    case $class in 0x03*) [ -e /etc/gpunode-lab/nouveau ] && ! blacklisted && ln -sfn $at/drivers/nouveau "$folder/driver" ;; esac
  done </etc/gpunode-lab/boards
  mount --bind $at/pci /sys/bus/pci/devices
  mount -t tmpfs nvidia /proc/driver
  if [ -e "$module" ]; then load || :; fi
}

load() {
  if readlink $at/pci/*/driver | grep -q nouveau; then
    echo "modprobe: ERROR: could not insert 'nvidia': No such device" >&2
    return 1
  fi
  if grep -q '^nvidia ' $at/modules; then return 0; fi
  if [ ! -e "$module" ]; then
    echo "modprobe: FATAL: Module nvidia not found in directory /lib/modules/$(uname -r)" >&2
    return 1
  fi
  printf 'nvidia_uvm 1 0 - Live 0x0\nnvidia 1 1 nvidia_uvm, Live 0x0\n' >$at/modules
  mkdir -p /proc/driver/nvidia
  version=$(sed -n 's/^version: *//p' "$module")
  echo "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  $version  Release Build  (a stand-in)" >/proc/driver/nvidia/version
}

unload() {
  if [ -e $at/in-use ]; then
    echo "modprobe: FATAL: Module $1 is in use." >&2
    return 1
  fi
  sed "/^$1 /d" $at/modules >$at/modules.new && cat $at/modules.new >$at/modules
  [ "$1" != nvidia ] || rm -rf /proc/driver/nvidia
}

case $(basename "$0") in
  lsmod) cat $at/modules ;;
  modinfo) if [ -e "$module" ]; then cat "$module"; else echo "modinfo: ERROR: Module nvidia not found." >&2; exit 1; fi ;;
  modprobe) if [ "$1" = -r ]; then unload "$2"; elif [ "$1" = nvidia ]; then load; else exec /usr/sbin/modprobe "$@"; fi ;;
  *) boot ;;
esac
