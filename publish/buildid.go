package publish

import (
	"fmt"
	"strings"
	"time"
)

const buildLayout = "20060102-150405"

// A BuildID names one build of an image by the second, in UTC, in which it
// began: YYYYMMDD-HHMMSS. It is comparable and may be a map's key. The zero
// BuildID is no build.
type BuildID struct{ s string }

// NewBuildID returns the ID of a build that began at t. It drops what is less
// than a second.
func NewBuildID(t time.Time) BuildID {
	return BuildID{t.UTC().Format(buildLayout)}
}

// ParseBuildID parses the form that String writes.
func ParseBuildID(s string) (BuildID, error) {
	// time.Parse takes a fraction that the layout does not have.
	t, err := time.Parse(buildLayout, s)
	if err != nil || len(s) != len(buildLayout) {
		return BuildID{}, fmt.Errorf("cannot parse build ID %.40q: want UTC as YYYYMMDD-HHMMSS", s)
	}
	return NewBuildID(t), nil
}

// String returns the ID as YYYYMMDD-HHMMSS, or "" for no build.
func (b BuildID) String() string { return b.s }

// IsZero reports whether b is no build.
func (b BuildID) IsZero() bool { return b.s == "" }

// Time returns the second in which the build began, in UTC. It is the zero
// time for no build.
func (b BuildID) Time() time.Time {
	t, _ := time.Parse(buildLayout, b.s) // b.s is "" or was parsed before
	return t
}

// Compare returns -1, 0 or +1 as b began before, with or after c. No build
// comes before every build.
func (b BuildID) Compare(c BuildID) int { return strings.Compare(b.s, c.s) }

// MarshalText implements [encoding.TextMarshaler] with the form of String.
func (b BuildID) MarshalText() ([]byte, error) { return []byte(b.s), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. It takes what
// ParseBuildID takes.
func (b *BuildID) UnmarshalText(text []byte) error {
	id, err := ParseBuildID(string(text))
	if err != nil {
		return err
	}
	*b = id
	return nil
}
