// Command bench measures the built signing program against gpg, sha256sum,
// sha512sum and openssl on the same file, in turns, and prints the ratios of the
// medians. It needs those tools and twice the size as disk space; the file
// should fit into the page cache.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/signing"
)

func main() {
	program := flag.String("program", "bin/signing", "the built `program`")
	size := flag.Int64("size", 2<<30, "size of the image in `bytes`")
	rounds := flag.Int("rounds", 5, "`number` of turns")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, *program, *size, *rounds)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
}

// contest is ours against a peer that does the same work.
type contest struct {
	name, goal   string
	ours, theirs [][]string // commands, one after the other
}

func bench(ctx context.Context, program string, size int64, rounds int) (err error) {
	program, err = filepath.Abs(program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-signing")
	if err != nil {
		return err
	}
	home := filepath.Join(dir, "gnupg")
	env := append(os.Environ(), "GNUPGHOME="+home, "LC_ALL=C")
	defer func() {
		_, killed := run(context.WithoutCancel(ctx), env, "gpgconf", "--kill", "all")
		err = errors.Join(err, killed, os.RemoveAll(dir))
	}()
	key, image, err := prepare(ctx, dir, home, env, size)
	if err != nil {
		return err
	}
	release := filepath.Dir(image)
	contests := []contest{{
		name:   "seal a release: SHA-256, SHA-512, signatures, SHA256SUMS",
		goal:   "0.35",
		ours:   [][]string{{program, "sign-dir", "-key", key, release}},
		theirs: [][]string{{"gpg", "--batch", "--yes", "--detach-sign", image}, {"sha256sum", image}, {"sha512sum", image}},
	}, {
		name:   "verify a release",
		goal:   "none",
		ours:   [][]string{{program, "verify-dir", "-keyring", key + ".pub", release}},
		theirs: [][]string{{"gpg", "--batch", "--verify", image + ".asc", image}, {"sha256sum", image}},
	}, {
		name:   "signature and SHA-256",
		goal:   "1.2",
		ours:   [][]string{{program, "sign", "-key", key, image}},
		theirs: [][]string{{"openssl", "dgst", "-sha256", image}},
	}}
	fmt.Printf("image of %d bytes, %d rounds in turns\n", size, rounds)
	for _, c := range contests {
		if err := c.hold(ctx, env, rounds, release); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes an image of random bytes and a key that both sides use.
func prepare(ctx context.Context, dir, home string, env []string, size int64) (key, image string, err error) {
	release := filepath.Join(dir, "release")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Mkdir(release, 0o755)); err != nil {
		return "", "", err
	}
	key, image = filepath.Join(dir, "key"), filepath.Join(release, "image.qcow2")
	f, err := os.Create(image)
	if err != nil {
		return "", "", err
	}
	_, err = io.CopyN(f, rand.Reader, size)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", "", err
	}
	k, err := signing.GenerateKey(signing.KeyConfig{Name: "Bench", Email: "bench@example.com", Algorithm: signing.RSA3072})
	if err != nil {
		return "", "", err
	}
	if err := errors.Join(k.WriteSecretFile(key), k.WritePublicFile(key+".pub")); err != nil {
		return "", "", err
	}
	_, err = run(ctx, env, "gpg", "--batch", "--import", key)
	return key, image, err
}

func (c contest) hold(ctx context.Context, env []string, rounds int, release string) error {
	var ours, theirs []time.Duration
	var peak int64
	for range rounds {
		// gpg's binary signature must not be sealed with the release.
		if err := os.RemoveAll(filepath.Join(release, "image.qcow2.sig")); err != nil {
			return err
		}
		t, rss, err := timed(ctx, env, c.ours)
		if err != nil {
			return err
		}
		ours, peak = append(ours, t), max(peak, rss)
		if t, _, err = timed(ctx, env, c.theirs); err != nil {
			return err
		}
		theirs = append(theirs, t)
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	a, b := ours[rounds/2], theirs[rounds/2]
	_, err := fmt.Printf("%s\n  ours %.2fs (%.2f-%.2f), theirs %.2fs (%.2f-%.2f), ratio of medians %.2f (goal %s), our peak memory %.1f MiB\n",
		c.name, a.Seconds(), ours[0].Seconds(), ours[rounds-1].Seconds(),
		b.Seconds(), theirs[0].Seconds(), theirs[rounds-1].Seconds(), a.Seconds()/b.Seconds(), c.goal, float64(peak)/(1<<20))
	return err
}

// timed runs the commands and returns their wall time and the largest resident
// set in bytes.
func timed(ctx context.Context, env []string, commands [][]string) (time.Duration, int64, error) {
	start := time.Now()
	var peak int64
	for _, command := range commands {
		state, err := run(ctx, env, command[0], command[1:]...)
		if err != nil {
			return 0, 0, err
		}
		if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
			peak = max(peak, usage.Maxrss<<10)
		}
	}
	return time.Since(start), peak, nil
}

func run(ctx context.Context, env []string, name string, args ...string) (*os.ProcessState, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("cannot run %v: %w: %s", cmd.Args, err, out)
	}
	return cmd.ProcessState, nil
}
