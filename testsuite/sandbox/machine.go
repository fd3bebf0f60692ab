package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// A Machine is a guest that runs and lets its user in.
type Machine struct {
	Target     testsuite.Target // how to reach it
	Hostname   string           // what it was told that it is called
	ImageBytes int64            // virtual size of the image
	DiskBytes  int64            // size of the disk that the guest sees
	Accel      string           // "kvm" or "tcg"

	process    *process // nil until QEMU was started
	console    *console
	consoleLog string
	image      string
	dir        string
	close      sync.Once
	closeErr   error
}

func (m *Machine) seedPath() string    { return filepath.Join(m.dir, "seed.iso") }
func (m *Machine) overlayPath() string { return filepath.Join(m.dir, "overlay.qcow2") }

// Console returns what the guest printed on its serial console so far: at
// most about 1 MiB, with passwords redacted.
func (m *Machine) Console() []byte { return m.console.log() }

// Close ends the guest at once, as a power cut would, removes its files and
// writes the console log. It may be called more than once.
func (m *Machine) Close() error {
	m.close.Do(func() {
		if m.process != nil {
			m.process.stop()
		}
		if m.consoleLog != "" {
			if err := os.WriteFile(m.consoleLog, m.console.log(), 0o600); err != nil { //nolint:gosec // the caller names it
				m.closeErr = fmt.Errorf("cannot keep the console log: %w", err)
			}
		}
		if err := os.RemoveAll(m.dir); err != nil { //nolint:gosec // made by MkdirTemp
			m.closeErr = errors.Join(m.closeErr, fmt.Errorf("cannot remove the sandbox's files: %w", err))
		}
	})
	return m.closeErr
}

const (
	retryPause   = 2 * time.Second
	loginTimeout = 2 * time.Minute // one attempt: an emulated key exchange takes seconds
	hintPatience = 90 * time.Second
)

// await waits for the host keys on the console, then for a login, then a
// little for the login hint. m.Target is complete afterwards.
func (q *QEMU) await(ctx context.Context, m *Machine) error {
	began := time.Now()
	booting, cancel := context.WithTimeout(ctx, q.BootTimeout)
	defer cancel()
	err := m.awaitConsole(booting, func(key ssh.PublicKey, _, _ string) bool {
		m.Target.HostKey = key
		return key != nil
	})
	if err == nil {
		q.Logger.InfoContext(ctx, "guest showed its host key", "after", time.Since(began).Round(time.Second),
			"key", ssh.FingerprintSHA256(m.Target.HostKey))
		err = m.awaitLogin(booting)
	}
	if err != nil {
		if ctx.Err() == nil && booting.Err() != nil {
			return fmt.Errorf("%w within %s: %w", ErrNoAnswer, q.BootTimeout, err)
		}
		return err
	}
	q.Logger.InfoContext(ctx, "guest let its user in", "user", q.User, "after", time.Since(began).Round(time.Second))
	hint, cancelHint := context.WithTimeout(booting, hintPatience)
	defer cancelHint()
	err = m.awaitConsole(hint, func(_ ssh.PublicKey, user, pass string) bool {
		if user == q.User {
			m.Target.Password = pass
		}
		return pass != ""
	})
	if err != nil && hint.Err() == nil {
		return err // QEMU died; a hint that never comes is for a check to tell
	}
	return ctx.Err()
}

// awaitConsole waits until done likes what the console has shown.
func (m *Machine) awaitConsole(ctx context.Context, done func(key ssh.PublicKey, user, pass string) bool) error {
	for {
		key, user, pass, changed := m.console.state()
		if done(key, user, pass) {
			return nil
		}
		if err := m.pause(ctx, changed); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("its console showed no host key: %w", ctx.Err())
			}
			return err
		}
	}
}

// awaitLogin tries until the guest lets the user in. A wrong host key ends it
// at once: waiting makes it no better.
func (m *Machine) awaitLogin(ctx context.Context) error {
	for {
		client, err := sshconn.Dial(ctx, sshconn.Config{
			Address: m.Target.Address, User: m.Target.User, HostKey: m.Target.HostKey,
			Auth: []ssh.AuthMethod{ssh.PublicKeys(m.Target.Signer)}, HandshakeTimeout: loginTimeout,
		})
		if err == nil {
			_, err = sshconn.Run(ctx, client, "true", nil, 1024)
			_ = client.Close()
			if err == nil {
				return nil
			}
		}
		var keyErr *sshconn.HostKeyError
		if errors.As(err, &keyErr) {
			return err
		}
		if perr := m.pause(ctx, nil); perr != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%w: %w", err, ctx.Err())
			}
			return perr
		}
	}
}

// pause waits for a while or until changed, and returns what makes further
// waiting useless.
func (m *Machine) pause(ctx context.Context, changed <-chan struct{}) error {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-m.process.done:
		return m.process.ended()
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		// QEMU halts a guest whose disk cannot grow, without a word.
		return enoughSpace(m.dir)
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
