package ledger

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// runningChecks hold what runs now to where it may come from.
func runningChecks() []testsuite.Check {
	return []testsuite.Check{
		{
			ID: "units.loaded", Group: "units", Severity: testsuite.High, Needs: []string{"units"}, References: []string{refGeneric},
			Title: "every unit that systemd has loaded comes from a unit file of the system, unchanged since, and those that packages enable are enabled",
			Why:   "A transient unit, or one that was changed and not loaded again, is not what the files say.",
			Judge: judgeUnits,
		},
		{
			ID: "units.processes", Group: "units", Severity: testsuite.Critical, Needs: []string{"running", "os-release"}, References: []string{refGeneric},
			Title: "every process runs a package's or a declared program and libraries, and belongs to a unit or to a session that is open",
			Why:   "What runs need not be what is on the disk any more, or what the unit says.",
			Judge: judgeProcesses,
		},
	}
}

// unitPlaces are where units of packages, of the system's own configuration and
// of generators are.
var unitPlaces = []string{
	"/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system", "/etc/init.d",
	"/run/systemd/generator", "/run/systemd/generator.early", "/run/systemd/generator.late",
}

func judgeUnits(f testsuite.Facts, p testsuite.Params) testsuite.Verdict {
	text, err := f.Text("units")
	if err != nil {
		return testsuite.Verdict{Status: testsuite.Error, Reason: err.Error()}
	}
	declared, err := ParseRules(p.Declared)
	if err != nil {
		return testsuite.Verdict{Status: testsuite.Error, Reason: fmt.Sprintf("the declared files: %v", err)}
	}
	var bad []string
	units := 0
	for block := range strings.SplitSeq(text, "\n\n") {
		u := map[string]string{}
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if link, ok := strings.CutPrefix(line, "disabled "); ok {
				if !declares(declared, link) && !masked(declared, path.Base(link)) {
					bad = append(bad, path.Base(link)+" is not enabled, although its package enables it")
				}
				continue
			}
			if key, value, ok := strings.Cut(line, "="); ok {
				u[key] = value
			}
		}
		if u["Id"] == "" {
			continue
		}
		units++
		bad = append(bad, judgeUnit(u)...)
	}
	if units < 5 {
		return testsuite.Verdict{Status: testsuite.Error, Reason: "no units are shown"}
	}
	return findings(bad, fmt.Sprintf("none of %d units", units))
}

func judgeUnit(u map[string]string) (bad []string) {
	id := quote(u["Id"])
	ours := u["Id"] == "init.scope" || strings.HasPrefix(u["Id"], "session-") && strings.HasSuffix(u["Id"], ".scope")
	if u["Transient"] == "yes" && !ours {
		bad = append(bad, id+" is transient")
	}
	if u["NeedDaemonReload"] == "yes" {
		bad = append(bad, id+" is not what its files say: they changed since it was loaded")
	}
	files := strings.Fields(u["DropInPaths"])
	for _, one := range []string{u["FragmentPath"], u["SourcePath"]} {
		if one != "" && one != "/dev/null" {
			files = append(files, one)
		}
	}
	for _, file := range files {
		dir := path.Dir(file)
		if strings.HasSuffix(dir, ".d") {
			dir = path.Dir(dir)
		}
		if u["Transient"] != "yes" && !slices.Contains(unitPlaces, dir) && file != "/proc/self/mountinfo" && file != "/etc/fstab" && file != "/proc/swaps" {
			bad = append(bad, id+" is of "+quote(file))
		}
	}
	return bad
}

// declares reports whether a rule is about a path.
func declares(rules []Rule, name string) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return r.matches(name) || r.matches("/usr"+name) })
}

// masked reports whether a rule masks a unit.
func masked(rules []Rule, unit string) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool {
		return r.Demands["target"] == "/dev/null" && r.matches("/etc/systemd/system/"+unit)
	})
}

