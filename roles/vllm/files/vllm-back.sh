#!/bin/sh
# Bring back what went down with Docker or with a mount, and leave what an operator stopped.
#
#   vllm-back.sh started UNIT   UNIT starts: nobody has stopped it by hand, and Docker and every mount that it requires are to
#                               start gpunode-engines.service whenever they start themselves; its record is put aside
#   vllm-back.sh stopped UNIT   UNIT ends: where nothing that it requires is stopped as well, somebody stopped it by hand
#   vllm-back.sh ended UNIT     UNIT has ended for good (gpunode-ended@): the same for a stop in the pause after a crash, in
#                               which a unit has no command to run
#   vllm-back.sh all            gpunode-engines.service: start what is enabled and was not stopped by hand
#   vllm-back.sh forget         the role goes: take the links and the marks away
#
# By hand is the exception that is written down: what is missing from it comes back, as it does at a boot. The marks are gone
# with the next boot. systemctl disable keeps an engine down for good.
set -eu
back=gpunode-engines.service units=/etc/systemd/system by_hand=/run/gpunode/stopped-by-hand records=/etc/vllm

# The record of an instance, by its unit.
record() {
    name=${1#vllm-}
    printf '%s/%s.json\n' "$records" "${name%.service}"
}

# Whether a unit is one of ours. One that an earlier release wrote has no record, and says so itself (until release 1.1).
ours() {
    [ -e "$(record "$1")" ] || grep -qsxF '[X-gpunode]' "$units/$1"
}

# Docker and the mounts that a unit requires. What the root is mounted from is always there. A name with a backslash, as the mount
# of a path with a hyphen has, is printed in quotation marks and with two of them.
required() {
    systemctl show --property=Requires --value "$1" | tr ' ' '\n' | sed -e 's/"//g' -e 's/\\\\/\\/g' |
        grep -E '^docker\.service$|\.mount$' | grep -vxe '-\.mount' -e 'run\.mount'
}

# What systemd is about to do to a unit: stop, restart, start.
kinds() {
    printf '%s\n' "$jobs" | while read -r _id unit kind _state; do [ "$unit" != "$1" ] || printf '%s\n' "$kind"; done
}

mark() {
    mkdir -p "$by_hand"
    : >"$by_hand/$1"
}

case $1 in
started)
    rm -f "$by_hand/$2"
    # Beside what the unit itself puts aside: in its own text, this would have restarted every engine of an earlier release.
    aside=/run/${2%.service}/started-from
    record=$(record "$2")
    [ ! -e "$record" ] || (umask 077 && mkdir -p "$aside${record%/*}" && cp "$record" "$aside$record")
    new=
    for other in $(required "$2"); do
        [ ! -L "$units/$other.wants/$back" ] || continue
        # Not systemctl add-wants, which refuses what is generated, as a mount of fstab is.
        mkdir -p "$units/$other.wants"
        # Engines start side by side, and another one may have been quicker.
        ln -sf "$units/$back" "$units/$other.wants/$back"
        new=yes
    done
    [ -z "$new" ] || systemctl daemon-reload
    ;;
stopped)
    jobs=$(systemctl list-jobs --full --no-legend)
    kind=$(kinds "$2")
    # What ends in order has not failed. Without this, the fifth time that Docker comes back within hours finds the unit at its
    # limit of starts.
    case $kind-${SERVICE_RESULT:-} in stop-success | restart-success) systemctl reset-failed "$2" ;; esac
    [ "$kind" = stop ] || exit 0
    for other in $(required "$2"); do
        case $(kinds "$other") in stop | restart) exit 0 ;; esac
    done
    mark "$2"
    ;;
ended)
    jobs=$(systemctl list-jobs --full --no-legend)
    # What is on its way again has not ended. What systemd gave up stays down like what somebody stopped.
    [ -z "$(kinds "$2")" ] || exit 0
    case $(systemctl show --property=ActiveState --value "$2") in inactive | failed) ;; *) exit 0 ;; esac
    for other in $(required "$2"); do
        systemctl is-active --quiet "$other" || exit 0
        case $(kinds "$other") in stop | restart) exit 0 ;; esac
    done
    mark "$2"
    ;;
all)
    # A mount alone starts no Docker that somebody stopped, and takes no stop of it back: an engine's start would.
    systemctl is-active --quiet docker.service || exit 0
    jobs=$(systemctl list-jobs --full --no-legend)
    case $(kinds docker.service) in stop | restart) exit 0 ;; esac
    for file in "$units"/vllm-*.service; do
        unit=${file##*/}
        if ours "$unit" && [ ! -e "$by_hand/$unit" ] && systemctl is-enabled --quiet "$unit"; then
            # One that waits for its next start is not to be hurried.
            case $(systemctl is-active "$unit" || true) in inactive | failed) systemctl --no-block start "$unit" ;; esac
        fi
    done
    ;;
forget)
    for link in "$units"/*.wants/"$back"; do
        [ ! -L "$link" ] || { rm -f "$link"; rmdir --ignore-fail-on-non-empty "${link%/*}"; }
    done
    rm -rf "$by_hand"
    ;;
esac
