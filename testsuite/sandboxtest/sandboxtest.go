// Package sandboxtest is a sandbox for the tests of programs that embed the
// factory: it starts no guest and takes milliseconds.
//
//	factory := imagefactory.Factory{
//		Sandbox: sandboxtest.Sandbox{},
//		…
//	}
//
// What the suite speaks with is a real SSH server on 127.0.0.1, which lets the
// login user in by the machine's key and nobody else by anything. The suite's
// probes of the wire see that server; its script is answered with facts that
// were recorded from a Debian 12 on its first boot, or with those that the
// caller sets. So a run of the factory takes the same way as with a real guest,
// up to the published release, or down to a check that fails:
//
//	facts := sandboxtest.Good()
//	facts["failed-units"] = testsuite.Fact{Output: "chrony.service loaded failed failed\n"}
//	factory.Sandbox = sandboxtest.Sandbox{Facts: facts}
//
// # Limits
//
// It says nothing about the image: that is only looked at for being a qcow2.
// The recorded machine has the time servers and repositories that are a Debian
// definition's defaults, an image of 4 GiB on a disk of 8 GiB, and no
// uvp-monitor; a definition that wants other things needs facts that have them.
package sandboxtest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
	"github.com/opentelekomcloud/go-imagefactory/qcow2"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

//go:embed debian12.json
var recorded []byte

// recordedUser is the login user of the recorded machine.
const recordedUser = "linux"

// Good returns a copy of the recorded facts, by name, for the caller to change.
func Good() map[string]testsuite.Fact {
	facts, err := testsuite.LoadFacts(bytes.NewReader(recorded))
	if err != nil {
		panic(err) // embedded, and loaded by this package's tests
	}
	return facts.Facts
}

// Sandbox is a [sandbox.Sandbox] without guests. The zero value is good; Boot
// may be called concurrently.
type Sandbox struct {
	// Facts are what each machine says of itself, by name; a Fact with an Error
	// is one that could not be read. They may be those of a machine of one's
	// own, as testsuite.LoadFacts has them. The names that begin with "wire-",
	// and "console", "script" and "sockets-later", are not the script's and not used. If nil,
	// those of Good, with the image's user in the place of linux.
	Facts map[string]testsuite.Fact
}

// password is what the machine's console seems to show. Its server lets nobody
// in by one.
const password = "sandboxtest-T4kQ9w"

// Boot starts a server for the machine. It looks at the image only to see that
// it is a qcow2, and for its size.
func (s Sandbox) Boot(ctx context.Context, image sandbox.Image) (*sandbox.Machine, error) {
	m, err := s.boot(ctx, image)
	if err != nil {
		return nil, &sandbox.BootError{Image: image.Path, Err: err}
	}
	return m, nil
}

func (s Sandbox) boot(ctx context.Context, image sandbox.Image) (*sandbox.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if v := image.Variant; v.Firmware != "" || v.Disk != "" || v.NIC != "" || v.DataSource != "" {
		return nil, fmt.Errorf("cannot make a machine of another kind than the recorded one: %w", errors.ErrUnsupported)
	}
	size, err := imageSize(image.Path)
	if err != nil {
		return nil, err
	}
	user := cmp.Or(image.User, recordedUser)
	facts := s.Facts
	if facts == nil {
		facts = Good()
		for _, name := range []string{"users", "sudo", "accounts", "sudo-rules", "authorized-keys"} {
			f := facts[name]
			f.Output = strings.ReplaceAll(f.Output, recordedUser, user)
			facts[name] = f
		}
	}
	login, err := newSigner()
	if err != nil {
		return nil, err
	}
	// The keys that sshd accepts are this machine's, where they are the recorded one.
	keys := facts["authorized-keys"]
	if was := strings.TrimSpace(facts["login-key"].Output); was != "" {
		keys.Output = strings.ReplaceAll(keys.Output, was, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(login.PublicKey()))))
		facts = maps.Clone(facts)
		facts["authorized-keys"] = keys
	}
	host, err := newSigner()
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		sshtest.Serve(l, host, sshtest.Options{Config: serverConfig(user, login.PublicKey()), Exec: answer(facts)})
	}()
	return &sandbox.Machine{
		Target: testsuite.Target{
			Address: l.Addr().String(), User: user, Signer: login, HostKey: host.PublicKey(), Password: password,
		},
		Hostname: word(facts["hostname"].Output, "kernel"), ImageBytes: size, DiskBytes: number(facts["disk"].Output, "disk-bytes"),
		Stop: func() error {
			err := l.Close()
			<-served
			return err
		},
	}, nil
}

// serverConfig is that of a well-kept sshd.
func serverConfig(user string, key ssh.PublicKey) *ssh.ServerConfig {
	return &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: []string{ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519},
			Ciphers:      []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES256GCM, ssh.CipherAES128GCM},
			MACs:         []string{ssh.HMACSHA512ETM, ssh.HMACSHA256ETM},
		},
		PublicKeyCallback: func(c ssh.ConnMetadata, got ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() == user && bytes.Equal(got.Marshal(), key.Marshal()) {
				return nil, nil
			}
			return nil, errors.New("not the machine's user or key")
		},
	}
}

// beginLine is what the script is to say first.
var beginLine = regexp.MustCompile(`@@begin [A-Z2-7]+`)

// answer answers the suite's script as it would answer itself, and whatever
// else is run with success.
func answer(facts map[string]testsuite.Fact) func(string, ssh.Channel) int {
	return func(_ string, ch ssh.Channel) int {
		script, err := io.ReadAll(io.LimitReader(ch, 1<<20))
		if err != nil {
			return 1
		}
		if !bytes.Contains(script, []byte("@@end")) {
			return 0
		}
		w := bufio.NewWriter(ch)
		fmt.Fprintf(w, "%s\n", beginLine.Find(script))
		for _, name := range slices.Sorted(maps.Keys(facts)) {
			if strings.HasPrefix(name, "wire-") || name == "console" || name == "script" || name == "login-key" || name == "sockets-later" {
				continue
			}
			f, status := facts[name], 0
			if f.Error != "" {
				f.Output, status = f.Error, 1
			}
			fmt.Fprintf(w, "@@fact %s %d 0 %d %d\n%s\n", name, status, f.DurationMS/10, len(f.Output), f.Output)
		}
		fmt.Fprintln(w, "@@end")
		if err := w.Flush(); err != nil {
			return 1
		}
		return 0
	}
}

func newSigner() (ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromSigner(key)
}

// word is what follows a line's first word.
func word(text, first string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, first+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func number(text, first string) int64 {
	n, err := strconv.ParseInt(word(text, first), 10, 64)
	if err != nil {
		return 0 // unknown
	}
	return n
}

func imageSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	info, err := qcow2.Inspect(f, st.Size())
	if err != nil {
		return 0, err
	}
	return info.VirtualSize, nil
}
