// Command bench measures the suite against what a loop of commands over SSH and
// ssh-audit (a program, in PATH) take for the same machine, in turns, and prints the
// ratios of the medians. The machines are SSH servers on loopback that answer as a
// recorded Debian 12 does, so that what is measured is the suite and its way to the
// machine. With -host it measures instead how long two programs gather of a machine that
// runs, which it asks in turns: -program and -before, both bin/hardening.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

func main() {
	rounds := flag.Int("rounds", 5, "`number` of turns")
	host := flag.String("host", "", "`arguments` of both programs for a machine that runs, such as \"-host H -user U -key FILE -hostkey FILE\"")
	program := flag.String("program", "bin/hardening", "the built `program`")
	before := flag.String("before", "", "an older `program` to compare with")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var err error
	if *host != "" {
		err = gathering(ctx, *rounds, *program, *before, strings.Fields(*host))
	} else {
		err = bench(ctx, *rounds)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
}

// turns runs what is compared in turns and prints the ratio of the medians.
func turns(ctx context.Context, rounds int, title, goal string, ours, peer func(context.Context) error) error {
	var times [2][]time.Duration
	for range rounds {
		for i, f := range []func(context.Context) error{ours, peer} {
			began := time.Now()
			if err := f(ctx); err != nil {
				return fmt.Errorf("cannot measure %s: %w", title, err)
			}
			times[i] = append(times[i], time.Since(began))
		}
	}
	a, b := median(times[0]), median(times[1])
	fmt.Printf("%-58s %10s %10s  ratio %.3f  want %s\n", title, a.Round(time.Millisecond), b.Round(time.Millisecond), float64(a)/float64(b), goal)
	return nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

const (
	latency = 20 * time.Millisecond
	hosts   = 50
)

func bench(ctx context.Context, rounds int) error {
	dir, err := os.MkdirTemp("", "imagefactory-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image.qcow2")
	if err := sandboxtest.WriteImage(image, 4<<30); err != nil {
		return err
	}
	m, err := sandboxtest.Sandbox{}.Boot(ctx, sandbox.Image{Path: image})
	if err != nil {
		return err
	}
	defer m.Close()
	otc := &testsuite.Suite{Profile: testsuite.OTC()}
	facts, err := otc.Gather(ctx, m.Target)
	if err != nil {
		return err
	}
	fmt.Printf("round trips of the whole suite: %d, want at most 6\n", facts.RoundTrips)

	far := m.Target
	address, stop, err := delayed(ctx, m.Target.Address)
	if err != nil {
		return err
	}
	defer stop()
	far.Address = address
	gather := func(s *testsuite.Suite, t testsuite.Target) func(context.Context) error {
		return func(ctx context.Context) error { return complete(ctx, s, t) }
	}
	errs := []error{
		turns(ctx, rounds, "the suite : a command for each check, 20 ms away", "0.1", gather(otc, far), func(ctx context.Context) error {
			return commands(ctx, far, len(otc.Profile.Checks))
		}),
		turns(ctx, rounds, "what is offered on the wire : ssh-audit", "0.2", gather(wireOnly(otc), m.Target), func(ctx context.Context) error {
			return audit(ctx, m.Target.Address)
		}),
		turns(ctx, rounds, fmt.Sprintf("%d machines at once, 20 ms away : one", hosts), "5", func(ctx context.Context) error {
			var group errgroup.Group
			for range hosts {
				group.Go(func() error { return complete(ctx, otc, far) })
			}
			return group.Wait()
		}, gather(otc, far)),
	}
	return errors.Join(errs...)
}

// complete gathers all that a suite needs, and nothing less.
func complete(ctx context.Context, s *testsuite.Suite, t testsuite.Target) error {
	facts, err := s.Gather(ctx, t)
	if err != nil {
		return err
	}
	for _, c := range s.Profile.Checks {
		for _, need := range c.Needs {
			if _, err := facts.Text(need); err != nil && facts.Facts[need].Omitted == "" {
				return err
			}
		}
	}
	return nil
}

// wireOnly is the part of a suite for which nobody logs in.
func wireOnly(s *testsuite.Suite) *testsuite.Suite {
	p := testsuite.Profile{Name: "wire"}
	for _, c := range s.Profile.Checks {
		if slices.Equal(c.Needs, []string{"wire-algorithms"}) || slices.Equal(c.Needs, []string{"wire-password"}) {
			p.Checks = append(p.Checks, c)
		}
	}
	return &testsuite.Suite{Profile: p}
}

// commands is what a simple program does: it logs in and runs a command for each
// check, one after the other on one connection.
func commands(ctx context.Context, t testsuite.Target, n int) error {
	client, err := sshconn.Dial(ctx, sshconn.Config{Address: t.Address, User: t.User, HostKey: t.HostKey, Auth: []ssh.AuthMethod{ssh.PublicKeys(t.Signer)}})
	if err != nil {
		return err
	}
	defer client.Close()
	for range n {
		if _, err := sshconn.Run(ctx, client, "true", nil, 1024); err != nil {
			return err
		}
	}
	return nil
}

func audit(ctx context.Context, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "ssh-audit", "-b", "-p", port, host).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(string(out), "(kex)") { // its status is its verdict
		return nil
	}
	return err
}

// delayed is a proxy before an address that hands on each packet later.
func delayed(ctx context.Context, to string) (address string, stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			go later(out, in)
			go later(in, out)
		}
	}()
	return l.Addr().String(), func() { _ = l.Close() }, nil
}

// later copies what it reads, each part half of the round trip's latency after it
// came: the parts do not wait for one another.
func later(dst io.WriteCloser, src io.Reader) {
	type part struct {
		due  time.Time
		data []byte
	}
	parts := make(chan part, 1024)
	go func() {
		defer dst.Close()
		for p := range parts {
			time.Sleep(time.Until(p.due))
			if _, err := dst.Write(p.data); err != nil {
				break
			}
		}
		for range parts { // until the reader has ended
		}
	}()
	defer close(parts)
	for {
		buf := make([]byte, 32<<10)
		n, err := src.Read(buf)
		if n > 0 {
			parts <- part{time.Now().Add(latency / 2), buf[:n]}
		}
		if err != nil {
			return
		}
	}
}

// gathering compares two programs on one machine.
func gathering(ctx context.Context, rounds int, program, before string, args []string) error {
	run := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 1 { // it judges too
				return nil
			}
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
	}
	return turns(ctx, rounds, "gathering and judging : before", "0.7", run(program), run(before))
}
