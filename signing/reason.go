package signing

import (
	"cmp"
	"strconv"
	"strings"
)

// Reason says in a few words why something is not good. It is an error value,
// so errors.Is(err, signing.KeyExpired) asks for one.
type Reason string

// The reasons of signatures.
const (
	NoSignature      Reason = "no signature"
	Malformed        Reason = "malformed"
	Unsupported      Reason = "unsupported"
	BadSignature     Reason = "the signature does not match the data"
	UnknownKey       Reason = "the key is not in the keyring"
	NoKeyMaterial    Reason = "the key is pinned but the keyring holds no copy of it"
	KeyInvalid       Reason = "the key is not valid"
	KeyExpired       Reason = "the key had expired"
	KeyRevoked       Reason = "the key is revoked"
	KeyNotForSigning Reason = "the key is not for signing"
	OutsideSpan      Reason = "the key did not count at that time"
	WrongPurpose     Reason = "the key is for another purpose"
	WeakHash         Reason = "weak hash"
	WeakKey          Reason = "weak key"
	FromFuture       Reason = "the signature is from the future"
	SignatureExpired Reason = "the signature has expired"
	CriticalNotation Reason = "unknown critical notation"
	TooFewSignatures Reason = "too few good signatures"
)

// The reasons of files in a release directory.
const (
	DigestDiffers Reason = "the content differs from SHA256SUMS"
	FileMissing   Reason = "listed in SHA256SUMS but missing"
	FileExtra     Reason = "not listed in SHA256SUMS"
	NotRegular    Reason = "not a regular file"
	BadName       Reason = "file name not allowed"
	DuplicateName Reason = "listed twice"
	NotVouchedFor Reason = "SHA256SUMS is not good, so nothing vouches for it"
	Unreadable    Reason = "cannot be read"
	BadProvenance Reason = "the provenance does not fit"
)

// Error returns r as text.
func (r Reason) Error() string { return string(r) }

// Error is one thing that is wrong: errors.As finds it in what the functions
// of this package return, errors.Is finds its Reason. An error may join several
// of them.
type Error struct {
	File        string      // the file it is about, without a directory; empty if it is about a key
	Fingerprint Fingerprint // the key, as far as it is known
	Reason      Reason
	Detail      string // more about it, or empty
}

func (e *Error) Error() string {
	if e == nil {
		return "no error"
	}
	subject, key := "the key", ""
	switch {
	case e.File != "":
		subject = strconv.Quote(shorten(e.File))
		if e.Fingerprint != "" {
			key = " (key " + string(e.Fingerprint) + ")"
		}
	case e.Fingerprint != "":
		subject = "key " + string(e.Fingerprint)
	}
	text := "cannot trust " + subject + ": " + cmp.Or(string(e.Reason), "no reason given")
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text + key
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Reason }

// shorten bounds a name that a hostile file gave.
func shorten(name string) string {
	if len(name) <= 2*maxFileName {
		return name
	}
	return strings.ToValidUTF8(name[:2*maxFileName], "") + "…"
}
