package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshtest"
	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/boots"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/ledger"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandboxtest"
)

// TestMain lets the test binary stand in for the program, with a sandbox that
// boots nothing.
func TestMain(m *testing.M) {
	if os.Getenv("HARDENING_MAIN") != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr, sandboxtest.Sandbox{}))
	}
	os.Exit(m.Run())
}

// program runs the program; fd 3 has a passphrase.
func program(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "passphrase")
	require.NoError(t, os.WriteFile(secret, []byte("open sesame\n"), 0o600))
	f, err := os.Open(secret)
	require.NoError(t, err)
	defer f.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "HARDENING_MAIN=1")
	cmd.ExtraFiles = []*os.File{f}
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	require.NotContains(t, diag.String(), "panic")
	return cmd.ProcessState.ExitCode(), out.String(), diag.String()
}

// host is a machine that runs: a real SSH server that lets linux in by the key in
// a file, and says what sandboxtest has recorded.
type host struct {
	dir, address string
	key, hostKey string // files
	public       ssh.PublicKey
	signer       ssh.Signer // the host's
}

func startHost(t *testing.T, listen string, facts map[string]testsuite.Fact, certify func(*host) ssh.Signer) *host {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Skipf("cannot listen on %s: %v", listen, err)
	}
	h := &host{dir: t.TempDir(), address: l.Addr().String(), signer: sshtest.Signer(t)}
	h.public = h.signer.PublicKey()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	h.key = h.file(t, "key", string(pem.EncodeToMemory(block)))
	block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("open sesame"))
	require.NoError(t, err)
	h.file(t, "locked", string(pem.EncodeToMemory(block)))
	h.hostKey = h.file(t, "host.pub", authorized(h.public))
	user, err := ssh.NewSignerFromSigner(private)
	require.NoError(t, err)
	if keys, ok := facts["authorized-keys"]; ok { // this machine's, where they are the recorded one
		keys.Output = strings.ReplaceAll(keys.Output, strings.TrimSpace(facts["login-key"].Output), strings.TrimSpace(authorized(user.PublicKey())))
		facts["authorized-keys"] = keys
	}
	config := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: []string{ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519},
			Ciphers:      []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES256GCM},
			MACs:         []string{ssh.HMACSHA512ETM},
		},
		PublicKeyCallback: func(c ssh.ConnMetadata, got ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() == "linux" && bytes.Equal(got.Marshal(), user.PublicKey().Marshal()) {
				return nil, nil
			}
			return nil, errors.New("refused")
		},
	}
	if certify != nil {
		config.AddHostKey(certify(h))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		sshtest.Serve(l, h.signer, sshtest.Options{Config: config, Exec: answer(facts)})
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return h
}

// answer answers the suite's script with the facts that it wants.
func answer(facts map[string]testsuite.Fact) func(string, ssh.Channel) int {
	return func(_ string, ch ssh.Channel) int {
		script, err := io.ReadAll(ch)
		if err != nil || !bytes.Contains(script, []byte("@@end")) {
			return 0
		}
		_, list, _ := bytes.Cut(script, []byte("wanted='"))
		list, _, _ = bytes.Cut(list, []byte("'"))
		w := bufio.NewWriter(ch)
		_, begin, _ := bytes.Cut(script, []byte("'"))
		begin, _, _ = bytes.Cut(begin, []byte("'"))
		fmt.Fprintf(w, "%s\n", begin)
		for _, name := range strings.Fields(string(list)) {
			fmt.Fprintf(w, "@@fact %s 0 0 1 %d\n%s\n", name, len(facts[name].Output), facts[name].Output)
		}
		fmt.Fprintln(w, "@@end")
		_ = w.Flush()
		return 0
	}
}

func authorized(key ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(key)) }

