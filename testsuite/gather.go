package testsuite

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/opentelekomcloud/go-imagefactory/internal/secretform"
	"github.com/opentelekomcloud/go-imagefactory/internal/sshconn"
)

//go:embed gather/*.sh
var gatherFiles embed.FS

// gatherScript is begin.sh and then the facts, those of cloud-init first: the
// script waits there for the end of the boot.
var gatherScript = readScripts("begin", "image", "sshd", "kernel", "services", "network", "users", "secret", "packages", "units", "files")

// laterScript is run when the rest has been, where the machine is thrown away.
var laterScript = readScripts("begin", "network", "later")

func readScripts(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		text, err := gatherFiles.ReadFile("gather/" + name + ".sh")
		if err != nil {
			panic(err) // it is part of the program
		}
		b.Write(text)
		b.WriteByte('\n')
	}
	return b.String()
}

const (
	maxFact      = 256 << 10 // bytes that one fact may say
	maxScriptOut = 8 << 20   // bytes that the script may say
	factPatience = 45        // seconds that one fact may take, unless the script says otherwise

	cleanTimeout     = 60 * time.Second
	cleanAfterCancel = 10 * time.Second // somebody waits for us to end
)

// endScript is the last line of the script.
const endScript = "echo @@end\n"

// restoreScript puts root's authorized_keys back as the script found it.
const restoreScript = `umask 077
home=$(awk -F: '$1 == "root" {print $6}' /etc/passwd)
d=/run/otc-testsuite.root
[ -n "$home" ] && [ -d "$d" ] || exit 0
if [ -f "$d/saved" ]; then cp -p "$d/saved" "$home/.ssh/authorized_keys" || exit 1
else rm -f "$home/.ssh/authorized_keys"; fi
[ ! -f "$d/nodir" ] || rmdir "$home/.ssh"
rm -rf "$d"
`

