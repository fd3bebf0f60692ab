package kiwi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// A line of kiwi-ng: "[ INFO    ]: 12:00:01 | text". What it shows of its progress
// has no end of its line.
var (
	progress   = regexp.MustCompile(`^(?:\[ INFO    \]: Processing: \[[# ]*\] *\d+%[\r ]*)+`)
	toolOutput = regexp.MustCompile(`^(bootstrap|system): `)
	logLine    = regexp.MustCompile(`^\[ ?([A-Z]+) *\]: (?:\d{2}:\d{2}:\d{2} \| )?`)
)

// parseLine is for buildlog.New. kiwi's milestones are its lines of level INFO
// that are no details ("--> …") and no cleaning up, which follows an error too. Its
// many lines that name a command are left to the raw log.
func parseLine(line string) (text, phase string) {
	line = progress.ReplaceAllString(line, "")
	m := logLine.FindStringSubmatch(line)
	if m == nil {
		return line, ""
	}
	text = line[len(m[0]):]
	if m[1] == "DEBUG" && (strings.HasPrefix(text, "EXEC: ") || strings.HasPrefix(text, "Looking for ") || strings.Contains(text, "in paths")) {
		return "", ""
	}
	text = toolOutput.ReplaceAllString(text, "") // of debootstrap, apt, …
	if m[1] == "INFO" && text != "" && !strings.HasPrefix(text, "--") && !strings.HasPrefix(text, "Cleaning up") && len(text) <= 100 {
		phase = text
	}
	return text, phase
}

// files are what a build has written, from kiwi.result.json.
type files struct {
	image, packages, changes, verified string // names in the target directory; the last three may be ""
}

// parseResult reads kiwi.result.json: an object whose members have the path of a
// file each. Only names in dir are taken.
func parseResult(data []byte, dir string) (files, error) {
	var result map[string]json.RawMessage
	if err := json.Unmarshal(data, &result); err != nil {
		return files{}, fmt.Errorf("cannot read kiwi.result.json: %w", err)
	}
	name := func(key string) (string, error) {
		raw, ok := result[key]
		if !ok {
			return "", nil
		}
		var member struct {
			Filename string `json:"filename"`
		}
		if err := json.Unmarshal(raw, &member); err != nil {
			return "", fmt.Errorf("cannot read kiwi.result.json: %s is not as expected", key)
		}
		base := path.Base(member.Filename)
		if member.Filename != path.Join(dir, base) || !plainName.MatchString(base) {
			return "", fmt.Errorf("cannot read kiwi.result.json: the file of %s does not lie in the target directory", key)
		}
		return base, nil
	}
	var f files
	var errs []error
	for key, dst := range map[string]*string{
		"disk_format_image": &f.image, "image_packages": &f.packages, "image_changes": &f.changes, "image_verified": &f.verified,
	} {
		s, err := name(key)
		*dst = s
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return files{}, err
	}
	if !strings.HasSuffix(f.image, ".qcow2") || f.packages == "" {
		return files{}, errors.New("cannot read kiwi.result.json: it names no qcow2 or no package list")
	}
	return f, nil
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,254}$`)

// parsePackages reads kiwi's list of packages: name, epoch, version, release,
// architecture, URL and license a line, separated by |. What a package manager
// does not know is "None" or "(none)".
func parsePackages(data []byte) ([]builder.Package, error) {
	var packages []builder.Package
	for i, line := range strings.Split(strings.TrimRight(string(data), "\n"), "\n") {
		f := strings.SplitN(line, "|", 7)
		if len(f) < 5 {
			return nil, fmt.Errorf("cannot read kiwi's package list: line %d: want name|epoch|version|release|arch|…", i+1)
		}
		p := builder.Package{Name: f[0], Version: f[2], Arch: f[4]}
		if known(f[1]) {
			p.Version = f[1] + ":" + p.Version
		}
		if known(f[3]) {
			p.Version += "-" + f[3]
		}
		if p.Name == "gpg-pubkey" && !known(p.Arch) {
			continue // a trusted key in rpm's database
		}
		if p.Name == "" || f[2] == "" || !known(p.Arch) || strings.ContainsFunc(p.Name+p.Version+p.Arch, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return nil, fmt.Errorf("cannot read kiwi's package list: line %d: bad name, version or architecture", i+1)
		}
		packages = append(packages, p)
	}
	slices.SortFunc(packages, builder.Package.Compare)
	return slices.Compact(packages), nil
}

func known(s string) bool { return s != "" && s != "None" && s != "(none)" }

// parseVerified reads what `rpm --verify` of all packages says: the files whose
// content is not what their package has, or that are missing. Configuration and
// documentation are passed over. It is empty where packages are Debian's.
func parseVerified(data []byte) []string {
	var changed []string
	for line := range bytes.Lines(data) {
		m := verifiedLine.FindSubmatch(line)
		if m == nil || len(m[2]) > 0 {
			continue
		}
		if flags := string(m[1]); flags == "missing" || flags[2] == '5' {
			changed = append(changed, string(m[3]))
		}
	}
	return changed
}

// Nine flags, of which the third is the digest, or "missing"; the kind of file,
// such as c for configuration; its path. rpm(8), VERIFY OPTIONS.
var verifiedLine = regexp.MustCompile(`^([SM5DLUGTPC.?]{8,9}|missing) +(?:([acdglr]) +)?(/[ -~]+)\n?$`)
