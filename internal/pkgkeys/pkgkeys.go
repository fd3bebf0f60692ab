// Package pkgkeys reads the OpenPGP keys that may sign a build's packages, and
// writes what package managers read: keyrings, and repositories that name their key.
package pkgkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// maxFile bounds the size of a file of keys.
const maxFile = 4 << 20

// Trusted reads the keys that a spec trusts, and only them: a file's keys whose
// fingerprints the spec names, or all of them. Relative files are relative to
// the spec's Dir.
func Trusted(spec builder.Spec) (openpgp.EntityList, error) {
	var trusted openpgp.EntityList
	for _, k := range spec.TrustedKeys {
		name := k.File
		if !filepath.IsAbs(name) {
			name = filepath.Join(spec.Dir, name)
		}
		entities, err := Read(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the trusted keys in %s: %w", k.File, err)
		}
		wanted := map[string]bool{}
		for _, f := range k.Fingerprints {
			wanted[f] = true
		}
		for _, e := range entities {
			f := Fingerprint(e)
			if len(k.Fingerprints) > 0 && !wanted[f] {
				continue
			}
			delete(wanted, f)
			trusted = append(trusted, e)
		}
		if len(wanted) > 0 {
			return nil, fmt.Errorf("%s has no key %s", k.File, strings.Join(slices.Sorted(maps.Keys(wanted)), ", "))
		}
	}
	return trusted, nil
}

// signer is the trusted key that a repository names.
func signer(repo builder.Repository, trusted openpgp.EntityList) (*openpgp.Entity, error) {
	for _, e := range trusted {
		if Fingerprint(e) == repo.Key {
			return e, nil
		}
	}
	return nil, fmt.Errorf("repositories: %s is signed by %s, which is none of the trusted keys", repo.Name, repo.Key)
}

// Fingerprint is that of the primary key, 40 hexadecimal digits.
func Fingerprint(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

// Read reads a file of public keys, binary or armored.
func Read(name string) (openpgp.EntityList, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		return openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	}
	return openpgp.ReadKeyRing(bytes.NewReader(data))
}

// Write writes keys as a binary keyring.
func Write(name string, keys ...*openpgp.Entity) error {
	var out bytes.Buffer
	if err := serialize(&out, keys); err != nil {
		return err
	}
	return os.WriteFile(name, out.Bytes(), 0o644)
}

// WriteArmored writes keys in the form that `rpm --import` takes.
func WriteArmored(name string, keys ...*openpgp.Entity) error {
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(serialize(w, keys), w.Close()); err != nil {
		return err
	}
	out.WriteByte('\n')
	return os.WriteFile(name, out.Bytes(), 0o644)
}

func serialize(w io.Writer, keys []*openpgp.Entity) error {
	for _, e := range keys {
		if err := e.Serialize(w); err != nil {
			return fmt.Errorf("cannot write the trusted key %s: %w", Fingerprint(e), err)
		}
	}
	return nil
}

// WriteApt writes repositories into dir in the format of
// sources.list(5), signed by Debian's archive keyring as it is in the image, or
// by one of the trusted keys, which then comes with it.
func WriteApt(dir string, repositories []builder.Repository, trusted openpgp.EntityList) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, repo := range repositories {
		keyring := "debian-archive-keyring.gpg"
		if repo.Key != "" {
			key, err := signer(repo, trusted)
			if err != nil {
				return err
			}
			keyring = "imagefactory-" + repo.Name + ".gpg"
			if err := Write(filepath.Join(dir, keyring), key); err != nil {
				return err
			}
		}
		components := repo.Components
		if len(components) == 0 {
			components = []string{"main"}
		}
		text := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\n", repo.URL, strings.Join(repo.Suites, " "))
		if !slices.ContainsFunc(repo.Suites, func(s string) bool { return strings.HasSuffix(s, "/") }) { // a flat repository has none
			text += fmt.Sprintf("Components: %s\n", strings.Join(components, " "))
		}
		text += fmt.Sprintf("Signed-By: /usr/share/keyrings/%s\n", keyring)
		if err := os.WriteFile(filepath.Join(dir, repo.Name+".sources"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// WriteRPM writes repositories into dir in the format of yum.conf(5), which
// zypper and dnf read too. Packages and indexes are to be signed. A repository
// that names its key, one of the trusted ones, comes with it, for keyDir; another
// is signed by a key that rpm has already.
func WriteRPM(dir, keyDir string, repositories []builder.Repository, trusted openpgp.EntityList) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, repo := range repositories {
		text := fmt.Sprintf("[%s]\nname=%s\nbaseurl=%s\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\n", repo.Name, repo.Name, repo.URL)
		if repo.Key != "" {
			key, err := signer(repo, trusted)
			if err != nil {
				return err
			}
			file := "imagefactory-" + repo.Name + ".asc"
			if err := WriteArmored(filepath.Join(dir, file), key); err != nil {
				return err
			}
			text += "gpgkey=file://" + keyDir + "/" + file + "\n"
		}
		if err := os.WriteFile(filepath.Join(dir, repo.Name+".repo"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
