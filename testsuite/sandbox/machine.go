package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
	accel      string   // "kvm" or "tcg"
	process    *process // nil until QEMU was started
	network    network.Config
	wire       *wire // nil until then
	console    *console
	consoleLog string
	image      string
	dir        string
	remove     func() error // removes dir
	logger     *slog.Logger
}

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
	loginTimeout = 2 * time.Minute // one attempt: an emulated key exchange takes seconds
	hintPatience = 90 * time.Second
	// A guest that has shown its host keys has its network and its sshd. It gets this
	// long beside the time that it took so far, by which a slow machine is known.
	networkPatience = time.Minute
	loginPatience   = 4 * time.Minute
)

// await waits for the host keys on the console, then for a login, then a
// little for the login hint. g.Target is complete afterwards.
func (q *QEMU) await(ctx context.Context, g *guest) error {
	began := time.Now()
	booting, cancel := context.WithTimeout(ctx, q.BootTimeout)
	defer cancel()
	err := g.awaitConsole(booting, func(key ssh.PublicKey, _, _ string) bool {
		g.Target.HostKey = key
		return key != nil
	})
	if err == nil {
		g.logger.InfoContext(ctx, "guest showed its host key", "after", time.Since(began).Round(time.Second),
			"key", ssh.FingerprintSHA256(g.Target.HostKey))
		err = g.awaitLogin(booting, time.Since(began))
	}
	if err != nil {
		if ctx.Err() == nil && booting.Err() != nil {
			return fmt.Errorf("%w within %s: %w", ErrNoAnswer, q.BootTimeout, err)
		}
		return err
	}
	g.logger.InfoContext(ctx, "guest let its user in", "user", g.Target.User, "after", time.Since(began).Round(time.Second))
	hint, cancelHint := context.WithTimeout(booting, hintPatience)
	defer cancelHint()
	err = g.awaitConsole(hint, func(_ ssh.PublicKey, user, pass string) bool {
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

const (
	rebootTimeout   = 15 * time.Minute
	powerOffTimeout = 5 * time.Minute // systemd gives a service 90 s to end
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
	if _, err := g.ask(ctx, "sudo -n systemctl reboot"); err != nil {
		g.logger.DebugContext(ctx, "the guest's connection ended", "error", err) // as is to be expected
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
	_, err := g.ask(limited, "sudo -n systemctl poweroff")
	select {
	case <-g.process.done:
	case <-limited.Done():
		return nil, fmt.Errorf("cannot power the guest off: %w", errors.Join(limited.Err(), err))
	}
	if g.process.err != nil {
		return nil, fmt.Errorf("cannot power the guest off: %w", g.process.ended())
	}
	g.logger.InfoContext(ctx, "guest was powered off")
	return &Overlay{path: g.overlayPath(), image: g.image, size: g.DiskBytes}, nil
}

// restart powers the guest off and starts it again with a larger disk.
func (q *QEMU) restart(ctx context.Context, g *guest, moreBytes int64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot start the guest again: %w", err)
		}
	}()
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, rebootTimeout, fmt.Errorf("%w within %s", ErrNoAnswer, rebootTimeout))
	defer cancel()
	overlay, err := g.powerOff(ctx)
	if err != nil {
		return err
	}
	g.wire.close()
	if moreBytes > 0 {
		if _, err := overlay.inspect(); err != nil { // its header names what qemu-img opens
			return err
		}
		if err := resizeOverlay(ctx, q.Img, overlay.path, overlay.size+moreBytes); err != nil {
			return err
		}
		g.DiskBytes += moreBytes
	}
	if err := q.launch(ctx, g); err != nil {
		return err
	}
	if err := g.awaitLogin(ctx, rebootTimeout); err != nil { // it has shown nothing yet
		return errors.Join(context.Cause(ctx), err)
	}
	// Its status is that of the system, which the checks judge.
	if _, err := g.ask(ctx, "systemctl is-system-running --wait"); err != nil {
		return err
	}
	g.logger.InfoContext(ctx, "guest was started again", "after", time.Since(began).Round(time.Second))
	return nil
}

// ask runs a command in the guest and returns what it says, without line breaks at its end.
func (g *guest) ask(ctx context.Context, command string) (string, error) {
	client, err := sshconn.Dial(ctx, sshconn.Config{
		Address: g.Target.Address, User: g.Target.User, HostKey: g.Target.HostKey,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(g.Target.Signer)}, HandshakeTimeout: loginTimeout,
	})
	if err != nil {
		return "", err
	}
	defer client.Close()
	res, err := sshconn.Run(ctx, client, command, nil, 1024)
	return strings.TrimSpace(string(res.Stdout)), err
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
		case waited > networkPatience+took && g.wire.network.Flows() == "":
			return fmt.Errorf("%w: %w", g.console.watch.fail(NoNetwork, ""), err)
		case waited > loginPatience+took:
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
