package ims

import (
	"log/slog"

	"github.com/opentelekomcloud/go-imagefactory/publish"
)

// Driver makes Targets of this package from configuration.
type Driver struct {
	Logger *slog.Logger // of the Targets; if nil, they tell nobody
}

// Name is the driver's key in a definition: "ims".
func (Driver) Name() string { return "ims" }

// New decodes a [Config].
func (d Driver) New(decode func(any) error) (publish.Target, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	return New(c, d.Logger)
}
