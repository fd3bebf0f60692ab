package boots

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// FactName is the fact that Checks read.
const FactName = "boots"

// A Set says which machines are made beside the first.
type Set string

// The sets.
const (
	// Default is a second machine: its disk is on virtio-scsi, a config drive tells it
	// who it is, with user-data and vendor-data, and it is started again a week later with a
	// larger disk.
	Default Set = "default"
	// All is Default, and a machine with NVMe, e1000e and one processor that the metadata
	// service tells, whose disk is then taken to another instance; one that nobody tells
	// anything; and one with UEFI where the image has a boot loader for it.
	All Set = "all"
)

// UnmarshalText accepts the two sets, and nothing for Default.
func (s *Set) UnmarshalText(text []byte) error {
	switch v := Set(text); v {
	case "":
		*s = Default
	case Default, All:
		*s = v
	default:
		return fmt.Errorf("cannot use the set of boots %.20q: want default or all", text)
	}
	return nil
}

// A plan is one machine to make.
type plan struct {
	name    string
	variant sandbox.Variant
	again   string // what the machine is called when it starts again; if empty, it does not
	restart sandbox.Restart
}

// plans are the machines of the set, beside the first.
func (c *Config) plans(instance string) []plan {
	plans := []plan{{"second", sandbox.Variant{
		Disk: sandbox.VirtioSCSI, DataSource: sandbox.ConfigDrive, InstanceID: instance,
		UserData:   []byte("#cloud-config\nruncmd: ['echo " + c.proof + " >/run/boots-user-data']\n"),
		VendorData: []byte("#cloud-config\nwrite_files: [{path: /run/boots-vendor-data, content: " + c.proof + "}]\n"),
	}, "restarted", sandbox.Restart{MoreBytes: moreBytes, Later: later}}}
	if c.Set != All {
		return plans
	}
	plans = append(plans,
		plan{"flavor", sandbox.Variant{Disk: sandbox.NVMe, NIC: sandbox.E1000E, DataSource: sandbox.OpenStack, CPUs: 1}, "moved", sandbox.Restart{InstanceID: uuid()}},
		plan{"alone", sandbox.Variant{DataSource: sandbox.NoSource}, "", sandbox.Restart{}},
	)
	if c.UEFI {
		plans = append(plans, plan{"uefi", sandbox.Variant{Firmware: sandbox.UEFI, CPUs: 4}, "", sandbox.Restart{}})
	}
	return plans
}

// Config says what Start makes.
type Config struct {
	Sandbox sandbox.Sandbox
	// Image is what the first machine is made from. Its ConsoleLog, if it has one, names
	// those of the others too: console.log becomes console-second.log.
	Image sandbox.Image
	Set   Set  // if empty, Default
	UEFI  bool // the image has a boot loader for UEFI
	// ExtraReboot says that the image sees a larger disk only after another boot: each
	// machine gets one when it was started, where it can be asked to.
	ExtraReboot bool
	// Suite is what the first machine is held to. What of it a restart may change is judged
	// again. If nil, nothing is.
	Suite *testsuite.Suite
	// Before is the fact of the release before this image, for how long it took to start.
	// If empty, there is none.
	Before string
	// MemoryMiB bounds what all machines together take. If 0, half of what is
	// available. The first and one other always run.
	MemoryMiB int

	proof string           // what user-data and vendor-data leave
	again *testsuite.Suite // of Suite; nil if nothing is judged again
}

// Machines are those beside the first.
type Machines struct {
	// First is how the first machine is to be made, so that it can be held beside
	// the others.
	First sandbox.Variant

	cancel context.CancelFunc
	work   sync.WaitGroup
	again  *testsuite.Suite
	before string
	plans  []plan
	seen   []sight // as plans
}

// A sight is what was seen of a machine.
type sight struct {
	err       error // why it did not come up, or could not be read
	password  string
	console   string
	started   testsuite.Facts
	restarted *testsuite.Facts
	judged    *testsuite.Report // of restarted; nil if it was not
}

// Start begins to make the machines. They end with ctx; Close must be called.
func Start(ctx context.Context, c Config) *Machines {
	if c.Image.Logger == nil {
		c.Image.Logger = slog.New(slog.DiscardHandler)
	}
	c.proof = strings.ToLower(rand.Text())
	c.again = judgedAgain(c.Suite)
	instance := uuid()
	m := &Machines{First: sandbox.Variant{InstanceID: instance}, again: c.again, before: c.Before, plans: c.plans(instance)}
	m.seen = make([]sight, len(m.plans))
	ctx, m.cancel = context.WithCancel(ctx)
	room := semaphore.NewWeighted(c.atOnce())
	for i, p := range m.plans {
		m.work.Add(1)
		go func() {
			defer m.work.Done()
			if m.seen[i].err = room.Acquire(ctx, 1); m.seen[i].err == nil {
				defer room.Release(1)
				m.seen[i] = c.look(ctx, p)
			}
		}()
	}
	return m
}

// Close ends what still runs, and waits for it.
func (m *Machines) Close() error {
	m.cancel()
	m.work.Wait()
	return nil
}

// uuid is a random one, as a cloud calls its machines.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// machineMiB is what a machine takes: a GiB of its own, and what an emulator translates.
const machineMiB = 1792

