package kiwi

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/pkgkeys"
)

// legacyProgram is kiwi 7.
const legacyProgram = "kiwi"

// legacyVersion is a line of `kiwi --version`: "kiwi v7.04.50", with more after it.
var legacyVersion = regexp.MustCompile(`(?m)^(?:kiwi|.*version:?) v?(7\.[0-9.]{1,32})\b`)

func parseLegacyVersion(text string) (string, error) {
	m := legacyVersion.FindStringSubmatch(text)
	if m == nil {
		return "", errors.New("cannot use kiwi: it is not version 7")
	}
	return m[1], nil
}

// legacySteps are kiwi 7's two commands, kiwi(1).
func (r *run) legacySteps() [][]string {
	prepare := []string{legacyProgram, "--prepare", r.at(applianceDir), "--root", r.at("root"), "--logfile", "terminal", "--nocolor"}
	create := []string{legacyProgram, "--create", r.at("root"), "--destdir", r.at("result"), "--logfile", "terminal", "--nocolor"}
	for _, p := range r.Profiles {
		prepare = append(prepare, "--add-profile", p)
		create = append(create, "--add-profile", p)
	}
	return [][]string{prepare, create}
}

// legacyFiles are named after the image's name, architecture and version.
func (r *run) legacyFiles() files {
	base := fmt.Sprintf("%s.%s-%s", r.spec.Name, machines[r.spec.Arch], version(r.spec.Build))
	return files{image: base + ".qcow2", packages: base + ".packages", verified: base + ".verified"}
}

// checkHostKeys holds the keys in the host's rpm database, which kiwi 7 verifies
// packages by, to the trusted ones.
func (r *run) checkHostKeys(ctx context.Context) error {
	list, err := r.output(ctx, "rpm", "-q", "gpg-pubkey", "--queryformat", `%{VERSION}\n`)
	if err != nil {
		return fmt.Errorf("cannot tell which keys kiwi 7 would trust: %w", err)
	}
	trusted, err := pkgkeys.Trusted(r.spec)
	if err != nil {
		return err
	}
	var known []string
	for _, e := range trusted {
		f := pkgkeys.Fingerprint(e)
		known = append(known, strings.ToLower(f[len(f)-8:])) // the key's short ID, as rpm has it
	}
	for _, id := range strings.Fields(list) {
		if !slices.Contains(known, id) {
			return fmt.Errorf("kiwi 7 would trust the key %.8q of the host's rpm database, which is none of the trusted keys: remove it there with rpm -e gpg-pubkey-…", id)
		}
	}
	return nil
}