func judgeProcesses(f testsuite.Facts, p testsuite.Params) testsuite.Verdict {
	text, err := f.Text("running")
	if err != nil {
		return testsuite.Verdict{Status: testsuite.Error, Reason: err.Error()}
	}
	release, _ := f.Text("os-release")
	if !strings.Contains(release, "debian") && release != "" {
		return testsuite.Verdict{Status: testsuite.Skipped, Reason: "whose programs are a package's is known with dpkg only"}
	}
	declared, err := ParseRules(p.Declared)
	if err != nil {
		return testsuite.Verdict{Status: testsuite.Error, Reason: fmt.Sprintf("the declared files: %v", err)}
	}
	var bad []string
	var all []process
	open := map[string]bool{} // sessions that an sshd or a login holds open
	for line := range strings.Lines(text) {
		w := strings.SplitN(strings.TrimSpace(line), " ", 5)
		if strings.HasPrefix(w[0], "+") && len(all) > 0 {
			last := &all[len(all)-1]
			last.more = append(last.more, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), w[0])))
			continue
		}
		if len(w) != 5 {
			return testsuite.Verdict{Status: testsuite.Error, Reason: fmt.Sprintf("cannot understand %.80q", line)}
		}
		all = append(all, process{pid: w[0], group: w[2], what: w[3], exe: w[4]})
		if base := path.Base(w[4]); base == "sshd" || base == "login" || base == "sshd-session" || base == "agetty" {
			open[w[2]] = true
		}
	}
	if len(all) < 5 || all[0].pid != "1" {
		return testsuite.Verdict{Status: testsuite.Error, Reason: "no processes are shown"}
	}
	for _, one := range all {
		if why := one.judge(declared, open); why != "" {
			bad = append(bad, fmt.Sprintf("%s (%s): %s", quote(one.exe), quote(path.Base(one.group)), why))
		}
	}
	return findings(bad, fmt.Sprintf("none of %d processes", len(all)))
}

type process struct {
	pid, group, what, exe string
	more                  []string // what else is said of it
}

// judge says all that is wrong with a process, or nothing.
func (p process) judge(declared []Rule, open map[string]bool) string {
	var why []string
	switch {
	case p.what == "deleted":
		why = append(why, "its program is deleted")
	case p.what == "unowned" && !declares(declared, p.exe):
		why = append(why, "its program is no package's")
	}
	if strings.HasSuffix(p.group, ".scope") && strings.Contains(p.group, "/session-") && !open[p.group] {
		why = append(why, "left behind by a session that is over")
	}
	service := strings.HasPrefix(p.group, "/system.slice/")
	for _, m := range p.more {
		kind, rest, _ := strings.Cut(m, " ")
		switch kind {
		case "maps":
			if file := strings.TrimSuffix(rest, " (deleted)"); file != rest || !declares(declared, rest) {
				why = append(why, "has mapped "+quote(rest))
			}
		case "variable":
			why = append(why, "has a variable of the dynamic linker's")
		case "works":
			if service {
				why = append(why, "works in "+quote(rest))
			}
		case "script":
			if service && !interprets(declared, strings.Fields(rest)) {
				why = append(why, "interprets "+quote(rest))
			}
		}
	}
	return strings.Join(why, ", ")
}

// interprets reports whether an interpreter's second and third word name a script
// below /usr or a declared one; what is there is judged with the files.
func interprets(declared []Rule, words []string) bool {
	if len(words) > 1 && strings.HasPrefix(words[0], "-") && !strings.HasPrefix(words[0], "-c") {
		words = words[1:]
	}
	return len(words) == 0 || strings.HasPrefix(words[0], "/usr/") && !strings.HasPrefix(words[0], "/usr/local/") || declares(declared, words[0])
}

// findings is the verdict on what was found wrong.
func findings(bad []string, good string) testsuite.Verdict {
	v := testsuite.Verdict{Status: testsuite.Pass, Expected: "none", Found: good}
	if len(bad) > 0 {
		slices.Sort(bad)
		bad = slices.Compact(bad)
		v.Status, v.Found = testsuite.Fail, strings.Join(bad[:min(len(bad), maxShown)], "; ")
		if more := len(bad) - maxShown; more > 0 {
			v.Found += fmt.Sprintf("; and %d more", more)
		}
	}
	return v
}