// atOnce is how many machines run beside the first.
func (c *Config) atOnce() int64 {
	memory := c.MemoryMiB
	if memory == 0 {
		memory = availableMiB() / 2
	}
	return int64(max(1, min(memory/machineMiB, runtime.NumCPU())-1))
}

// availableMiB is what Linux says that programs may still take, or 0.
func availableMiB() int {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) == 3 && fields[0] == "MemAvailable:" {
			kib, _ := strconv.Atoi(fields[1])
			return kib >> 10
		}
	}
	return 0
}

// At the restart: of disk, and of time.
const (
	moreBytes = 1 << 30
	later     = 8 * 24 * time.Hour
)

// look makes a machine, reads its facts, and ends it.
func (c *Config) look(ctx context.Context, p plan) (s sight) {
	image := c.Image
	image.Variant, image.Logger = p.variant, c.Image.Logger.With("boot", p.name)
	if image.ConsoleLog != "" {
		ext := filepath.Ext(image.ConsoleLog)
		image.ConsoleLog = strings.TrimSuffix(image.ConsoleLog, ext) + "-" + p.name + ext
	}
	defer func() {
		if r := recover(); r != nil { // both are third parties'
			s.err = fmt.Errorf("the sandbox, or a check, panicked: %v", r)
		}
	}()
	machine, err := c.Sandbox.Boot(ctx, image)
	var boot *sandbox.BootError
	if errors.As(err, &boot) {
		s.console = boot.Console
	}
	if err == nil && machine == nil {
		err = errors.New("the sandbox gave no machine")
	}
	if err != nil {
		return sight{err: err, console: s.console}
	}
	defer func() {
		if machine.Console != nil {
			s.console = machine.Console()
		}
		s.err = errors.Join(s.err, machine.Close())
	}()
	s.password = machine.Target.Password
	if p.variant.DataSource == sandbox.NoSource {
		return s // it lets nobody in
	}
	if s.err = c.reboot(ctx, machine); s.err != nil {
		return s
	}
	suite := reading(image.Logger)
	if s.started, s.err = suite.Gather(ctx, machine.Target); s.err != nil || p.again == "" || machine.Restart == nil {
		return s
	}
	if s.err = machine.Restart(ctx, p.restart); s.err != nil {
		return s
	}
	if s.err = c.reboot(ctx, machine); s.err != nil {
		return s
	}
	if p.restart.Later != 0 && c.again != nil {
		suite.Profile.Checks = append(suite.Profile.Checks, c.again.Profile.Checks...)
		suite.Probes = append(suite.Probes, c.again.Probes...)
	}
	restarted, err := suite.Gather(ctx, machine.Target)
	if s.restarted, s.err = &restarted, err; err == nil && len(suite.Profile.Checks) > 1 {
		s.judged, s.err = c.again.Judge(restarted)
	}
	return s
}

// reboot starts a machine once more if its image needs that.
func (c *Config) reboot(ctx context.Context, m *sandbox.Machine) error {
	if !c.ExtraReboot || m.Reboot == nil {
		return nil
	}
	return m.Reboot(ctx)
}

// restartFacts are those that a restart may change and that are read in moments.
var restartFacts = []string{
	"sshd-config", "sshd-match", "sshd-views", "sshd-processes", "sockets", "services", "failed-units", "users", "accounts", "sudo", "sudo-rules",
	"shells", "authorized-keys", "login-key", "sysctl", "mounts", "boot", "kernel", "os-release", "processes", "apparmor",
}

// judgedAgain is the suite with those checks only that need nothing but restartFacts.
func judgedAgain(s *testsuite.Suite) *testsuite.Suite {
	if s == nil {
		return nil
	}
	again := *s
	again.Profile.Checks, again.Waivers, again.Facts, again.ReadOnly = nil, nil, nil, true
	for _, c := range s.Profile.Checks {
		if len(c.Needs) > 0 && !slices.ContainsFunc(c.Needs, func(need string) bool { return !slices.Contains(restartFacts, need) }) {
			again.Profile.Checks = append(again.Profile.Checks, c)
		}
	}
	if len(again.Profile.Checks) == 0 {
		return nil
	}
	return &again
}

// Facts of a machine that only this package reads.
const (
	dataFact = "boots.data" // what user-data and vendor-data left
	timeFact = "boots.time" // when its boot came how far, and which units took longest
)

// reading is a suite that reads what Fact needs of a machine.
func reading(logger *slog.Logger) *testsuite.Suite {
	return &testsuite.Suite{
		Profile: testsuite.Profile{Name: "boots", Checks: []testsuite.Check{{
			ID: "boots.read", Needs: []string{"cloud-init", "identity", "disk", dataFact, timeFact},
			Judge: func(testsuite.Facts, testsuite.Params) testsuite.Verdict {
				return testsuite.Verdict{Status: testsuite.Pass}
			},
		}}},
		Probes: []testsuite.Probe{{
			Name: dataFact, Patience: time.Minute,
			Script: "for d in user-data vendor-data; do echo \"$d $(head -c 100 /run/boots-$d 2>/dev/null)\"; done",
		}, {
			Name: timeFact, Patience: 5 * time.Minute,
			Script: "systemctl is-system-running --wait >/dev/null 2>&1\n" +
				"systemctl show -p InitRDTimestampMonotonic -p UserspaceTimestampMonotonic -p FinishTimestampMonotonic\n" +
				"systemd-analyze blame --no-pager | head -n 10",
		}},
		Logger: logger, ReadOnly: true,
	}
}
