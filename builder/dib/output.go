package dib

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/builder"
)

// A line of disk-image-create: a time, " | ", text.
var (
	timestamp = regexp.MustCompile(`^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}\.\d{3} \| `)
	phaseLine = regexp.MustCompile(`dib-run-parts Running .*/([a-z-]+\.d/\S+)$`)
)

// parseLine is for [buildlog.New].
func parseLine(line string) (text, phase string) {
	text = timestamp.ReplaceAllString(line, "")
	if m := phaseLine.FindStringSubmatch(text); m != nil {
		phase = m[1]
	}
	return text, phase
}

// parseManifest reads dib's list of installed Debian packages.
func parseManifest(data []byte) ([]builder.Package, error) {
	var manifest struct {
		Packages []struct{ Package, Arch, Version, Status string }
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, fmt.Errorf("cannot read dib's package list: %w", err)
	}
	var packages []builder.Package
	for _, p := range manifest.Packages {
		if !strings.HasPrefix(p.Status, "ii") && !strings.HasPrefix(p.Status, "hi") {
			continue // removed, configuration left
		}
		name, _, _ := strings.Cut(p.Package, ":")
		if name == "" || p.Version == "" || strings.ContainsAny(name+p.Version+p.Arch, " \t\r\n") {
			return nil, fmt.Errorf("cannot read dib's package list: bad entry %q", p)
		}
		packages = append(packages, builder.Package{Name: name, Version: p.Version, Arch: p.Arch})
	}
	if len(packages) == 0 {
		return nil, errors.New("cannot read dib's package list: no package in it")
	}
	slices.SortFunc(packages, builder.Package.Compare)
	return packages, nil
}
