package sandbox

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// A Sandbox boots images. Boot may be called concurrently.
//
// [QEMU] is one, and package sandboxtest has one for tests of programs that
// embed the factory. Another may start a server in a cloud, or name a machine
// that runs already.
type Sandbox interface {
	// Boot starts a machine from the image, which it does not change, and
	// returns when the machine lets its user in. The caller closes the machine
	// and leaves the image as it is until then. A Boot that fails leaves
	// nothing running; when ctx ends, its error wraps ctx's.
	Boot(ctx context.Context, image Image) (*Machine, error)
}

// Image is an image to boot, and what a Sandbox needs to know of it. Only Path
// must be set.
type Image struct {
	Path string // the qcow2 file
	User string // the image's login user; if empty, linux
	// TimeServers are the names of the image's time servers. A sandbox that has a
	// network of its own answers for them.
	TimeServers []string
	Variant     Variant // the machine that it is booted on

	// WorkDir is a directory for what the sandbox needs while the machine
	// runs; it is as before when the machine is closed. If empty, os.TempDir(). What a
	// program that was killed left there is removed.
	WorkDir string
	// ConsoleLog is a file that the machine's console is written to when the
	// machine is closed or did not boot, with passwords redacted. If empty,
	// none is written; a sandbox that sees no console writes none.
	ConsoleLog string
	Logger     *slog.Logger // if nil, nothing is logged
}

// A Machine is a guest that runs and lets its user in.
type Machine struct {
	Target testsuite.Target // how to reach it
	// Hostname is what it was told that it is called. If empty, it was told
	// nothing, and how it takes a name is not tested.
	Hostname   string
	ImageBytes int64 // virtual size of the image; 0 if unknown
	DiskBytes  int64 // size of the disk that the guest sees; 0 if unknown
	// Reboot starts the guest anew, as its owner would, and returns when it has
	// finished its boot and lets its user in. If nil, it cannot be asked to.
	Reboot func(ctx context.Context) error
	// Restart powers the guest off, as its owner would, starts it again, and returns
	// when it has finished its boot and lets its user in. Target is then a new one. If
	// nil, it cannot be asked to.
	Restart func(ctx context.Context, as Restart) error
	// Console is what the machine has printed until now: its beginning and its end, at
	// most about 1 MiB, with passwords redacted. If nil, nobody sees it.
	Console func() string
	// PowerOff shuts the guest down, as its owner would, and returns its disk, for
	// [Reader.OpenOverlay]. Its files go when the machine is closed. If nil, the disk
	// cannot be read.
	PowerOff func(ctx context.Context) (*Overlay, error)
	// Stop ends the machine and frees what it holds. If nil, it stays as it is.
	Stop func() error

	once     sync.Once
	closeErr error
}

// A Restart says what a machine is when it starts again. The zero value is what it was.
type Restart struct {
	MoreBytes int64 // how much larger its disk is
	// Later is how much further its clock is, and that of its time servers. It is set
	// for a while before the machine is powered off, so that timers that would have
	// run out by then do.
	Later time.Duration
	// InstanceID is what its data source calls it now. Unless empty, its disk was taken to
	// another machine: another network card and another UUID of its firmware.
	InstanceID string
}

// Close calls Stop. It may be called more than once and concurrently; Stop is
// called once, and each call returns what it returned.
func (m *Machine) Close() error {
	if m == nil {
		return nil
	}
	m.once.Do(func() {
		if m.Stop != nil {
			m.closeErr = m.Stop()
		}
	})
	return m.closeErr
}
