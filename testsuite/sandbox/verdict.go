package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/opentelekomcloud/go-imagefactory/internal/visible"
)

// GuestError says what a guest did instead of letting its user in. It ends the
// boot at once, however much of the boot timeout is left.
type GuestError struct {
	Reason Reason
	Phase  string // how far a boot of it came: firmware, boot loader, kernel, init or cloud-init
	Line   string // what the console said of it, at most 200 bytes, safe to show; may be empty
}

// Reason is why a guest cannot be waited for.
type Reason string

// The reasons.
const (
	Panicked    Reason = "its kernel panicked"
	NotBootable Reason = "there is nothing to boot on its disk"
	RebootLoop  Reason = "it boots again and again"
	PoweredOff  Reason = "it powered itself off"
	Emergency   Reason = "it stopped at a shell for emergencies"
	Endless     Reason = "its console prints without end"
	NoNetwork   Reason = "it sent nothing to the network"
	Frozen      Reason = "its sshd lets nobody in"
	NoData      Reason = "its cloud-init found no data source"
)

func (e *GuestError) Error() string {
	text := fmt.Sprintf("the guest cannot be used: %s (in phase %s)", e.Reason, e.Phase)
	if e.Line != "" {
		text += fmt.Sprintf(": it said \"%s\"", e.Line)
	}
	return text
}

// endings are lines after which nobody will be let in, of the firmware, the boot loader,
// the kernel, the initial RAM disk and systemd.
var endings = []struct {
	reason Reason
	line   *regexp.Regexp
}{
	{Panicked, regexp.MustCompile(`Kernel panic - not syncing`)},
	{NotBootable, regexp.MustCompile(`^(No bootable device|BdsDxe: No bootable option|grub(?: rescue)?>|Missing operating system|Operating system not found|Could not find kernel image)`)},
	{Emergency, regexp.MustCompile(`(You are in (emergency|rescue|maintenance) mode|^(Press Enter|Give root password) for maintenance|^\(initramfs\)|Entering emergency mode\.|ALERT!.*Dropping to a shell|^dracut:/#)`)},
	{NoData, regexp.MustCompile(`finished at .*Datasource DataSourceNone|No instance datasource found`)},
}

// phases are how far a boot has come when its console says so.
var phases = []struct {
	name string
	line *regexp.Regexp
}{
	{"boot loader", regexp.MustCompile(`(?i)\bgrub\b|isolinux|syslinux|Booting from (Hard|DVD)`)},
	{"kernel", regexp.MustCompile(`Linux version \d|Booting Linux|\] Command line:`)},
	{"init", regexp.MustCompile(`systemd\[1\]|Welcome to [^!]*\d|Begin: Running /scripts|INIT: version`)},
	{"cloud-init", regexp.MustCompile(`cloud-init\[|Cloud-init v`)},
}

const (
	// maxBootOutput is what a console may print until the guest can be used: a boot
	// with every message prints less than a tenth of it.
	maxBootOutput = 4 << 20
	// maxResets is how often a guest may start anew: some do once, after they have
	// relabelled or grown their disk.
	maxResets = 3
	maxQuote  = 200
)

// A watch judges a boot by what is seen of it. Its methods may be called concurrently.
type watch struct {
	mu     sync.Mutex
	ended  chan struct{} // closed when there is an error
	err    *GuestError
	off    bool // what follows is not judged
	alone  bool // there is no data source
	phase  int  // how many of phases were seen, the last of them
	resets int
	bytes  int
}

func newWatch() *watch { return &watch{ended: make(chan struct{})} }

// stop ends judging: the guest can be used.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off = true
}

// verdict is the error that closed ended.
func (w *watch) verdict() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// fail is the error for a reason, and ends the boot with it.
func (w *watch) fail(reason Reason, line string) *GuestError {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed(reason, line)
}

func (w *watch) failed(reason Reason, line string) *GuestError {
	if w.err != nil {
		return w.err
	}
	err := &GuestError{Reason: reason, Phase: w.phaseName(), Line: quote(line)}
	if !w.off {
		w.err = err
		close(w.ended)
	}
	return err
}

// reached is the phase that the boot has come to.
func (w *watch) reached() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.phaseName()
}

func (w *watch) phaseName() string {
	if w.phase == 0 {
		return "firmware"
	}
	return phases[w.phase-1].name
}

// quote makes a guest's text safe to show, in at most maxQuote bytes.
func quote(text string) string {
	text = visible.Line(text)
	return strings.ToValidUTF8(text[:min(len(text), maxQuote)], "")
}

// line judges a line of the console.
func (w *watch) line(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge(text, false)
}

// begun judges what there is of a line, which is all of a prompt.
func (w *watch) begun(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge(text, true)
}

func (w *watch) judge(text string, begun bool) {
	if w.off || w.err != nil {
		return
	}
	for i := w.phase; i < len(phases); i++ {
		if phases[i].line.MatchString(text) {
			w.phase = i + 1
		}
	}
	for _, e := range endings {
		switch {
		case e.reason == NoData && w.alone, begun && (e.reason == NoData || e.reason == Panicked):
		case e.line.MatchString(text):
			_ = w.failed(e.reason, text)
		}
	}
}

// printed counts what the console printed.
func (w *watch) printed(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bytes += n; w.bytes > maxBootOutput && !w.off {
		_ = w.failed(Endless, "")
	}
}

// reset is told that the guest started anew.
func (w *watch) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.resets++; w.resets > maxResets && !w.off {
		_ = w.failed(RebootLoop, "")
	}
}

// watchArgs have QEMU tell of events, and the firmware print, on descriptors that it inherits.
const watchArgs = "-chardev socket,id=events,fd=4 -mon chardev=events,mode=control " +
	"-chardev socket,id=firmware,fd=5 -device isa-debugcon,iobase=0x402,chardev=firmware"

// listen begins to read QEMU's events and the firmware's words, until QEMU ends. The files
// are for QEMU to inherit as descriptors 4 and 5.
func (w *watch) listen() ([]*os.File, error) {
	events, theirEvents, err := socketpair()
	if err != nil {
		return nil, fmt.Errorf("cannot hear QEMU's events: %w", err)
	}
	firmware, theirFirmware, err := socketpair()
	if err != nil {
		_, _ = events.Close(), theirEvents.Close()
		return nil, fmt.Errorf("cannot hear the firmware: %w", err)
	}
	go w.readEvents(events)
	go w.readFirmware(firmware)
	return []*os.File{theirEvents, theirFirmware}, nil
}

// readEvents speaks QMP: it asks for nothing but events.
func (w *watch) readEvents(conn net.Conn) {
	defer conn.Close()
	if _, err := io.WriteString(conn, `{"execute":"qmp_capabilities"}`+"\n"); err != nil {
		return
	}
	for dec := json.NewDecoder(conn); ; {
		var message struct {
			Event string `json:"event"`
			Data  struct {
				Guest bool `json:"guest"`
			} `json:"data"`
		}
		if dec.Decode(&message) != nil {
			return
		}
		if message.Event == "RESET" && message.Data.Guest {
			w.reset()
		}
	}
}

// readFirmware judges lines of the firmware. The guest may print there too, without end.
func (w *watch) readFirmware(conn net.Conn) {
	defer conn.Close()
	lines := &console{changed: make(chan struct{}), watch: w, quiet: true}
	_, _ = io.Copy(lines, conn)
}
