#!/bin/sh
# verify.sh KEYS IMAGE/BUILD: verifies a release with gpg, sha256sum and jq (docs/verify.md)
set -eu; home=$(mktemp -d); trap 'rm -rf "$home"' EXIT; gpg="gpg --batch --quiet --homedir $home"
$gpg --import "$1"; cd "$2"
good() { case $($gpg --status-fd 1 --verify "$1" "$2") in "[GNUPG:] "*"[GNUPG:] GOODSIG "*) ;; *) echo "bad signature of $3" >&2; exit 1 ;; esac; }
good SHA256SUMS.asc SHA256SUMS SHA256SUMS; sha256sum --check --strict --quiet SHA256SUMS
name=$(jq -er --arg d "$PWD" 'select(. as $i | $d | endswith("/\($i.image)/\($i.build)")) | "\(.image)-\(.build)"' release.json)
sum=$(sha256sum "$name.qcow2"); sum=${sum%% *}
jq -e --arg n "$name" --arg s "$sum" '.metadata.component | "\(.name)-\(.version)" == $n and any(.hashes[]; .content == $s)' "$name.cdx.json" >"$home/is"
for p in "$name.provenance.json" "$name.test.provenance.json"; do
	jq -ej '(.payload | @base64d) as $p | "DSSEv1 \(.payloadType | utf8bytelength) \(.payloadType) \($p | utf8bytelength) \($p)"' "$p" >"$home/pae"
	jq -er '"-----BEGIN PGP SIGNATURE-----\n", (.signatures[0].sig | [scan(".{1,64}")][]), "-----END PGP SIGNATURE-----"' "$p" >"$home/sig"
	good "$home/sig" "$home/pae" "$p"
	jq -e --arg n "$name.qcow2" --arg s "$sum" '.payload | @base64d | fromjson | any(.subject[]; .name == $n and .digest.sha256 == $s)' "$p" >"$home/is"
done; echo "$name is as it was signed"
