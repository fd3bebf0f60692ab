package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox/network"
)

// A guest is what runs behind a Machine of QEMU.
type guest struct {
	*Machine

	variant    Variant // complete
	uuid, disk string  // of the machine, and its disk's serial number
	seed       seed
	ahead      atomic.Int64 // how much further its clock is, in nanoseconds
	accel      string       // "kvm" or "tcg"
	process    *process     // nil until QEMU was started
	network    network.Config
	wire       *wire // nil until then
	console    *console
	consoleLog string
	image      string
	dir        string
	remove     func() error // removes dir
	patience   patience
	logger     *slog.Logger
}

// now is the time on the guest's clock.
func (g *guest) now() time.Time { return time.Now().Add(time.Duration(g.ahead.Load())) }

func (g *guest) seedPath() string    { return filepath.Join(g.dir, "seed.iso") }
func (g *guest) overlayPath() string { return filepath.Join(g.dir, "overlay.qcow2") }

// stop ends the guest at once, as a power cut would, removes its files and
// writes the console log.
func (g *guest) stop() (err error) {
	if g.process != nil {
		g.process.stop()
	}
	g.wire.close()
	if g.consoleLog != "" {
		if werr := os.WriteFile(g.consoleLog, g.console.log(), 0o600); werr != nil {
			err = fmt.Errorf("cannot keep the console log: %w", werr)
		}
	}
	if rerr := g.remove(); rerr != nil {
		err = errors.Join(err, fmt.Errorf("cannot remove the sandbox's files: %w", rerr))
	}
	return err
}

const (
	retryPause   = 2 * time.Second
	loginTimeout = 2 * time.Minute
)

// patience is how long a guest may take when it has shown its host keys, and so has its
// network and its sshd: for the network and the login beside the time that it took so far,
// by which a slow machine is known, then for the login hint. One attempt to log in may take
// long: an emulated key exchange takes seconds.
type patience struct{ network, login, attempt, hint time.Duration }

// await waits for the host keys on the console, then for a login, then a
// little for the login hint. g.Target is complete afterwards.
func (q *QEMU) await(ctx context.Context, g *guest) error {
	began := time.Now()
	booting, cancel := context.WithTimeout(ctx, q.BootTimeout)
	defer cancel()
	var err error
	if g.variant.DataSource == NoSource {
		err = g.awaitPrompt(booting)
	} else if err = g.awaitKey(booting); err == nil {
		g.logger.InfoContext(ctx, "guest showed its host key", "after", time.Since(began).Round(time.Second),
			"key", ssh.FingerprintSHA256(g.Target.HostKey))
		err = g.awaitLogin(booting, time.Since(began))
	}
	if err != nil {
		if ctx.Err() == nil && booting.Err() != nil {
			return fmt.Errorf("%w within %s (in phase %s)%s: %w", ErrNoAnswer, q.BootTimeout, g.console.watch.reached(), g.lastSaid(), err)
		}
		return err
	}
	g.logger.InfoContext(ctx, "guest is up", "user", g.Target.User, "after", time.Since(began).Round(time.Second))
	return g.awaitHint(booting)
}

// lastSaid quotes the last line of the console, for an error.
func (g *guest) lastSaid() string {
	lines := strings.Split(g.console.last(consoleTail), "\n")
	if said := quote(lines[len(lines)-1]); said != "" {
		return fmt.Sprintf(": it last said \"%s\"", said)
	}
	return ""
}

// awaitKey waits for the host keys on the console.
func (g *guest) awaitKey(ctx context.Context) error {
	return g.awaitConsole(ctx, func(key ssh.PublicKey, _, _ string) bool {
		g.Target.HostKey = key
		return key != nil
	})
}

// awaitPrompt waits until the console asks who logs in.
func (g *guest) awaitPrompt(ctx context.Context) error {
	g.Target.Signer = nil // it was told nobody
	for {
		asked, changed := g.console.prompted()
		if asked {
			g.Target.HostKey, _, _, _ = g.console.state()
			return nil
		}
		if err := g.pause(ctx, changed); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("its console never asked who logs in: %w", ctx.Err())
			}
			return err
		}
	}
}

