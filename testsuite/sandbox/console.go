package sandbox

import (
	"bytes"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Bounds on what is kept of a console. The guest may print without end.
const (
	maxLine    = 4 << 10
	maxLog     = 1 << 20  // the beginning of the console
	maxLogTail = 64 << 10 // and its end
	maxKeys    = 16
)

// cloud-init prints the machine's public host keys between these lines.
const (
	keysBegin = "-----BEGIN SSH HOST KEY KEYS-----"
	keysEnd   = "-----END SSH HOST KEY KEYS-----"
)

// loginHint is how the image shows the login user's password.
var loginHint = regexp.MustCompile(`(?i)login hint: user ([a-z_][a-z0-9_-]{0,31}), password ([!-~]{8,128})(?: |$)`)

// loginPrompt is what getty asks with.
var loginPrompt = regexp.MustCompile(`^\S+ login:$`)

// escapes are the terminal sequences of ECMA-48 that consoles use.
var escapes = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])`)

// A console reads a guest's serial console: it keeps its beginning and end,
// and finds the host keys and the login hint. Its methods may be called
// concurrently.
type console struct {
	mu      sync.Mutex
	head    []byte
	tail    []byte
	dropped int64 // bytes between head and tail
	line    []byte
	long    bool // the current line is longer than maxLine
	inKeys  bool
	pending []ssh.PublicKey
	keys    []ssh.PublicKey // the first complete block's
	user    string
	pass    string
	old     []string      // passwords that do not count any more
	prompt  bool          // it has asked who logs in
	changed chan struct{} // closed and replaced when keys, pass or prompt are set
	watch   *watch        // judges each line
	quiet   bool          // the firmware's: nothing of it is kept or believed but how the boot ends
}

func newConsole() *console { return &console{changed: make(chan struct{}), watch: newWatch()} }

// Write takes what the guest printed. It never fails and never blocks.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.quiet {
		c.keep(p)
	}
	c.watch.printed(len(p))
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		part := rest
		if i >= 0 {
			part = rest[:i]
		}
		if room := maxLine - len(c.line); room < len(part) {
			c.long = true
			part = part[:room]
		}
		c.line = append(c.line, part...)
		if i < 0 {
			if len(c.line) <= maxQuote { // a prompt has no end
				line := clean(c.line)
				c.watch.begun(line)
				if !c.prompt && loginPrompt.MatchString(line) {
					c.prompt = true
					c.tell()
				}
			}
			break
		}
		if !c.long {
			line := clean(c.line)
			c.watch.line(line)
			if !c.quiet {
				c.read(line)
			}
		}
		c.line, c.long = c.line[:0], false
		rest = rest[i+1:]
	}
	return len(p), nil
}

func (c *console) keep(p []byte) {
	if room := maxLog - len(c.head); room > 0 {
		n := min(room, len(p))
		c.head = append(c.head, p[:n]...)
		p = p[n:]
	}
	c.tail = append(c.tail, p...)
	if over := len(c.tail) - maxLogTail; over > maxLogTail {
		c.dropped += int64(over)
		c.tail = append([]byte(nil), c.tail[over:]...)
	}
}

func clean(line []byte) string {
	return strings.TrimSpace(strings.TrimRight(string(escapes.ReplaceAll(line, nil)), "\r"))
}

// read looks at one complete line. Only the first complete block of keys and
// the first hint count: what is printed later comes from a machine that is
// already open to its users.
func (c *console) read(line string) {
	if c.pass == "" {
		if m := loginHint.FindStringSubmatch(line); m != nil {
			c.user, c.pass = m[1], m[2]
			c.tell()
		}
	}
	if c.keys != nil {
		return
	}
	switch {
	case strings.HasSuffix(line, keysBegin):
		c.inKeys, c.pending = true, nil
	case !c.inKeys:
	case strings.HasSuffix(line, keysEnd):
		c.inKeys = false
		if len(c.pending) > 0 {
			c.keys = c.pending
			c.tell()
		}
	case len(c.pending) < maxKeys:
		if key := parseKey(line); key != nil {
			c.pending = append(c.pending, key)
		}
	}
}

func (c *console) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// parseKey reads a public key, which a log prefix may stand before.
func parseKey(line string) ssh.PublicKey {
	for _, algo := range []string{ssh.KeyAlgoED25519, "ecdsa-sha2-", ssh.KeyAlgoRSA} {
		i := strings.Index(line, algo)
		if i < 0 {
			continue
		}
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line[i:])); err == nil {
			return key
		}
	}
	return nil
}

// state returns what has been found, and a channel that is closed when there
// is more. The key is the strongest of the block: Ed25519, else ECDSA, else RSA.
func (c *console) state() (key ssh.PublicKey, user, pass string, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, prefix := range []string{ssh.KeyAlgoED25519, "ecdsa-sha2-", ssh.KeyAlgoRSA} {
		for _, k := range c.keys {
			if key == nil && strings.HasPrefix(k.Type(), prefix) {
				key = k
			}
		}
	}
	return key, c.user, c.pass, c.changed
}

// prompted reports whether the console has asked who logs in.
func (c *console) prompted() (bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.prompt, c.changed
}

// judge has a new watch judge what follows, of a machine with such a data source.
func (c *console) judge(source DataSource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch = newWatch()
	c.watch.alone = source == NoSource
}

// forget has the next host keys and the next hint count: what follows is another machine's.
func (c *console) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pass != "" {
		c.old = append(c.old, c.pass)
	}
	c.inKeys, c.pending, c.keys, c.user, c.pass, c.prompt = false, nil, nil, "", "", false
}

// hintTail is anything that looks like a shown password, for a console whose
// hint was cut or never understood.
var hintTail = regexp.MustCompile(`(?i)(password[ :=]+(?:is )?)[!-~]{6,}`)

// log returns what was kept, with every password redacted.
func (c *console) log() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := append([]byte(nil), c.head...)
	t := c.tail
	if over := len(t) - maxLogTail; over > 0 {
		t = t[over:]
	}
	if dropped := c.dropped + int64(len(c.tail)-len(t)); dropped > 0 {
		all = append(all, "\n[... console cut here ...]\n"...)
	}
	all = append(all, t...)
	for _, pass := range append([]string{c.pass}, c.old...) {
		if pass != "" {
			all = bytes.ReplaceAll(all, []byte(pass), []byte("[redacted]"))
		}
	}
	return hintTail.ReplaceAll(all, []byte("${1}[redacted]"))
}

// last returns the last lines of the log, at most n bytes, without control
// characters.
func (c *console) last(n int) string {
	all := escapes.ReplaceAll(c.log(), nil)
	if len(all) > n {
		all = all[len(all)-n:]
		if i := bytes.IndexByte(all, '\n'); i >= 0 {
			all = all[i+1:]
		}
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(all), "?")))
}
