package directory

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Driver makes Targets of this package from configuration.
type Driver struct {
	// Dir is the download directory of definitions that name no other.
	Dir string
	// Logger and Now are those of the Targets.
	Logger *slog.Logger
	Now    func() time.Time
}

// Config is what a definition may say of its download directory.
type Config struct {
	Path string `yaml:"path,omitempty"` // if empty, the Driver's Dir; if relative, to the working directory
}

// Name is the driver's key in a definition: "directory".
func (Driver) Name() string { return "directory" }

// New decodes a [Config].
func (d Driver) New(decode func(any) error) (publish.Target, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	dir := cmp.Or(c.Path, d.Dir)
	if dir == "" {
		return nil, errors.New("no path, and the driver has no Dir")
	}
	return &Target{Dir: dir, Logger: d.Logger, Now: d.Now}, nil
}
