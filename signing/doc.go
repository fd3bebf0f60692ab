// Package signing signs and verifies cloud images and whole release directories
// with OpenPGP (RFC 9580, RFC 4880), and judges which key counts when.
//
// [GenerateKey] and [LoadKey] give a [Key], [NewSigner] a [Signer] for it; the
// secret can also stay in gpg-agent ([NewAgentSigner]) or behind a crypto.Signer
// ([SignerConfig]). [SignDir] seals a release directory: a detached signature for
// each image and configuration tarball, SHA256SUMS, and its signature. A [Sealer]
// has the rest: several signers, more digests, single files, cleartext
// signatures, and envelopes for [Provenance] and [TestResult].
//
// On the other side a [Keyring] holds the pinned keys, and [VerifyDir] says of
// every file whether it is good, and if not why. A [Verifier] has the rest: a
// time other than now, signatures by several keys, single files, what upstreams
// publish (a checksum file in any of its usual forms, see [Verifier.Checksums]),
// and [Verifier.Attestation]. Every result is a value that holds all that was
// found; the error that comes with it joins an [Error] for each finding, with a
// [Reason] that errors.Is finds.
//
// Each file is read once, whatever is computed of it: its digests and all
// signatures, in parallel. Only version 6 signatures need a hash of their own,
// because their salt comes before the data.
//
// # Which key counts when
//
// A key counts if its full fingerprint is pinned; key IDs only help to find it. A
// signature is judged at the time it says it was made:
//
//   - The pinned span must include that time, and the pinned purposes the kind
//     of file: *.qcow2 is an image, *.config.tar.gz a config, anything else either.
//   - The key, and for a subkey also its primary key, must not have expired at
//     that time. The newest self-signature says when it expires, as in gpg: a
//     prolonged copy of a key prolongs it for what it signed before. A key that
//     has expired since is noted, no more.
//   - The key must have been meant for signing by the self-signature of that
//     time, or the oldest if there is none from before.
//   - A revocation as superseded or retired counts from its date; any other,
//     also one without a reason, for all times, because whoever has the key can
//     put any date on a signature.
//   - Self-signatures may have SHA-1, as keys of the years before 2020 do, and
//     no key flags on the primary key; subkeys need theirs, and the signature
//     back on the primary key.
//   - Signatures from the future, with SHA-1 or weaker, with a critical notation
//     (none is known), that have expired, or by RSA below 2048 bits, DSA or
//     secp256k1 do not count.
//
// # What is irreversible comes last
//
// Whatever is written is computed, written beside, synced and read back, with
// the limits of those that read it, before it gets its name. [SignDir] renames
// all its files together and undoes that where one fails, so that a release that
// was good stays good. Only a process that is killed (or a machine that stops)
// between the renames leaves some of each, and VerifyDir says so; signing again
// puts it right.
//
// # Security
//
// Everything that is verified is taken for hostile: signature files, listings,
// names and whatever lies in a release directory. Nothing outside the directory is
// opened, no link followed, no pipe waited for. What a signature file may hold
// is narrower than in other implementations: armor blocks with nothing but blank
// lines around them, or binary packets, in their plain form, so that no bit of it
// can be changed. Sizes are bounded (a signature file 128 KiB and 64 signatures,
// SHA256SUMS 32 MiB, a keyring 64 MiB and 100,000 keys, a directory and a listing
// 100,000 entries); memory is 2 MiB for each file that is read at the same time.
// Errors name files, lines and kinds of things, and never quote what a file holds.
//
// A directory that is being changed while it is verified can differ afterwards
// from what was found: verify a directory that nobody else can write.
//
// # Compatibility
//
// Signatures and keys are version 4 unless a version 6 key is asked for; gpg
// 2.2, gpgv and sq 0.27 read them, and this package reads theirs. gpg 2.2 and
// sq 0.27 do not read version 6 keys and signatures, nor version 4 keys with
// the algorithm Ed25519 of RFC 9580 (27) instead of EdDSA-legacy (22): these are
// tested against go-crypto alone. gpg 2.2 fails on a file that holds a version 6
// signature, also if it holds good ones besides: during a roll-over from version
// 4 to 6 both cannot be in one .asc file for it. The tests run gpg, gpgv,
// gpg-agent, sq and sha256sum.
//
// # Limits
//
//   - Revocations by a designated revoker are not seen, nor those of subkeys and
//     user IDs that do not follow what they revoke: gpg --import merges them.
//   - Of the lists in a Debian Release file (InRelease) only the signature is
//     verified, and signed messages (gpg --sign) are not read.
//   - Of a file that is cut short the key that the cut is in is not used, because
//     its revocation could be missing; a whole copy of it besides serves.
//   - Signatures with MD5 or RIPEMD-160 are reported as unsupported, not as
//     weak, because go-crypto does not parse them; likewise version 3.
//   - Brainpool keys and Ed448 verify, but cannot be used from gpg-agent or a
//     crypto.Signer. New keys have no passphrase; locked ones are read.
//   - Version 6 keys cannot be made for an external signer.
//   - Times are whole seconds, as in OpenPGP.
package signing
