package boots

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
	"github.com/opentelekomcloud/go-imagefactory/testsuite/sandbox"
)

// Fact waits for the machines and says what was seen of them and of the first, whose
// own facts must have identity. It is omitted where the sandbox has one kind of machine
// only. Its error is the end of ctx.
func (m *Machines) Fact(ctx context.Context, first *sandbox.Machine, facts testsuite.Facts) (testsuite.Fact, error) {
	done := make(chan struct{})
	go func() {
		m.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return testsuite.Fact{}, fmt.Errorf("cannot wait for other machines of the image: %w", err)
	}
	if errors.Is(m.seen[0].err, errors.ErrUnsupported) {
		return testsuite.Fact{Omitted: "the sandbox makes no second machine of another kind"}, nil
	}
	var w writer
	w.machine("first", "as the sandbox makes it", nil, facts)
	w.password("first", first.Target.Password)
	if first.Console != nil {
		w.console("first", first.Console())
	}
	for i, p := range m.plans {
		s := m.seen[i]
		failed := s.err
		if s.restarted != nil || s.started.Facts != nil && p.again != "" {
			failed = nil // the restart's, if any
		}
		if failed == nil && p.variant.DataSource == sandbox.NoSource {
			w.line("boot %s up %s", p.name, describe(p.variant))
		} else {
			w.machine(p.name, describe(p.variant), failed, s.started)
		}
		w.password(p.name, s.password)
		w.data(p, s.started)
		w.console(p.name, s.console)
		switch {
		case s.restarted != nil:
			w.machine(p.again, describeRestart(p), s.err, *s.restarted)
		case p.again != "" && failed == nil && s.err != nil:
			w.machine(p.again, "", s.err, testsuite.Facts{})
		}
		if s.judged != nil {
			was, err := m.again.Judge(facts)
			if err != nil {
				return testsuite.Fact{}, err
			}
			w.judged(p.again, was, s.judged)
		}
	}
	w.before(m.before)
	return testsuite.Fact{Output: w.text.String()}, nil
}

func describe(v sandbox.Variant) string {
	var words []string
	for _, w := range []string{string(v.Firmware), string(v.Disk), string(v.NIC), string(v.DataSource)} {
		if w != "" {
			words = append(words, w)
		}
	}
	if v.CPUs != 0 {
		words = append(words, fmt.Sprintf("%d processors", v.CPUs))
	}
	return strings.Join(words, ", ")
}

func describeRestart(p plan) string {
	if p.restart.InstanceID != "" {
		return "the disk of " + p.name + " as another instance"
	}
	return p.name + " powered off, and started a week later with a larger disk"
}

// A writer writes the fact. What a machine says is not trusted: words of it are
// bounded and of known characters.
type writer struct {
	text      strings.Builder
	passwords []struct{ machine, password string }
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.text, format+"\n", args...) }

const (
	maxText  = 300
	maxLines = 20 // of one kind of one machine
)

// plain makes one line of printable ASCII.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), maxText)]
}

// machine writes what the machine is, or why it is not there.
func (w *writer) machine(name, how string, err error, facts testsuite.Facts) {
	if err != nil {
		w.line("boot %s failed %s", name, plain(err.Error()))
		return
	}
	w.line("boot %s up %s", name, how)
	identity, err := facts.Text("identity")
	if err != nil {
		w.line("unread %s %s", name, plain(err.Error()))
	}
	for i, l := range fields(identity) {
		switch {
		case i > 5*maxLines:
		case len(l) == 2 && l[0] == "machine-id":
			w.line("machine-id %s %s", name, plain(l[1]))
		case len(l) > 3 && l[0] == "hostkey":
			w.line("hostkey %s %s", name, plain(l[3]))
		case len(l) == 3 && l[0] == "seed":
			w.line("seed %s %s %s", name, plain(l[1]), plain(l[2]))
		}
	}
	w.time(name, facts)
	disk, _ := facts.Text("disk")
	size := map[string]string{}
	for _, l := range fields(disk) {
		if len(l) == 2 {
			size[l[0]] = plain(l[1])
		}
	}
	if size["filesystem-bytes"] != "" && size["disk-bytes"] != "" {
		w.line("root %s %s %s", name, size["filesystem-bytes"], size["disk-bytes"])
	}
}

func fields(text string) [][]string {
	var out [][]string
	for line := range strings.Lines(text) {
		out = append(out, strings.Fields(line))
	}
	return out
}

// password writes how much can be guessed, and never the password.
func (w *writer) password(name, password string) {
	if password == "" {
		return
	}
	w.line("password %s %d %d", name, len(password), symbols(password))
	for _, other := range w.passwords {
		if other.password == password {
			w.line("password-of %s %s", name, other.machine)
		}
	}
	w.passwords = append(w.passwords, struct{ machine, password string }{name, password})
}

