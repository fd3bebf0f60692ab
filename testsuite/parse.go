package testsuite

import (
	"fmt"
	"slices"
	"strings"
)

// The parsers below read the facts' text. They take what they understand and
// leave out what they do not: each judge demands the values that it needs.

func passed(found string) Verdict { return Verdict{Status: Pass, Found: found} }

func failed(expected, found string) Verdict {
	return Verdict{Status: Fail, Expected: expected, Found: found}
}

func unknown(format string, args ...any) Verdict {
	return Verdict{Status: Error, Reason: fmt.Sprintf(format, args...)}
}

func skipped(reason string) Verdict { return Verdict{Status: Skipped, Reason: reason} }

// want passes where found is expected.
func want(expected, found string) Verdict {
	v := Verdict{Status: Pass, Expected: expected, Found: found}
	if found != expected {
		v.Status = Fail
	}
	return v
}

// text returns a fact that is in a check's Needs, so it is there.
func (f Facts) text(name string) string {
	s, _ := f.Text(name)
	return s
}

// lines yields the lines of a fact as fields, leaving out empty ones.
func (f Facts) lines(name string) [][]string {
	var out [][]string
	for line := range strings.Lines(f.text(name)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			out = append(out, fields)
		}
	}
	return out
}

// values reads lines of a key and a value, as sshd -T writes them. A key that
// stands on several lines has several values.
func (f Facts) values(name string) map[string][]string {
	return keyValues(slices.Collect(strings.Lines(f.text(name))))
}

func keyValues(lines []string) map[string][]string {
	out := map[string][]string{}
	for _, line := range lines {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if key != "" {
			out[strings.ToLower(key)] = append(out[strings.ToLower(key)], strings.TrimSpace(value))
		}
	}
	return out
}

// value returns the only value of a key, or "" where it has none or several.
func (f Facts) value(name, key string) string {
	if v := f.values(name)[key]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// A namedFile is a file, or the part of one, in a fact.
type namedFile struct {
	name  string
	lines []string
}

// files reads what the script's function of that name writes.
func (f Facts) files(name string) []namedFile {
	var out []namedFile
	for line := range strings.Lines(f.text(name)) {
		line = strings.TrimRight(line, "\r\n")
		if path, ok := strings.CutPrefix(line, "### "); ok {
			out = append(out, namedFile{name: path})
		} else if len(out) > 0 && strings.TrimSpace(line) != "" {
			last := &out[len(out)-1]
			last.lines = append(last.lines, line)
		}
	}
	return out
}

// A unit is what systemctl show says of one.
type unit map[string]string

func (u unit) active() bool { return u["ActiveState"] == "active" }

// starts reports whether the unit is started at the next boot.
func (u unit) starts() bool {
	switch u["UnitFileState"] {
	case "enabled", "alias", "generated", "static", "indirect":
		return true
	}
	return false
}

func (u unit) String() string {
	return fmt.Sprintf("%s %s, %s", u["Id"], u["ActiveState"], cmpOr(u["UnitFileState"], "not installed"))
}

func cmpOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// units reads the services fact by unit name. A unit that is not installed is
// not in it.
func (f Facts) units() map[string]unit {
	out := map[string]unit{}
	for block := range strings.SplitSeq(f.text("services"), "\n\n") {
		u := unit{}
		for line := range strings.Lines(block) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				u[key] = value
			}
		}
		if u["Id"] != "" && u["LoadState"] == "loaded" {
			out[u["Id"]] = u
		}
	}
	return out
}

// firstUnit returns the first of names that is installed, an active one before
// others.
func firstUnit(units map[string]unit, names ...string) (unit, bool) {
	for _, onlyActive := range []bool{true, false} {
		for _, name := range names {
			if u, ok := units[name]; ok && (u.active() || !onlyActive) {
				return u, true
			}
		}
	}
	return nil, false
}

// A user is one line of the users fact.
type user struct {
	name, uid, shell string
	password         string // hash, locked, empty or none
	method           string // of the hash, as crypt(5) names it: y, 6, …
}

func (f Facts) users() []user {
	var out []user
	for _, l := range f.lines("users") {
		if len(l) == 4 { // no shell: the default one, which is a login shell
			l = slices.Insert(l, 2, "/bin/sh")
		}
		if len(l) == 5 {
			out = append(out, user{name: l[0], uid: l[1], shell: l[2], password: l[3], method: l[4]})
		}
	}
	return out
}

// loginShell reports whether a shell lets its user work.
func loginShell(shell string) bool {
	base := shell[strings.LastIndexByte(shell, '/')+1:]
	return !slices.Contains([]string{"nologin", "false", "sync", "shutdown", "halt"}, base)
}

// packages returns the names of the installed packages.
func (f Facts) packages() map[string]bool {
	out := map[string]bool{}
	for _, l := range f.lines("packages") {
		if len(l) >= 2 && (l[0] == "ii" || l[0] == "hi") {
			out[l[1]] = true
		}
	}
	return out
}

// without returns the elements of list that allowed lacks.
func without(list, allowed []string) []string {
	var out []string
	for _, s := range list {
		if s != "" && !slices.Contains(allowed, s) {
			out = append(out, s)
		}
	}
	return out
}

// names sorts a list and shows it.
func names(list []string) string {
	list = slices.Clone(list)
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ", ")
}