func (h *host) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(h.dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const nightly = "../nightly/nightly.yaml"

// reading is the report in JSON, and how many checks of a status it has.
func reading(t *testing.T, stdout string) *testsuite.Report {
	t.Helper()
	var r testsuite.Report
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.NotEmpty(t, r.Checks)
	return &r
}

func TestHost(t *testing.T) {
	h := startHost(t, "127.0.0.1:0", sandboxtest.Good(), nil)
	facts := filepath.Join(h.dir, "facts.json")
	base := []string{"-host", h.address, "-user", "linux", "-key", h.key, "-hostkey", h.hostKey, "-config", nightly}
	code, stdout, stderr := program(t, append(base, "-format", "json", "-facts-out", facts)...)
	require.Equal(t, 0, code, "%s%s", stdout, stderr)
	r := reading(t, stdout)
	assert.Equal(t, h.address, r.Host)
	assert.LessOrEqual(t, r.RoundTrips, 6)
	assert.Empty(t, r.Bad())
	assert.Greater(t, r.Summary.Pass, 50)
	skipped := map[string]string{}
	for _, c := range r.Checks {
		if c.Status == testsuite.Skipped {
			skipped[c.ID] = c.Reason
		}
	}
	assert.Contains(t, skipped["console.password-hint"], "console is not seen")
	assert.NotContains(t, skipped, "sshd.password-login", "it is seen on the wire that none is offered")

	// What was seen is judged again, by a definition that wants more.
	code, again, stderr := program(t, "-facts-in", facts, "-config", nightly, "-format", "json")
	require.Equal(t, 0, code, stderr)
	assert.Equal(t, stdout, again)
	code, again, _ = program(t, "-facts-in", facts, "-name", "Standard_Debian_9", "-format", "text")
	assert.Equal(t, 1, code)
	assert.Contains(t, again, "fail ")

	code, stdout, stderr = program(t, append(base, "-read-only", "-format", "json")...)
	require.Equal(t, 0, code, stderr)
	r = reading(t, stdout)
	assert.LessOrEqual(t, r.RoundTrips, 5)
	for _, c := range r.Checks {
		if c.ID == "sshd.root-login" {
			assert.Equal(t, testsuite.Skipped, c.Status)
		}
	}
	code, stdout, stderr = program(t, append(base, "-format", "junit")...)
	require.Equal(t, 0, code, stderr)
	require.NoError(t, xml.Unmarshal([]byte(stdout), new(struct{})))
}

// What is bad is tried again, and its first outcome kept.
func TestRerun(t *testing.T) {
	facts := sandboxtest.Good()
	facts["failed-units"] = testsuite.Fact{Output: "chrony.service loaded failed failed\n"}
	h := startHost(t, "127.0.0.1:0", facts, nil)
	code, stdout, stderr := program(t, "-host", h.address, "-key", h.key, "-hostkey", h.hostKey, "-config", nightly, "-format", "json", "-rerun")
	require.Equal(t, 1, code, stderr)
	bad := reading(t, stdout).Bad()
	require.Len(t, bad, 1)
	require.NotNil(t, bad[0].First)
	assert.Equal(t, testsuite.Fail, bad[0].First.Status)
	assert.Contains(t, bad[0].First.Found, "chrony.service")
}

// Without a definition nothing says what the machine should have.
func TestHostWithoutDefinition(t *testing.T) {
	h := startHost(t, "127.0.0.1:0", sandboxtest.Good(), nil)
	code, stdout, stderr := program(t, "-host", h.address, "-key", h.key, "-hostkey", h.hostKey, "-format", "json")
	require.Equal(t, 1, code, stderr)
	for _, c := range reading(t, stdout).Bad() {
		assert.Contains(t, []string{"ntp.servers", "ntp.sources", "updates.repositories", "uvp.monitor"}, c.ID, c.Reason)
	}
}

// A login is neither needed nor tried for what the wire shows.
// Another day's checks judge what a release keeps, and say what has changed.
func TestCompareWithFactsOfRelease(t *testing.T) {
	facts := testsuite.Facts{Host: "h", Facts: sandboxtest.Good()}
	facts.Given = testsuite.Given{Hostname: "otc-sandbox", DiskBytes: 4 << 30, OverlayBytes: 8 << 30}
	dir := t.TempDir()
	write := func(name string, facts testsuite.Facts) string {
		name = filepath.Join(dir, name)
		f, err := os.Create(name)
		require.NoError(t, err)
		z := gzip.NewWriter(f)
		require.NoError(t, errors.Join(facts.Save(z), z.Close(), f.Close()))
		return name
	}
	good := write("good.facts.json.gz", facts)
	config := facts.Facts["sshd-config"]
	config.Output = strings.Replace(config.Output, "permitrootlogin no", "permitrootlogin yes", 1)
	facts.Facts["sshd-config"] = config
	bad := write("bad.facts.json.gz", facts)
	report := func(facts, format string, more ...string) string {
		code, out, stderr := program(t, append([]string{"-facts-in", facts, "-config", nightly, "-format", format}, more...)...)
		require.Less(t, code, 2, stderr)
		name := filepath.Join(dir, filepath.Base(facts)+"."+format)
		require.NoError(t, os.WriteFile(name, []byte(out), 0o600))
		return name
	}
	was, is := report(good, "json"), report(bad, "json")
	text, err := os.ReadFile(report(bad, "text", "-compare", was))
	require.NoError(t, err)
	require.Contains(t, string(text), "broken  sshd.permit-root-login")
	require.Contains(t, string(text), "1 broken, 0 new")
	text, err = os.ReadFile(report(bad, "html", "-compare", is, "-compare", was))
	require.NoError(t, err)
	require.Contains(t, string(text), "flapping: fail → pass → fail")
	text, err = os.ReadFile(report(good, "tap"))
	require.NoError(t, err)
	require.Contains(t, string(text), "ok 1 - ")
	require.NotContains(t, string(text), "no host name", "what the machine was given is known")
	for _, args := range [][]string{{"-compare", good}, {"-compare", was, "-format", "tap"}, {"-compare", filepath.Join(dir, "none")}} {
		code, _, _ := program(t, append(args, "-facts-in", good, "-config", nightly)...)
		require.Equal(t, 2, code, args)
	}
}

func TestWireOnly(t *testing.T) {
	h := startHost(t, "127.0.0.1:0", nil, nil)
	code, stdout, stderr := program(t, "-host", h.address, "-hostkey", h.hostKey, "-wire-only", "-format", "json")
	require.Equal(t, 0, code, "%s%s", stdout, stderr)
	r := reading(t, stdout)
	assert.Len(t, r.Checks, 12)
	assert.Equal(t, 7, r.Summary.Pass)
	assert.Equal(t, 5, r.Summary.Skipped, "what only a witness sees")

	code, stdout, stderr = program(t, "-list", "-wire-only")
	require.Equal(t, 0, code, stderr)
	assert.Equal(t, 13, strings.Count(stdout, "\n"), stdout)
	code, stdout, stderr = program(t, "-list")
	require.Equal(t, 0, code, stderr)
	assert.Equal(t, 1+len(testsuite.OTC().Checks)+len(ledger.LiveChecks()), strings.Count(stdout, "\n"))
	code, stdout, _ = program(t, "-list", "-format", "json")
	require.Equal(t, 0, code)
	var list []struct{ ID string }
	require.NoError(t, json.Unmarshal([]byte(stdout), &list))
	assert.Len(t, list, len(testsuite.OTC().Checks)+len(ledger.LiveChecks()))
}

func TestImage(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image.qcow2")
	require.NoError(t, sandboxtest.WriteImage(image, 4<<30))
	code, stdout, stderr := program(t, "-image", image, "-config", nightly, "-name", "Standard_Debian_12", "-format", "json")
	require.Equal(t, 0, code, "%s%s", stdout, stderr)
	r := reading(t, stdout)
	assert.LessOrEqual(t, r.RoundTrips, 6)
	assert.LessOrEqual(t, r.Summary.Skipped, 16+len(boots.Checks()), "uvp.monitor, what a witness sees, the build's mirror where this machine has none, what is read of the disk, other machines")

	code, stdout, stderr = program(t, "-image", image, "-config", nightly, "-name", "Standard_Debian_12", "-format", "json", "-boots", "default")
	require.Equal(t, 0, code, "%s%s", stdout, stderr)
	assert.Contains(t, stdout, "makes no second machine of another kind")
	for _, args := range [][]string{{"-image", image, "-boots", "most"}, {"-facts-in", image, "-boots", "all"}} {
		code, _, stderr = program(t, args...)
		assert.Equal(t, 2, code)
		assert.Contains(t, stderr, "-boots", args)
	}

	code, _, stderr = program(t, "-image", image+"x")
	assert.Equal(t, 2, code)
	assert.Contains(t, stderr, "cannot boot")
}

func TestWaivers(t *testing.T) {
	facts := sandboxtest.Good()
	facts["failed-units"] = testsuite.Fact{Output: "chrony.service loaded failed failed\n"}
	h := startHost(t, "127.0.0.1:0", facts, nil)
	base := []string{"-host", h.address, "-key", h.key, "-hostkey", h.hostKey, "-config", nightly, "-format", "json"}
	code, stdout, _ := program(t, base...)
	require.Equal(t, 1, code)
	bad := reading(t, stdout).Bad()
	require.Len(t, bad, 1)
	for text, want := range map[string]struct {
		code int
		diag string
	}{
		"waivers: [{check: " + bad[0].ID + ", reason: being mended, expires: 2999-01-01}]\n": {0, ""},
		"waivers: [{check: " + bad[0].ID + ", reason: being mended, expires: 2019-01-01}]\n": {1, ""},
		"waivers: []\n": {1, ""},
		"waivers: [{check: none.such, reason: x, expires: 2999-01-01}]\n": {2, `has no such check`},
		"waivers:\n  - {check: ntp.servers, expires: 2999-01-01}\n":       {2, "waivers:2:5: a waiver needs check, reason and expires"},
		"waivers:\n  - {check: ntp.servers, why: x}\n":                    {2, `waivers:2:26: unknown field "why"`},
		"waivers: [{check: ntp.servers, reason: x, expires: tomorrow}]\n": {2, "bad date"},
		"images: []\n": {2, "unknown field"},
		"":             {2, "want one YAML document"},
		"x-none: 1\n":  {2, "want the key waivers"},
	} {
		code, _, stderr := program(t, append(base, "-waivers", h.file(t, "waivers", text))...)
		assert.Equal(t, want.code, code, "%q: %s", text, stderr)
		assert.Contains(t, stderr, want.diag, text)
	}
}

// TestHostKeys has every form in which a host key may be named, rightly or not.
func TestHostKeys(t *testing.T) {
	authority, stranger := sshtest.Signer(t), sshtest.Signer(t)
	h := startHost(t, "127.0.0.1:0", nil, func(h *host) ssh.Signer {
		cert := &ssh.Certificate{Key: h.public, CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
		require.NoError(t, cert.SignCert(rand.Reader, authority))
		signer, err := ssh.NewCertSigner(cert, h.signer)
		require.NoError(t, err)
		return signer
	})
	key := strings.TrimSpace(authorized(h.public))
	other := strings.TrimSpace(authorized(stranger.PublicKey()))
	ca := strings.TrimSpace(authorized(authority.PublicKey()))
	at := knownhosts.Normalize(h.address)
	both := "want ssh-ed25519 " + ssh.FingerprintSHA256(stranger.PublicKey()) + ", got ssh-ed25519 " + ssh.FingerprintSHA256(h.public)
	const rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDAk0s3fS6xW0bCAmkYwIzPLWFJ6kzmUq7Q8Ew== cut"
	for _, test := range []struct {
		name, flag, text string
		good             bool
		diag             string
	}{
		{"public key", "-hostkey", key, true, ""},
		{"with comment", "-hostkey", "# host\n\n" + key + " root@host\n", true, ""},
		{"ssh-keyscan", "-hostkey", at + " " + key + "\n", true, ""},
		{"several keys", "-hostkey", other + "\n" + key + "\n", true, ""},
		{"another key", "-hostkey", other, false, both},
		{"no key", "-hostkey", "\n", false, "holds no public key"},
		{"nonsense", "-hostkey", "hello\n", false, "file:1: no public key"},
		{"an authority", "-hostkey", "@cert-authority " + ca, false, "file:1: "},
		{"known", "-known-hosts", at + " " + key, true, ""},
		{"hashed", "-known-hosts", knownhosts.HashHostname(at) + " " + key, true, ""},
		{"without its port", "-known-hosts", "127.0.0.1 " + key, true, ""},
		{"another key known", "-known-hosts", at + " " + other, false, both},
		{"another key hashed", "-known-hosts", knownhosts.HashHostname(at) + " " + other, false, both},
		{"the port's key counts", "-known-hosts", "127.0.0.1 " + key + "\n" + at + " " + other, false, both},
		{"unknown", "-known-hosts", "host.example " + key, false, "got ssh-ed25519 " + ssh.FingerprintSHA256(h.public) + ": the machine is not in"},
		{"empty", "-known-hosts", "", false, "the machine is not in"},
		{"revoked", "-known-hosts", at + " " + key + "\n@revoked * " + key, false, "it is revoked in line 2 of"},
		{"revoked and cut", "-known-hosts", at + " " + key + "\n@revoked * " + key[:40], false, "file:2: cannot read a revoked key"},
		{"authority", "-known-hosts", "@cert-authority 127.0.0.* " + ca, true, ""},
		{"authority of another", "-known-hosts", "@cert-authority *.example " + ca, false, "the machine is not in"},
		{"another authority", "-known-hosts", "@cert-authority * " + other, false, "no authorities for hostname"},
		{"authority revoked", "-known-hosts", "@cert-authority * " + ca + "\n@revoked * " + ca, false, "revoked"},
		{"authority is no host", "-known-hosts", "@cert-authority " + at + " " + key, false, "no authorities for hostname"},
		{"key beside another's authority", "-known-hosts", at + " " + key + "\n@cert-authority * " + other, true, ""},
		{"lines that make no sense", "-known-hosts", "hello\n@what * " + key + "\n" + at + " " + rsa + "\n|1|x|y " + key + "\n" + at + " " + key, true, "file:4: passed over"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, stdout, stderr := program(t, "-host", h.address, "-key", h.key, test.flag, h.file(t, "file", test.text), "-format", "json")
			want := 2
			if test.good {
				want = 1 // it says nothing of itself
				assert.NotEmpty(t, reading(t, stdout).Checks)
			}
			assert.Equal(t, want, code, stderr)
			assert.Contains(t, stderr, test.diag)
			if !test.good {
				assert.Empty(t, stdout)
			}
		})
	}
}

func TestTrouble(t *testing.T) {
	h := startHost(t, "127.0.0.1:0", sandboxtest.Good(), nil)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	other := startHost(t, "127.0.0.1:0", nil, nil)
	for _, test := range []struct {
		args []string
		diag string
	}{
		{nil, "want one of -host"},
		{[]string{"-nonsense"}, "want one of -host"},
		{[]string{"-list", "more"}, "is no flag"},
		{[]string{"-list", "-host", h.address}, "want one of -host"},
		{[]string{"-list", "-format", "junit"}, "is none of text, json"},
		{[]string{"-host", h.address, "-image", "x"}, "want one of -host"},
		{[]string{"-host", h.address, "-key", h.key}, "the host key is always checked"},
		{[]string{"-host", h.address, "-key", h.key, "-hostkey", "x", "-known-hosts", "x"}, "one of -hostkey and -known-hosts"},
		{[]string{"-host", h.address, "-hostkey", h.hostKey}, "wants -key, or -wire-only"},
		{[]string{"-facts-in", "x", "-key", h.key}, "are for -host"},
		{[]string{"-facts-in", "x", "-rerun"}, "-rerun is for -host and -image"},
		{[]string{"-facts-in", "x", "-format", "xml"}, "is none of text, json, html, junit, tap"},
		{[]string{"-facts-in", h.hostKey}, "cannot load facts"},
		{[]string{"-facts-in", filepath.Join(h.dir, "none")}, "no such file"},
		{[]string{"-list", "-name", "Standard_Debain_9"}, "not in the catalog"},
		{[]string{"-list", "-config", nightly, "-name", "Other"}, "it has Standard_Debian_12"},
		{[]string{"-list", "-config", filepath.Join(h.dir, "none")}, "no such file"},
		{[]string{"-host", closed.Addr().String(), "-key", h.key, "-hostkey", h.hostKey}, "connection refused"},
		{[]string{"-host", closed.Addr().String(), "-wire-only", "-hostkey", h.hostKey}, "connection refused"},
		{[]string{"-host", h.address, "-key", other.key, "-hostkey", h.hostKey}, "cannot log in as linux"},
		{[]string{"-host", h.address, "-user", "nobody", "-key", h.key, "-hostkey", h.hostKey}, "cannot log in as nobody"},
		{[]string{"-host", h.address, "-wire-only", "-hostkey", other.hostKey}, ssh.FingerprintSHA256(h.public)},
		{[]string{"-host", h.address, "-key", h.hostKey, "-hostkey", h.hostKey}, "cannot read the private key"},
		{[]string{"-host", h.address, "-key", filepath.Join(h.dir, "locked"), "-hostkey", h.hostKey, "-passphrase-fd", "0"}, "cannot read the private key"},
		{[]string{"-host", h.address + "0", "-key", h.key, "-hostkey", h.hostKey}, "bad port"},
		{[]string{"-facts-in", h.file(t, "facts", "{}"), "-facts-out", filepath.Join(h.dir, "none", "x")}, "no such file"},
	} {
		code, stdout, stderr := program(t, test.args...)
		assert.Equal(t, 2, code, "%q: %s", test.args, stderr)
		assert.Empty(t, stdout, "%q", test.args)
		assert.Contains(t, stderr, test.diag, "%q", test.args)
	}
	locked := filepath.Join(h.dir, "locked")
	code, _, stderr := program(t, "-host", h.address, "-key", locked, "-passphrase-fd", "3", "-hostkey", h.hostKey, "-config", nightly)
	assert.Equal(t, 0, code, stderr)
	code, _, _ = program(t, "-h")
	assert.Equal(t, 0, code)
}

func TestIPv6(t *testing.T) {
	h := startHost(t, "[::1]:0", sandboxtest.Good(), nil)
	known := h.file(t, "known", knownhosts.Normalize(h.address)+" "+authorized(h.public))
	code, stdout, stderr := program(t, "-host", h.address, "-key", h.key, "-known-hosts", known, "-config", nightly)
	assert.Equal(t, 0, code, "%s%s", stdout, stderr)
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"host": "host:22", "Host.Example:2222": "host.example:2222", "192.0.2.1": "192.0.2.1:22", "192.0.2.1:1": "192.0.2.1:1",
		"::1": "[::1]:22", "[::1]": "[::1]:22", "[::1]:65535": "[::1]:65535", "fe80::1%eth0": "[fe80::1%eth0]:22", "[fe80::1%Eth0]:22": "[fe80::1%Eth0]:22", "2001:DB8:0::1": "[2001:db8::1]:22",
		"": "", ":22": "", "host:": "", "host:0": "", "host:65536": "", "host:ssh": "", "host:+22": "", "[host]:22": "", "[::1": "", "::1]:22": "",
		"user@host": "", "a b": "", "ssh://host": "", "1:2:3": "", "[]": "", "[]:22": "", "host/": "",
	} {
		got, err := address(in)
		assert.Equal(t, want, got, in)
		assert.Equal(t, want == "", err != nil, "%s: %v", in, err)
	}
}