// awaitHint waits a little for the login hint.
func (g *guest) awaitHint(ctx context.Context) error {
	hint, cancel := context.WithTimeout(ctx, g.patience.hint)
	defer cancel()
	err := g.awaitConsole(hint, func(_ ssh.PublicKey, user, pass string) bool {
		if user == g.Target.User {
			g.Target.Password = pass
		}
		return pass != ""
	})
	if err != nil && hint.Err() == nil {
		return err // QEMU died; a hint that never comes is for a check to tell
	}
	return ctx.Err()
}

// goAhead has the guest's clock go to where it will be, and waits for what is due then.
func (g *guest) goAhead(ctx context.Context, later time.Duration) error {
	if later == 0 {
		return nil
	}
	g.ahead.Add(int64(later))
	if err := g.ordered(ctx, fmt.Sprintf("sudo -n date -u -s @%d", g.now().Unix())); err != nil {
		return fmt.Errorf("cannot set its clock: %w", err)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(duePatience):
		return nil
	}
}

// move takes the guest's disk to another machine, which its data source calls another
// instance.
func (g *guest) move(instanceID string) error {
	g.uuid, g.network.MAC = newUUID(), network.NewMAC()
	g.seed.instanceID, g.seed.mac = instanceID, g.network.MAC
	g.console.forget()
	return g.writeSeed()
}

const (
	rebootTimeout   = 15 * time.Minute
	powerOffTimeout = 5 * time.Minute  // systemd gives a service 90 s to end
	duePatience     = 20 * time.Second // timers of systemd run out within a minute of their time, most at once
)

// bootID changes with each boot of a Linux.
const bootID = "cat /proc/sys/kernel/random/boot_id"

// reboot starts the guest anew and waits until it has finished its boot.
func (g *guest) reboot(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot reboot the guest: %w", err)
		}
	}()
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, rebootTimeout, fmt.Errorf("%w within %s", ErrNoAnswer, rebootTimeout))
	defer cancel()
	was, err := g.ask(ctx, bootID)
	if err != nil {
		return err
	}
	if err := g.ordered(ctx, "sudo -n systemctl reboot"); err != nil {
		return err
	}
	for is := was; is == was || is == ""; {
		if err := g.pause(ctx, nil); err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		is, _ = g.ask(ctx, bootID)
	}
	// Its status is that of the system, which the checks judge.
	if _, err := g.ask(ctx, "systemctl is-system-running --wait"); err != nil {
		return err
	}
	g.logger.InfoContext(ctx, "guest was rebooted", "after", time.Since(began).Round(time.Second))
	return nil
}

// powerOff shuts the guest down and returns its disk.
func (g *guest) powerOff(ctx context.Context) (*Overlay, error) {
	limited, cancel := context.WithTimeout(ctx, powerOffTimeout)
	defer cancel()
	if err := g.ordered(limited, "sudo -n systemctl poweroff"); err != nil {
		return nil, fmt.Errorf("cannot power the guest off: %w", err)
	}
	select {
	case <-g.process.done:
	case <-limited.Done():
		return nil, fmt.Errorf("cannot power the guest off within %s: %w", powerOffTimeout, limited.Err())
	}
	if g.process.err != nil {
		return nil, fmt.Errorf("cannot power the guest off: %w", g.process.ended())
	}
	g.logger.InfoContext(ctx, "guest was powered off")
	return &Overlay{path: g.overlayPath(), image: g.image, size: g.DiskBytes}, nil
}

// restart powers the guest off and starts it again as another.
func (q *QEMU) restart(ctx context.Context, g *guest, as Restart) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot start the guest again: %w", err)
		}
	}()
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, rebootTimeout, fmt.Errorf("%w within %s", ErrNoAnswer, rebootTimeout))
	defer cancel()
	if err := g.goAhead(ctx, as.Later); err != nil {
		return err
	}
	overlay, err := g.powerOff(ctx)
	if err != nil {
		return err
	}
	g.wire.close()
	g.console.judge(g.variant.DataSource)
	defer func() { g.console.watch.stop() }()
	if as.InstanceID != "" {
		if err := g.move(as.InstanceID); err != nil {
			return err
		}
	}
	if as.MoreBytes > 0 {
		if _, err := overlay.inspect(); err != nil { // its header names what qemu-img opens
			return err
		}
		if err := resizeOverlay(ctx, q.Img, overlay.path, overlay.size+as.MoreBytes); err != nil {
			return err
		}
		g.DiskBytes += as.MoreBytes
	}
	if err := q.launch(ctx, g); err != nil {
		return err
	}
	if as.InstanceID != "" { // it is to have another key, and if it has not its console says so too
		if err := g.awaitKey(ctx); err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	if err := g.awaitLogin(ctx, rebootTimeout); err != nil { // it has shown nothing yet
		return errors.Join(context.Cause(ctx), err)
	}
	// Its status is that of the system, which the checks judge.
	if _, err := g.ask(ctx, "systemctl is-system-running --wait"); err != nil {
		return err
	}
	if as.InstanceID != "" {
		g.Target.Password = ""
		if err := g.awaitHint(ctx); err != nil {
			return err
		}
	}
	g.logger.InfoContext(ctx, "guest was started again", "after", time.Since(began).Round(time.Second))
	return nil
}