// Gather reads the facts of a machine: one script on one SSH connection, run
// as root by sudo, and three probes of the wire (wire-algorithms before any
// login, wire-password with the console's password, wire-root with a key that
// the script has put into root's authorized_keys and that is taken out again
// afterwards). The script's facts are the ones in the package's documentation and
// those of s.Probes; only those that the checks of the profile need
// and s.Facts names are read, or all of them where the profile has no checks. Where
// only facts of the wire are needed nobody logs in, and the target needs no signer.
// What cannot be read is recorded as such; the error that Gather returns is a target
// that lacks what it needs, a mistake in a probe, or the end of ctx.
func (s *Suite) Gather(ctx context.Context, t Target) (Facts, error) {
	wanted := s.wanted()
	if t.Signer == nil && wantsScript(wanted) || t.HostKey == nil || !plainName(t.User) {
		return Facts{}, fmt.Errorf("cannot gather facts of %s: the target needs a signer, a host key and a plain user name, not %q", t.Address, t.User)
	}
	if err := s.validateProbes(); err != nil {
		return Facts{}, err
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	timeout := s.GatherTimeout
	if timeout == 0 {
		timeout = 10 * time.Minute
	}
	g := &gatherer{target: t, wanted: wanted, probes: s.Probes, readOnly: s.ReadOnly, facts: Facts{Host: t.Address, Started: now().UTC(), Facts: map[string]Fact{}}}
	began := time.Now()
	inner, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	g.run(inner)
	g.facts.DurationMS = time.Since(began).Milliseconds()
	g.redact()
	if err := ctx.Err(); err != nil {
		return Facts{}, fmt.Errorf("cannot gather facts of %s: %w", t.Address, err)
	}
	s.logger().InfoContext(ctx, "gathered facts", "host", t.Address, "facts", len(g.facts.Facts),
		"duration", time.Since(began).Round(time.Millisecond))
	return g.facts, nil
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.-]*$`)

// plainName keeps a name from meaning anything to a shell or to sudo.
func plainName(s string) bool {
	return namePattern.MatchString(s)
}

type gatherer struct {
	target   Target
	wanted   map[string]bool // facts; all of them if it is empty
	probes   []Probe
	readOnly bool
	facts    Facts
}

// wanted are the facts that the profile's checks and the caller need, and those
// that these are made from. None of them is all.
func (s *Suite) wanted() map[string]bool {
	wanted := map[string]bool{}
	if len(s.Profile.Checks) == 0 {
		return wanted
	}
	for _, name := range s.Facts {
		wanted[name] = true
	}
	for _, c := range s.Profile.Checks {
		for _, need := range c.Needs {
			wanted[need] = true
		}
	}
	if wanted["sshd-match"] || wanted["sshd-views"] {
		wanted["sshd-config"], wanted["sshd-match"] = true, true
	}
	if wanted["wire-ssh"] || wanted["wire-weak"] {
		wanted["wire-ports"] = true
	}
	if wanted["wire-root"] {
		wanted["root-key"] = true
	}
	return wanted
}

func (g *gatherer) wants(fact string) bool { return len(g.wanted) == 0 || g.wanted[fact] }

// wantsScript reports whether a fact is wanted that somebody has to log in for.
func wantsScript(wanted map[string]bool) bool {
	for name := range wanted {
		if name != "console" && name != "login-key" && (!strings.HasPrefix(name, "wire-") || name == "wire-root") {
			return true
		}
	}
	return len(wanted) == 0
}

var (
	// changesTarget are the facts for which something is written on the target.
	changesTarget = []string{"root-key", "wire-root"}
	// witnessFacts are those that take a witness, who sees the machine from outside,
	// or a machine that is thrown away, which only a sandbox's is.
	witnessFacts = []string{"wire-ports", "wire-ssh", "wire-weak", "wire-flows", "sockets-later"}
	// consoleFacts are those of what the console shows.
	consoleFacts = []string{"console", "console-secret", "console-leaks"}
)

// omitted says why a fact is not to be gathered, or nothing.
func (g *gatherer) omitted(name string) string {
	switch {
	case g.readOnly && slices.Contains(changesTarget, name):
		return "nothing may be written on the machine"
	case g.target.Witness == nil && slices.Contains(witnessFacts, name):
		return "nobody sees the machine's network from outside"
	case g.readOnly && name == "sockets-later":
		return "the machine's network may not be restarted"
	case g.target.NoConsole && slices.Contains(consoleFacts, name):
		return "the machine's console is not seen"
	case strings.HasPrefix(name, offlineFact):
		return "the disk is not read while the machine runs"
	case name == otherMachinesFact:
		return "no other machine was made from the image"
	}
	return ""
}

// offlineFact begins the names of facts that are read of a disk before it boots,
// by others than Gather: see package ledger.
const offlineFact = "disk-"

// otherMachinesFact is what several machines of one image show, read by others than
// Gather: see package boots.
const otherMachinesFact = "boots"

// scriptFacts are the facts that the script is to read.
func (g *gatherer) scriptFacts() []string {
	var names []string
	for _, name := range builtinScriptFacts() {
		if g.wants(name) && g.omitted(name) == "" {
			names = append(names, name)
		}
	}
	return names
}

// ownProbes are the suite's probes that are to be made.
func (g *gatherer) ownProbes() []Probe {
	var probes []Probe
	for _, p := range g.probes {
		if g.wants(p.Name) {
			probes = append(probes, p)
		}
	}
	return probes
}

func (g *gatherer) run(ctx context.Context) {
	for _, name := range slices.Concat(changesTarget, consoleFacts, witnessFacts, slices.Collect(maps.Keys(g.wanted))) {
		if why := g.omitted(name); why != "" {
			g.facts.Facts[name] = Fact{Omitted: why}
		}
	}
	g.probe("wire-algorithms", func() (string, error) { return probeAlgorithms(ctx, g.target.Address) })
	if wantsScript(g.wanted) {
		began := time.Now()
		fact := Fact{Output: "complete\n"}
		if err := g.script(ctx); err != nil {
			fact = Fact{Error: err.Error()}
		}
		fact.DurationMS = time.Since(began).Milliseconds()
		g.facts.Facts["script"] = fact
	}
	if g.target.Signer != nil {
		g.facts.Facts["login-key"] = Fact{Output: string(ssh.MarshalAuthorizedKey(g.target.Signer.PublicKey()))}
	}
	if !g.target.NoConsole {
		shown := "absent"
		if g.target.Password != "" {
			shown = "shown"
		}
		g.facts.Facts["console"] = Fact{Output: "password " + shown + "\n"}
	}
	g.probe("wire-password", func() (string, error) { return probePassword(ctx, g.target) })
	g.witness(ctx)
}

// witness asks who sees the machine from outside; last what the machine has sent, for it has
// had the most time then.
func (g *gatherer) witness(ctx context.Context) {
	w := g.target.Witness
	if w == nil {
		return
	}
	if g.wants("wire-ports") {
		ports, err := "", error(nil)
		g.probe("wire-ports", func() (string, error) {
			ports, err = w.Ports(ctx)
			return bounded(ports, err)
		})
		g.probe("wire-weak", func() (string, error) { return probeWeak(ctx, w.DialContext, ports) })
		g.probe("wire-ssh", func() (string, error) {
			if err != nil {
				return "", err
			}
			return probeListeners(ctx, g.target, ports)
		})
	}
	g.probe("wire-flows", func() (string, error) { return bounded(w.Flows(), nil) })
}

// bounded refuses what a witness says beyond the bound of every fact.
func bounded(text string, err error) (string, error) {
	if err == nil && len(text) > maxFact {
		return text[:maxFact], fmt.Errorf("it was longer than %d bytes", maxFact)
	}
	return text, err
}

func (g *gatherer) probe(name string, f func() (string, error)) {
	if !g.wants(name) {
		return
	}
	began := time.Now()
	g.facts.RoundTrips++
	out, err := f()
	fact := Fact{Output: out, DurationMS: time.Since(began).Milliseconds()}
	if err != nil {
		fact.Error = err.Error()
	}
	g.facts.Facts[name] = fact
}

func (g *gatherer) dial(ctx context.Context) (*ssh.Client, error) {
	g.facts.RoundTrips++
	return sshconn.Dial(ctx, sshconn.Config{
		Address: g.target.Address, User: g.target.User, HostKey: g.target.HostKey,
		HandshakeTimeout: probeTimeout, Auth: []ssh.AuthMethod{ssh.PublicKeys(g.target.Signer)},
	})
}

// asRoot runs a script of POSIX sh.
func (g *gatherer) asRoot(ctx context.Context, client *ssh.Client, script string) (stdout []byte, err error) {
	g.facts.RoundTrips++
	res, err := sshconn.Run(ctx, client, "sudo -n sh -s", strings.NewReader(script), maxScriptOut)
	if err == nil && res.ExitStatus != 0 {
		err = fmt.Errorf("the script ended with status %d: %s", res.ExitStatus, tail(res.Stderr, 300))
	}
	return res.Stdout, err
}

// script runs gatherScript, then the probe of root's login while root's
// authorized_keys has the key, and then puts that file back.
func (g *gatherer) script(ctx context.Context) (err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	rootSigner, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		return err
	}
	client := g.target.Client
	if client != nil {
		g.facts.RoundTrips++ // which opened it
	} else {
		if client, err = g.dial(ctx); err != nil {
			return err
		}
		defer client.Close()
	}
	if slices.Contains(g.scriptFacts(), "root-key") {
		defer func() { err = errors.Join(err, g.restore(ctx, client)) }()
	}
	wanted := g.scriptFacts()
	for _, p := range g.ownProbes() {
		wanted = append(wanted, p.Name)
	}
	if err := g.read(ctx, client, g.prelude(rootSigner, wanted...)+gatherScript+probesScript(g.ownProbes())+endScript); err != nil {
		return err
	}
	if g.readOnly {
		return nil
	}
	g.probe("wire-root", func() (string, error) { return probeRoot(ctx, g.target, rootSigner) })
	return g.later(ctx, client, rootSigner)
}

// later reads the facts of laterScript.
func (g *gatherer) later(ctx context.Context, client *ssh.Client, rootSigner ssh.Signer) error {
	if !g.wants("sockets-later") || g.omitted("sockets-later") != "" {
		return nil
	}
	return g.read(ctx, client, g.prelude(rootSigner, "sockets-later")+laterScript+endScript)
}

// read runs a script that says facts. Its first word is a random one of this run: what a
// machine said at another time is not taken for an answer.
func (g *gatherer) read(ctx context.Context, client *ssh.Client, script string) error {
	begin := "@@begin " + rand.Text() + "\n"
	out, err := g.asRoot(ctx, client, "echo '"+strings.TrimSpace(begin)+"'\n"+script)
	answer, ok := bytes.CutPrefix(out, []byte(begin))
	if !ok && len(out) > 0 {
		return errors.Join(err, errors.New("cannot read facts: what the machine says does not begin as this run asked: it may be a replay"))
	}
	return errors.Join(err, parseFacts(bytes.NewReader(answer), g.facts.Facts))
}

// restore puts root's authorized_keys back, also when ctx has ended: then the
// client is closed, and another connection is tried for a short time.
func (g *gatherer) restore(ctx context.Context, client *ssh.Client) error {
	timeout := cleanTimeout
	if ctx.Err() != nil {
		timeout = cleanAfterCancel
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	err := ctx.Err()
	if err == nil {
		_, err = g.asRoot(clean, client, restoreScript)
	}
	if err != nil {
		again, derr := g.dial(clean)
		if derr != nil {
			return fmt.Errorf("cannot put root's authorized_keys back: %w", derr)
		}
		defer again.Close()
		_, err = g.asRoot(clean, again, restoreScript)
	}
	if err != nil {
		return fmt.Errorf("cannot put root's authorized_keys back: %w", err)
	}
	return nil
}

// prelude sets what begin.sh expects. The password goes over stdin into a
// variable of the shell: it is in no argument list.
func (g *gatherer) prelude(rootSigner ssh.Signer, wanted ...string) string {
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(rootSigner.PublicKey())))
	var forms []string
	for _, f := range secretform.Forms(g.target.Password) {
		forms = append(forms, f.Text)
	}
	return fmt.Sprintf("user=%s\nforms=%s\nrootkey=%s\nlimit=%d\npatience=%d\nwanted=' %s '\nself=$$\n", shellQuote(g.target.User),
		shellQuote(strings.Join(forms, "\n")), shellQuote(key+" otc-testsuite"), maxFact, factPatience, strings.Join(wanted, " "))
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// redact takes the password out of everything that was gathered.
func (g *gatherer) redact() {
	if g.target.Password == "" {
		return
	}
	for name, f := range g.facts.Facts {
		f.Output = strings.ReplaceAll(f.Output, g.target.Password, "[redacted]")
		f.Error = strings.ReplaceAll(f.Error, g.target.Password, "[redacted]")
		g.facts.Facts[name] = f
	}
}

func tail(b []byte, n int) string {
	b = bytes.TrimSpace(b)
	if len(b) > n {
		b = b[len(b)-n:]
	}
	s := oneLine(string(b)) // which may be longer
	return strings.ToValidUTF8(s[max(0, len(s)-n):], "")
}

// Statuses that the script gives to a fact.
const (
	statusNotWritten = 125 // a full file system cut it
	statusTooLong    = 153 // killed for what it wrote, by SIGXFSZ
)

// maxFactHeader bounds a "@@fact" line, maxFactCount their number.
const (
	maxFactHeader = 200
	maxFactCount  = 200
)

// parseFacts reads the script's output into facts, as far as it goes. Without
// the closing line the output was cut, which is an error; the facts that are
// complete are kept.
func parseFacts(r io.Reader, into map[string]Fact) error {
	br := bufio.NewReaderSize(r, maxFactHeader)
	for range maxFactCount {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("cannot read facts: the output ends early: %w", err)
		}
		header := strings.TrimSuffix(string(line), "\n")
		if header == "@@end" {
			return nil
		}
		name, fact, length, err := parseFactHeader(header)
		if err != nil {
			return err
		}
		body := make([]byte, length+1)
		if _, err := io.ReadFull(br, body); err != nil {
			return fmt.Errorf("cannot read fact %s of %d bytes: %w", name, length, err)
		}
		if _, twice := into[name]; twice {
			return fmt.Errorf("cannot read facts: %s is there twice", name)
		}
		fact.Output = strings.ToValidUTF8(string(body[:length]), "\uFFFD")
		if fact.Error != "" {
			fact.Error += ": " + tail(body[:length], 300)
		}
		into[name] = fact
	}
	return fmt.Errorf("cannot read facts: more than %d", maxFactCount)
}

// parseFactHeader reads "@@fact NAME STATUS TRUNCATED CENTISECONDS LENGTH".
func parseFactHeader(header string) (name string, fact Fact, length int, err error) {
	f := strings.Fields(header)
	if len(f) != 6 || f[0] != "@@fact" || !plainName(f[1]) {
		return "", fact, 0, fmt.Errorf("cannot read fact header %q", header)
	}
	var n [4]int
	for i := range n {
		v, err := strconv.ParseUint(f[i+2], 10, 31)
		if err != nil {
			return "", fact, 0, fmt.Errorf("cannot read fact header %q: %w", header, errors.Unwrap(err))
		}
		n[i] = int(v)
	}
	if n[3] > maxFact {
		return "", fact, 0, fmt.Errorf("cannot read fact %s: %d bytes are more than %d", f[1], n[3], maxFact)
	}
	fact.DurationMS = int64(n[2]) * 10
	switch {
	case n[0] == 124 || n[0] == 137: // timeout(1): ended, killed
		fact.Error = "it took too long"
	case n[0] == statusNotWritten:
		fact.Error = "the machine has no room to write down what it says"
	case n[0] == statusTooLong && n[1] != 0:
		fact.Error = fmt.Sprintf("it was longer than %d bytes", n[3])
	case n[0] != 0:
		fact.Error = fmt.Sprintf("it ended with status %d", n[0])
	case n[1] != 0:
		fact.Error = fmt.Sprintf("it was longer than %d bytes", n[3])
	}
	return f[1], fact, n[3], nil
}