// What OpenSSH's own tools write is read.
func TestOpenSSH(t *testing.T) {
	tools := needs.Tools(t, "ssh-keyscan", "ssh-keygen")
	h := startHost(t, "127.0.0.1:0", sandboxtest.Good(), nil)
	_, port, err := net.SplitHostPort(h.address)
	require.NoError(t, err)
	scan, err := exec.CommandContext(t.Context(), tools[0], "-T", "60", "-p", port, "127.0.0.1").Output()
	require.NoError(t, err)
	known := h.file(t, "scanned", string(scan))
	judged := func(args ...string) {
		code, stdout, stderr := program(t, append([]string{"-host", h.address, "-wire-only"}, args...)...)
		assert.Equal(t, 0, code, "%q: %s%s", args, stdout, stderr)
	}
	judged("-hostkey", known)
	judged("-known-hosts", known)
	out, err := exec.CommandContext(t.Context(), tools[1], "-H", "-f", known).CombinedOutput()
	require.NoError(t, err, string(out))
	judged("-hostkey", known)
	judged("-known-hosts", known)
	for _, form := range []string{"RFC4716", "PEM", "PKCS8"} {
		for _, passphrase := range []string{"", "open sesame"} {
			key := filepath.Join(h.dir, form+passphrase)
			out, err := exec.CommandContext(t.Context(), tools[1], "-q", "-t", "ecdsa", "-m", form, "-N", passphrase, "-f", key).CombinedOutput()
			require.NoError(t, err, string(out))
			// The server does not know the key, which says that it was read.
			diag := "cannot log in as linux"
			if form == "PKCS8" && passphrase != "" {
				diag = "ssh-keygen -p rewrites it"
			}
			code, _, stderr := program(t, "-host", h.address, "-key", key, "-passphrase-fd", "3", "-hostkey", h.hostKey)
			assert.Equal(t, 2, code)
			assert.Contains(t, stderr, diag, "%s %q", form, passphrase)
		}
	}
}