// dial logs the guest's user in.
func (g *guest) dial(ctx context.Context) (*ssh.Client, error) {
	return sshconn.Dial(ctx, sshconn.Config{
		Address: g.Target.Address, User: g.Target.User, HostKey: g.Target.HostKey,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(g.Target.Signer)}, HandshakeTimeout: g.patience.attempt,
	})
}

// ask runs a command in the guest and returns what it says, without line breaks at its end.
func (g *guest) ask(ctx context.Context, command string) (string, error) {
	client, err := g.dial(ctx)
	if err != nil {
		return "", err
	}
	defer client.Close()
	res, err := sshconn.Run(ctx, client, command, nil, 1024)
	return strings.TrimSpace(string(res.Stdout)), err
}

// ordered has the guest's user run a command that ends the connection, or does not. Only
// that it was refused is an error.
func (g *guest) ordered(ctx context.Context, command string) error {
	client, err := g.dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	res, err := sshconn.Run(ctx, client, command, nil, 1024)
	if err != nil {
		g.logger.DebugContext(ctx, "the guest's connection ended", "error", err) // as is to be expected
		return ctx.Err()
	}
	if res.ExitStatus != 0 {
		return fmt.Errorf("\"%s\" ended with status %d: it said \"%s\"", command, res.ExitStatus, quote(strings.TrimSpace(string(res.Stderr))))
	}
	return nil
}

// awaitConsole waits until done likes what the console has shown.
func (g *guest) awaitConsole(ctx context.Context, done func(key ssh.PublicKey, user, pass string) bool) error {
	for {
		key, user, pass, changed := g.console.state()
		if done(key, user, pass) {
			return nil
		}
		if err := g.pause(ctx, changed); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("its console showed no host key: %w", ctx.Err())
			}
			return err
		}
	}
}

// awaitLogin tries until the guest lets the user in. A wrong host key ends it
// at once: waiting makes it no better. The guest's boot took so long before.
func (g *guest) awaitLogin(ctx context.Context, took time.Duration) error {
	began := time.Now()
	for {
		_, err := g.ask(ctx, "true")
		if err == nil {
			return nil
		}
		var keyErr *sshconn.HostKeyError
		if errors.As(err, &keyErr) {
			return err
		}
		switch waited := time.Since(began); {
		case waited > g.patience.network+took && g.wire.network.Flows() == "":
			return fmt.Errorf("%w: %w", g.console.watch.fail(NoNetwork, ""), err)
		case waited > g.patience.login+took:
			return fmt.Errorf("%w: %w", g.console.watch.fail(Frozen, ""), err)
		}
		if perr := g.pause(ctx, nil); perr != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %w", err, ctx.Err())
			}
			return perr
		}
	}
}

// pause waits for a while or until changed, and returns what makes further
// waiting useless.
func (g *guest) pause(ctx context.Context, changed <-chan struct{}) error {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-g.console.watch.ended:
		return g.console.watch.verdict()
	case <-g.process.done:
		if g.process.err == nil {
			return g.console.watch.fail(PoweredOff, "")
		}
		return g.process.ended()
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		// QEMU halts a guest whose disk cannot grow, without a word.
		return enoughSpace(g.dir)
	}
}

// minFreeBytes is what a guest that boots writes within a few pauses.
const minFreeBytes = 64 << 20

// enoughSpace refuses a directory whose file system is about to be full.
func enoughSpace(dir string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("cannot tell the free space of %s: %w", dir, err)
	}
	if free := uint64(st.Bavail) * uint64(st.Bsize); free < minFreeBytes { //nolint:unconvert // their types differ between systems
		return fmt.Errorf("cannot keep the guest's disk in %s: %d MiB are free: %w", dir, free>>20, syscall.ENOSPC)
	}
	return nil
}
