#!/bin/bash
# Builds the image with diskimage-builder alone, as root, from the files beside this
# script:
#
#     create_appliance.sh -o DIRECTORY debian=URL [debian-security=URL]
#
# The URLs are of your mirrors; security updates are by default beside debian, with
# -security appended. Signatures are checked with keyring.gpg and no other keys. The
# directory must not exist, and its path has plain characters.
set -euo pipefail

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
work=
while getopts o: option; do
    case $option in
    o) work=$OPTARG ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ -n "$work" ] && [ ! -e "$work" ] && [[ $work =~ ^[A-Za-z0-9._/+@-]+$ ]] || usage

debian=
debian_security=
for mirror; do
    [[ $mirror =~ ^(debian|debian-security)=((https?|file)://[A-Za-z0-9._~:/@%+,=-]+)$ ]] || { echo "bad mirror: want debian=URL or debian-security=URL" >&2; exit 2; }
    declare "${BASH_REMATCH[1]//-/_}=${BASH_REMATCH[2]%/}"
done
[ -n "$debian" ] || usage
: "${debian_security:=$debian-security}"

mkdir -p "$work"
work=$(cd "$work" && pwd)
for name in driver elements shims repositories keyring.gpg; do
    [ ! -e "$here/$name" ] || cp -a "$here/$name" "$work/"
done
mkdir -p "$work"/{tmp,home,repositories}
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
dmsetup version >/dev/null 2>&1 || path=$work/shims:$path

# Sets the variables of the tool, as NAME=VALUE in environment, and its elements.
. "$here/parameters"

# What a build that is killed leaves mounted ends with its namespace.
unshare --mount --propagation private --pid --fork --kill-child -- \
    env -i PATH="$path" HOME="$work/home" "${environment[@]}" \
    disk-image-create -n -t qcow2 -o "$work/image" --no-tmpfs "${elements[@]}"
ls -l "$work/image.qcow2"
