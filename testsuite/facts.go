package testsuite

import (
	"encoding/json"
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

// maxFactsFile bounds what LoadFacts reads. Gather keeps well below it.
const maxFactsFile = 16 << 20

// Save writes the facts as indented JSON.
func (f Facts) Save(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(f); err != nil {
		return fmt.Errorf("cannot save facts: %w", err)
	}
	return nil
}

// LoadFacts reads what Save wrote: strictly, and at most 16 MiB.
func LoadFacts(r io.Reader) (Facts, error) {
	var f Facts
	lr := &io.LimitedReader{R: r, N: maxFactsFile + 1}
	dec := json.NewDecoder(lr)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		if lr.N <= 0 {
			return Facts{}, fmt.Errorf("cannot load facts: more than %d bytes", maxFactsFile)
		}
		return Facts{}, fmt.Errorf("cannot load facts: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Facts{}, fmt.Errorf("cannot load facts: more text after byte %d", dec.InputOffset())
	}
	return f, nil
}