// symbols counts the characters of the kinds that the password has some of.
func symbols(password string) int {
	n := 0
	for _, kind := range []struct {
		chars string
		size  int
	}{{"abcdefghijklmnopqrstuvwxyz", 26}, {"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 26}, {"0123456789", 10}} {
		if strings.ContainsAny(password, kind.chars) {
			n += kind.size
		}
	}
	others := map[rune]bool{} // beyond letters and digits only those that are there
	for _, r := range password {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", r) {
			others[r] = true
		}
	}
	return n + len(others)
}

// data writes what came of user-data and vendor-data, where there were such.
func (w *writer) data(p plan, facts testsuite.Facts) {
	text, err := facts.Text(dataFact)
	if err != nil {
		return
	}
	left := map[string]string{}
	for _, l := range fields(text) {
		if len(l) == 2 {
			left[l[0]] = l[1]
		}
	}
	for _, d := range []struct {
		name    string
		content []byte
	}{{"user-data", p.variant.UserData}, {"vendor-data", p.variant.VendorData}} {
		if d.content == nil {
			continue
		}
		state := "missing"
		if proof := left[d.name]; len(proof) >= 20 && strings.Contains(string(d.content), proof) {
			state = "applied"
		}
		w.line("data %s %s %s", p.name, d.name, state)
	}
}

// judged writes which checks passed on the first machine and do not on the one that was
// started again.
func (w *writer) judged(name string, was, is *testsuite.Report) {
	passed, n := map[string]bool{}, 0
	for _, r := range was.Checks {
		passed[r.ID] = r.Status == testsuite.Pass
	}
	for _, r := range is.Checks {
		if !passed[r.ID] {
			continue
		}
		if n++; r.Status == testsuite.Fail || r.Status == testsuite.Error {
			w.line("worse %s %s %s", name, plain(r.ID), plain(r.Found+r.Reason))
		}
	}
	w.line("judged %s %d", name, n)
}

// maxBlame is how many units are named that a boot waited for.
const maxBlame = 5

// time writes how long the boot took, where systemd said so.
func (w *writer) time(name string, facts testsuite.Facts) {
	text, err := facts.Text(timeFact)
	if err != nil {
		return
	}
	at, blamed := map[string]int64{}, 0
	for line := range strings.Lines(text) {
		key, value, isProperty := strings.Cut(strings.TrimSpace(line), "=")
		if us, err := strconv.ParseInt(value, 10, 64); isProperty && err == nil {
			at[key] = us / 1000
			continue
		}
		words := strings.Fields(line)
		if len(words) < 2 || blamed == maxBlame {
			continue
		}
		// 1min 2.345s NAME.service
		took, err := time.ParseDuration(strings.ReplaceAll(strings.Join(words[:len(words)-1], ""), "min", "m"))
		if unit := plain(words[len(words)-1]); err == nil && unit != "" {
			w.line("blame %s %d %s", name, took.Milliseconds(), unit)
			blamed++
		}
	}
	initrd, user, end := at["InitRDTimestampMonotonic"], at["UserspaceTimestampMonotonic"], at["FinishTimestampMonotonic"]
	if initrd == 0 {
		initrd = user
	}
	if 0 < initrd && initrd <= user && user < end {
		w.line("time %s %d %d %d", name, initrd, user-initrd, end-user)
	}
}

// before writes how long the boots of the release before took, whose fact is text.
func (w *writer) before(text string) {
	n := 0
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "time "); ok && n < maxLines {
			w.line("before %s", plain(rest))
			n++
		}
	}
}

// trouble is what no console of a good machine says. A processor that was not looked
// after for long ("soft lockup") is the host's fault, where it is emulated.
var trouble = regexp.MustCompile(`Kernel panic|\bOops[: ]|kernel BUG at|BUG: (?:unable to handle|kernel NULL|Bad page)|general protection fault` +
	`|Out of memory: Kill|invoked oom-killer|[Oo]rdering cycle|[Ee]mergency mode|[Ee]mergency [Ss]hell|\(initramfs\)|dracut:/#`)

func (w *writer) console(name, text string) {
	if text == "" {
		return
	}
	w.line("watched %s", name)
	var found []string
	for line := range strings.Lines(text) {
		if trouble.MatchString(line) && len(found) < maxLines {
			found = append(found, plain(line))
		}
	}
	slices.Sort(found)
	for _, l := range slices.Compact(found) {
		w.line("console %s %s", name, l)
	}
}
