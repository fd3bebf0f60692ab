package testsuite

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"time"
)

// Facts is what was seen of one machine. It holds no secret: the console
// password is redacted before anything is kept.
type Facts struct {
	Host       string          `json:"host"`        // address of the machine
	Started    time.Time       `json:"started"`     // when gathering began, UTC
	DurationMS int64           `json:"duration_ms"` // how long gathering took
	RoundTrips int             `json:"round_trips"` // SSH connections opened and commands run on them
	Facts      map[string]Fact `json:"facts"`       // by name, see Gather
	// Given is what the machine was given, for who judges the facts later. Gather does
	// not set it.
	Given Given `json:"given,omitzero"`
}

// Given is what a sandbox gave to a machine: fields of [Params].
type Given struct {
	Hostname     string `json:"hostname"`
	DiskBytes    int64  `json:"disk_bytes"`
	OverlayBytes int64  `json:"overlay_bytes"`
}

// SetParams sets the parameters of what the machine was given, if it is known. The
// disk's size that a definition demands is kept.
func (g Given) SetParams(p *Params) {
	if g == (Given{}) {
		return
	}
	p.Hostname, p.OverlayBytes = g.Hostname, g.OverlayBytes
	if p.DiskBytes == 0 {
		p.DiskBytes = g.DiskBytes
	}
}

// A Fact is the text that one probe gave.
type Fact struct {
	Output     string `json:"output"`
	Error      string `json:"error,omitempty"`   // why the probe gave nothing that can be relied on; empty if it did
	Omitted    string `json:"omitted,omitempty"` // why the probe was not made, where the Suite asked for that
	DurationMS int64  `json:"duration_ms"`
}

// FactError says that a fact is missing or could not be read.
type FactError struct {
	Fact   string
	Reason string
}

func (e *FactError) Error() string { return fmt.Sprintf("cannot read fact %s: %s", e.Fact, e.Reason) }

// Text returns the output of the named fact, or a *FactError.
func (f Facts) Text(name string) (string, error) {
	fact, ok := f.Facts[name]
	if !ok {
		return "", &FactError{Fact: name, Reason: "it was not gathered"}
	}
	if fact.Error != "" {
		return "", &FactError{Fact: name, Reason: fact.Error}
	}
	return fact.Output, nil
}

// maxFactsFile bounds what LoadFacts reads: more than what a script may say, where each byte
// is written as an escape.
const maxFactsFile = 64 << 20

// Save writes the facts as indented JSON.
func (f Facts) Save(w io.Writer) error {
	if err := writeJSON(w, f); err != nil {
		return fmt.Errorf("cannot save facts: %w", err)
	}
	return nil
}

// LoadFacts reads what Save wrote, also where gzip has compressed it: strictly, and
// at most 64 MiB.
func LoadFacts(r io.Reader) (Facts, error) {
	var f Facts
	br := bufio.NewReader(r)
	r = br
	if magic, _ := br.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(br)
		if err != nil {
			return Facts{}, fmt.Errorf("cannot load facts: %w", err)
		}
		r = z
	}
	if err := loadJSON(r, maxFactsFile, &f); err != nil {
		return Facts{}, fmt.Errorf("cannot load facts: %w", err)
	}
	return f, nil
}
