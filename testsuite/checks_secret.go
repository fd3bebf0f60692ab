package testsuite

import (
	"fmt"
	"strconv"
	"strings"
)

// judgePasswordSecret reads lines "holds|lacks readable|refused MODE OWNER:GROUP
// FILE", after one that shows that the reading user can read at all.
func judgePasswordSecret(f Facts, p Params) Verdict {
	if f.value("console", "password") != "shown" {
		return unknown("the console showed no password to look for")
	}
	lines := f.lines("console-secret")
	if len(lines) == 0 || len(lines[0]) != 4 || lines[0][0] != "readable" || lines[0][3] != "/etc/passwd" {
		return unknown("the other user cannot even read /etc/passwd, so what it cannot read proves nothing")
	}
	var holders, bad []string
	for _, l := range lines[1:] {
		if len(l) < 5 {
			return unknown("cannot understand %q", strings.Join(l, " "))
		}
		file := fmt.Sprintf("%s (%s %s)", strings.Join(l[4:], " "), l[2], l[3])
		if l[0] == "holds" {
			holders = append(holders, file)
		}
		readable := l[1] == "readable" || l[0] == "holds" && !ownersAlone(l[2], l[3], p.user())
		if readable && (l[0] == "holds" || l[4] == "/var/log/cloud-init-output.log") {
			bad = append(bad, file)
		}
	}
	const expected = "every file that holds the password, and cloud-init-output.log, refused to all users but root and the login user"
	switch {
	case len(bad) > 0:
		return failed(expected, "readable: "+names(bad))
	case len(holders) == 0:
		return unknown("no file holds the password that the console shows, so nothing was tried")
	}
	return Verdict{Status: Pass, Expected: expected, Found: "refused: " + names(holders)}
}

// ownersAlone reports whether a file is root's or the user's, and neither a group
// beyond its owner's own nor others may read it.
func ownersAlone(mode, owner, user string) bool {
	name, group, _ := strings.Cut(owner, ":")
	bits, err := strconv.ParseUint(mode, 8, 16)
	return err == nil && (name == "root" || name == user) && bits&0o004 == 0 && (bits&0o040 == 0 || group == "root" || group == name)
}

// judgePasswordLeaks reads "searched N processes", then "cmdline|comm|environ USER PID
// NAME" for each process that has the password, and "journal|units|kernel N" for the
// lines of these that have it.
func judgePasswordLeaks(f Facts, p Params) Verdict {
	if f.value("console", "password") != "shown" {
		return unknown("the console showed no password to look for")
	}
	lines := f.lines("console-leaks")
	if len(lines) == 0 || len(lines[0]) != 3 || lines[0][0] != "searched" || lines[0][1] == "0" || f.value("console-leaks", "kernel") == "" {
		return unknown("no process was looked at")
	}
	var kept, bad []string
	for _, l := range lines[1:] {
		switch {
		case len(l) == 4 && l[0] == "environ" && (l[1] == "root" || l[1] == p.user()):
			kept = append(kept, fmt.Sprintf("in the environment of %s's process %s", l[1], l[3]))
		case len(l) == 4:
			bad = append(bad, fmt.Sprintf("%s of %s's process %s", l[0], l[1], l[3]))
		case len(l) == 2 && l[1] == "0":
		case len(l) == 2:
			bad = append(bad, fmt.Sprintf("%s lines of the %s", l[1], l[0]))
		default:
			return unknown("cannot understand %q", strings.Join(l, " "))
		}
	}
	const expected = "the password nowhere but in files of root's"
	if len(bad) > 0 {
		return failed(expected, names(bad))
	}
	found := fmt.Sprintf("nowhere in %s processes", lines[0][1])
	if len(kept) > 0 {
		found = "only " + names(kept)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}
