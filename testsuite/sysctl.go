package testsuite

import (
	"embed"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed tables/*.tsv
var sysctlTables embed.FS

// A demand is what a setting may be: any value, a range, or one of some.
type demand string

func (d demand) accepts(value string) bool {
	if d == "any" {
		return true
	}
	if low, high, ok := strings.Cut(string(d), ".."); ok {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return false
		}
		if l, err := strconv.ParseInt(low, 10, 64); err == nil && n < l {
			return false
		}
		h, err := strconv.ParseInt(high, 10, 64)
		return err != nil || n <= h
	}
	return slices.Contains(strings.Split(string(d), " or "), value)
}

// A hardened setting is one line of sysctl-hardening.tsv.
type hardened struct {
	name     string // with a * for any interface
	optional bool   // not every kernel has it
	kernel   string // the kernel's own default
	demand   demand
}

func readTable(name string) [][]string {
	text, err := sysctlTables.ReadFile("tables/" + name)
	if err != nil {
		return nil
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line != "" && !strings.HasPrefix(line, "#") {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	return rows
}

func hardening() []hardened {
	var out []hardened
	for _, row := range readTable("sysctl-hardening.tsv") {
		if len(row) == 3 {
			name, optional := strings.CutPrefix(row[0], "?")
			out = append(out, hardened{strings.ToLower(name), optional, row[1], demand(row[2])})
		}
	}
	return out
}

// defaults are the settings of a kernel's series as it makes them itself. There is
// none where the series has no table.
func defaults(release string) map[string]demand {
	series := regexp.MustCompile(`^\d+\.\d+`).FindString(release)
	rows := readTable("sysctl-" + series + ".tsv")
	if series == "" || len(rows) == 0 {
		return nil
	}
	out := map[string]demand{}
	for _, row := range rows {
		if len(row) == 2 {
			out[strings.ToLower(row[0])] = demand(row[1])
		}
	}
	return out
}

var interfaceSetting = regexp.MustCompile(`^(net/ipv[46]/(?:conf|neigh)/)([^/]+)(/[^/]+)$`)

// anyInterface is a setting's name with a * in the place of the interface.
func anyInterface(name string) string { return interfaceSetting.ReplaceAllString(name, "$1*$3") }

// ofLoopback are settings of lo that mean nothing: no packet comes from outside.
func ofLoopback(name string) bool {
	m := interfaceSetting.FindStringSubmatch(name)
	return m != nil && m[2] == "lo"
}

func lookup(table map[string]demand, name string) (demand, bool) {
	if d, ok := table[name]; ok {
		return d, true
	}
	d, ok := table[anyInterface(name)]
	return d, ok
}

func hardeningTable() map[string]demand {
	out := map[string]demand{}
	for _, h := range hardening() {
		out[h.name] = h.demand
	}
	return out
}

// settings is the sysctl fact: each name's value, its white space as one blank.
func (f Facts) settings() map[string]string {
	out := map[string]string{}
	for name, values := range f.values("sysctl") {
		for i, v := range values {
			values[i] = strings.Join(strings.Fields(v), " ")
		}
		out[name] = strings.Join(values, "; ")
	}
	return out
}

func sysctlName(path string) string { return strings.ReplaceAll(path, "/", ".") }

// judgeHardening holds each setting to the profile's demand, those left out that a
// check of their own judges.
func judgeHardening(f Facts, _ Params) Verdict {
	settings := f.settings()
	if len(settings) < 100 {
		return unknown("only %d settings are shown", len(settings))
	}
	const expected = "what the profile demands of each"
	judged, demands, there := ownSysctls(), hardeningTable(), map[string]bool{}
	var wrong []string
	seen := 0
	for name, value := range settings {
		key := name
		if _, ok := demands[key]; !ok {
			key = anyInterface(name)
		}
		d, ok := demands[key]
		if !ok || slices.Contains(judged, key) {
			continue
		}
		there[key] = true
		if ofLoopback(name) {
			continue
		}
		seen++
		if !d.accepts(value) {
			wrong = append(wrong, fmt.Sprintf("%s=%.80q, not %s", sysctlName(name), value, d))
		}
	}
	for _, h := range hardening() {
		if !h.optional && !there[h.name] && !slices.Contains(judged, h.name) {
			return unknown("the kernel does not show %s", sysctlName(h.name))
		}
	}
	if len(wrong) > 0 {
		return failed(expected, names(wrong))
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d settings as demanded", seen)}
}

// ownSysctls are the names that the checks before this one judge.
func ownSysctls() []string {
	var out []string
	for _, rules := range sysctlRules() {
		for _, r := range rules {
			out = append(out, r.path)
		}
	}
	return out
}

// judgeDefaults holds every other setting to the kernel's own default. One that the
// table of that kernel does not know fails: nobody has said what it does.
func judgeDefaults(f Facts, _ Params) Verdict {
	settings := f.settings()
	release := settings["kernel/osrelease"]
	table := defaults(release)
	if table == nil {
		return skipped(fmt.Sprintf("the defaults of Linux %.40q are not in a table; sysctl.kernel judges what matters on each", release))
	}
	hard, own := hardeningTable(), ownSysctls()
	var wrong []string
	judged := 0
	for name, value := range settings {
		if _, ok := lookup(hard, name); ok || slices.Contains(own, anyInterface(name)) || slices.Contains(own, name) {
			continue
		}
		judged++
		switch d, ok := lookup(table, name); {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("%s=%.80q, which Linux %.3s does not have by itself", sysctlName(name), value, release))
		case !d.accepts(value):
			wrong = append(wrong, fmt.Sprintf("%s=%.80q, not %s", sysctlName(name), value, d))
		}
	}
	const expected = "the kernel's own default of every setting that the profile does not name"
	switch {
	case len(wrong) > 0:
		return failed(expected, first(wrong, 40))
	case judged < 400:
		return unknown("only %d settings are shown", judged)
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d settings at their defaults", judged)}
}

// first shows the first of many sorted, and how many are left out.
func first(list []string, most int) string {
	list = slices.Clone(list)
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

// A setLine is one line of a file of sysctl.d(5).
type setLine struct {
	name, value, file string
	exclude           bool           // "-name": globs do not reach it
	glob              *regexp.Regexp // of a name that is a pattern
}

// readSet reads a line as systemd-sysctl does: where the first of "." and "/" is a
// slash the name is a path already.
func readSet(file, line string) (setLine, error) {
	line = strings.TrimSpace(line)
	rest, minus := strings.CutPrefix(line, "-")
	name, value, ok := strings.Cut(rest, "=")
	name = strings.TrimSpace(name)
	if !ok && !minus || name == "" {
		return setLine{}, fmt.Errorf("%s: %.80q is no setting", file, line)
	}
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		name = strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	name = strings.Trim(strings.TrimPrefix(name, "/proc/sys/"), "/")
	s := setLine{name: strings.ToLower(name), value: strings.Join(strings.Fields(value), " "), file: file, exclude: !ok}
	if strings.ContainsAny(name, "*?[") {
		s.glob = globPattern(s.name)
	}
	return s, nil
}

// nextBoot are the settings that the files make, the last of a name, and the
// complaints about what is none.
func nextBoot(files []namedFile) (set []setLine, bad []string) {
	at := map[string]int{}
	for _, file := range files {
		if where, ok := strings.CutPrefix(file.name, "network "); ok {
			for _, line := range file.lines {
				key, value, _ := strings.Cut(line, "=")
				value = strings.ToLower(strings.TrimSpace(value))
				harmless := slices.Contains([]string{"no", "false", "0", "off", "none", "kernel"}, value) || strings.TrimSpace(key) == "IPv6AcceptRA"
				if !harmless {
					bad = append(bad, fmt.Sprintf("%s: %.80q", where, strings.TrimSpace(line)))
				}
			}
			continue
		}
		for _, line := range file.lines {
			s, err := readSet(file.name, line)
			if err != nil {
				bad = append(bad, err.Error())
				continue
			}
			if i, ok := at[s.name]; ok {
				set[i] = s
				continue
			}
			at[s.name] = len(set)
			set = append(set, s)
		}
	}
	return set, bad
}

// made is the value that a name gets: its own line's, else the last pattern's that
// matches it.
func made(set []setLine, name string) (value string, ok bool) {
	for _, s := range set {
		if s.name == name {
			return s.value, !s.exclude
		}
	}
	for _, s := range set {
		if s.glob != nil && s.glob.MatchString(name) {
			value, ok = s.value, true
		}
	}
	return value, ok
}

func globPattern(glob string) *regexp.Regexp {
	pattern := regexp.QuoteMeta(glob)
	pattern = strings.NewReplacer(`\*`, `[^/]*`, `\?`, `[^/]`, `\[`, `[`, `\]`, `]`).Replace(pattern)
	re, err := regexp.Compile("^" + pattern + "$")
	if err != nil {
		return regexp.MustCompile(`$^`)
	}
	return re
}

// judgeNextBoot holds what the files will set to the same tables, and what they do
// not set to the kernel's default. An interface that comes later begins with
// "default" and is then set by the patterns.
func judgeNextBoot(f Facts, _ Params) Verdict {
	files := f.files("sysctl-next")
	if len(files) == 0 || files[len(files)-1].name != "end" {
		return unknown("the files were not read to their end")
	}
	set, wrong := nextBoot(files)
	hard, table := hardeningTable(), defaults(f.settings()["kernel/osrelease"])
	for _, s := range set {
		if s.exclude || ofLoopback(s.name) {
			continue
		}
		d, ok := demandOn(hard, s.name)
		if !ok {
			d, ok = demandOn(table, s.name)
		}
		switch {
		case ok && !d.accepts(s.value):
			wrong = append(wrong, fmt.Sprintf("%s: %s=%.80q, not %s", s.file, sysctlName(s.name), s.value, d))
		case !ok && table != nil:
			wrong = append(wrong, fmt.Sprintf("%s: %s=%.80q, which this kernel does not have by itself", s.file, sysctlName(s.name), s.value))
		}
	}
	settings := f.settings()
	for _, h := range hardening() {
		for _, name := range instances(h.name) {
			if _, there := settings[name]; !there && h.optional {
				continue
			}
			value, ok := made(set, name)
			if !ok {
				value = h.kernel
			}
			if !h.demand.accepts(value) && !ok {
				wrong = append(wrong, fmt.Sprintf("no file sets %s, and the kernel's own value is %s, not %s", sysctlName(name), value, h.demand))
			}
		}
	}
	const expected = "files that set what the profile demands, and else nothing but the kernel's own defaults"
	if len(wrong) > 0 {
		return failed(expected, first(wrong, 40))
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d settings of %d files", len(set), len(files)-1)}
}

// demandOn finds what is demanded of a setting, which may be a pattern: of every
// interface, or of the only name that it can mean.
func demandOn(table map[string]demand, name string) (demand, bool) {
	if d, ok := lookup(table, name); ok {
		return d, true
	}
	if strings.ContainsAny(name, "*?[") {
		re := globPattern(name)
		for known, d := range table {
			if re.MatchString(known) || re.MatchString(strings.Replace(known, "*", "eth0", 1)) {
				return d, true
			}
		}
	}
	return "", false
}

// instances are the names that a setting of any interface must have: "all", and
// "default" for those that come.
func instances(name string) []string {
	if !strings.Contains(name, "*") {
		return []string{name}
	}
	return []string{strings.Replace(name, "*", "all", 1), strings.Replace(name, "*", "default", 1)}
}

func wholeSysctlChecks() []Check {
	return []Check{
		{
			ID: "sysctl.kernel", Severity: High, Needs: []string{"sysctl"},
			Title:      "the kernel's settings are as the profile demands, for each interface and for new ones",
			Why:        "They decide who may read memory, trace processes, load code and what the kernel starts as root.",
			References: []string{refSysctl, "dev-sec linux-baseline", "Linux documentation: admin-guide/sysctl"},
			Judge:      judgeHardening,
		},
		{
			ID: "sysctl.defaults", Severity: Medium, Needs: []string{"sysctl"},
			Title:      "every other setting of the kernel has the kernel's own default",
			Why:        "A setting that nobody asked for was changed for a purpose that nobody knows.",
			References: []string{refSysctl, "Linux documentation: admin-guide/sysctl, networking/ip-sysctl"},
			Judge:      judgeDefaults,
		},
		{
			ID: "sysctl.next-boot", Severity: High, Needs: []string{"sysctl-next", "sysctl"},
			Title:      "the next boot sets the same, for interfaces of today and of tomorrow",
			Why:        "What was set by hand is gone after a reboot, and what a file sets comes back.",
			References: []string{refSysctl, "sysctl.d(5), systemd.network(5)"},
			Judge:      judgeNextBoot,
		},
	}
}
