// Package signing signs and verifies cloud images and whole release directories
// with OpenPGP, and judges which key counts when.
//
// [GenerateKey] and [LoadKey] give a [Key], [NewSigner] a [Signer] for it, and
// [SignDir] seals a release directory: a detached signature for each image and
// configuration tarball, SHA256SUMS, and its signature. On the other side a
// [Keyring] holds the pinned keys, and [VerifyDir] says of every file whether it
// is good and if not why.
//
// # Compatibility
//
// Signatures and keys are version 4 (RFC 4880 and RFC 9580) unless a version 6
// key is asked for, so every gpg since 2.1 reads them. sha256sum -c reads
// SHA256SUMS.
package signing
