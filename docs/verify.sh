#!/bin/sh
# verify.sh KEYS IMAGE/BUILD: verifies a release with gpg, sha256sum and jq (docs/verify.md)
set -eu
[ $# -eq 2 ] || { echo "usage: verify.sh KEYS IMAGE/BUILD" >&2; exit 2; }
GNUPGHOME=$(mktemp -d); export GNUPGHOME; trap 'rm -rf "$GNUPGHOME"' EXIT; trap 'exit 1' HUP INT TERM
path() { case $1 in /*) printf %s/ "$1" ;; *) printf ./%s/ "$1" ;; esac; } # never an option, nor looked for in CDPATH
bad() { echo "$1" >&2; exit 1; }
# Of several signatures one has to be good; what gpg exits with counts all of them, and it
# complains of armour without a checksum.
good() { case $(gpg --batch --quiet --trust-model always --status-fd 1 --verify "$1" "$2" 2>"$GNUPGHOME/is") in "[GNUPG:] "*"[GNUPG:] GOODSIG "*) ;; *) bad "bad signature of $3: $(cat "$GNUPGHOME/is")" ;; esac; }
listed() { cut -c67- SHA256SUMS | grep -Fqx -e "$1" || bad "$1 is not in SHA256SUMS"; }

keys=$(path "$1"); gpg --batch --no-autostart --import "${keys%/}" 2>"$GNUPGHOME/is" || bad "$(cat "$GNUPGHOME/is")"
cd "$(path "$2")"
good SHA256SUMS.asc SHA256SUMS SHA256SUMS; sha256sum --check --strict --quiet SHA256SUMS; listed release.json
name=$(jq -er --arg d "$PWD" 'select(. as $i | $d | endswith("/\($i.image)/\($i.build)")) | "\(.image)-\(.build)"' release.json)
for f in qcow2 cdx.json provenance.json test.provenance.json; do listed "$name.$f"; done
sum=$(sha256sum <"$name.qcow2"); sum=${sum%% *}
jq -e --arg n "$name" --arg s "$sum" '.metadata.component | "\(.name)-\(.version)" == $n and any(.hashes[]; .content == $s)' "$name.cdx.json" >"$GNUPGHOME/is"
for p in "$name.provenance.json" "$name.test.provenance.json"; do
	jq -ej '(.payload | @base64d) as $p | "DSSEv1 \(.payloadType | utf8bytelength) \(.payloadType) \($p | utf8bytelength) \($p)"' "$p" >"$GNUPGHOME/pae"
	jq -er '"-----BEGIN PGP SIGNATURE-----\n", (.signatures[0].sig | [scan(".{1,64}")][]), "-----END PGP SIGNATURE-----"' "$p" >"$GNUPGHOME/sig"
	good "$GNUPGHOME/sig" "$GNUPGHOME/pae" "$p"
	jq -e --arg n "$name.qcow2" --arg s "$sum" '.payload | @base64d | fromjson | any(.subject[]; .name == $n and .digest.sha256 == $s)' "$p" >"$GNUPGHOME/is"
done
echo "$name is as it was signed"
