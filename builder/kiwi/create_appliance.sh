#!/bin/bash
# Builds the image with kiwi-ng alone, as root, from the files beside this script:
#
#     create_appliance.sh -o DIRECTORY [-v VERSION] NAME=URL…
#
# NAME=URL says where the repositories that appliance/config.xml calls {NAME} are
# mirrored. Signatures of indexes and packages are checked with keys/ and no
# others. The directory must not exist.
set -euo pipefail

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
out=
version=0.0.0
while getopts o:v: option; do
    case $option in
    o) out=$OPTARG ;;
    v) version=$OPTARG ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ -n "$out" ] && [ ! -e "$out" ] || usage
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || { echo "bad version '$version': want 1.2.3" >&2; exit 2; }

mkdir -p "$out"
out=$(cd "$out" && pwd)
cp -a "$here/appliance" "$here/keys" "$here/shims" "$here/kiwi.yml" "$out/"
config=$out/appliance/config.xml
sed -i "s/{version}/$version/" "$config"
for mirror; do
    [[ $mirror =~ ^([a-z0-9][a-z0-9._-]*)=((https?|file)://[A-Za-z0-9._~:/@%+,=-]+)$ ]] || { echo "bad mirror: want NAME=URL" >&2; exit 2; }
    name=${BASH_REMATCH[1]//./\\.}
    url=${BASH_REMATCH[2]%/}
    sed -i "s|\"{$name}|\"$url|" "$config"
done
left=$(grep -o '"{[a-z0-9._-]*}' "$config" | tr -d '"' | sort -u | tr '\n' ' ' || true)
[ -z "$left" ] || { echo "no URL for $left" >&2; exit 2; }

keys=()
for key in "$out"/keys/*.asc; do keys+=(--signing-key "$key"); done
profiles=()
[ ! -e "$here/profiles" ] || while read -r profile; do profiles+=(--profile "$profile"); done <"$here/profiles"

mkdir -p "$out"/{tmp,home/.gnupg,cache,result}
env -i PATH="$out/shims:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$out/home" LANG=C.UTF-8 \
    kiwi-ng --config "$out/kiwi.yml" --temp-dir "$out/tmp" --shared-cache-dir "$out/cache" --debug "${profiles[@]}" \
    system build --description "$out/appliance" --target-dir "$out/result" "${keys[@]}"
ls -l "$out"/result/*.qcow2
