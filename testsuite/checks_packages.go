package testsuite

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/signing"
)

const (
	refUpdates   = "OTC image factory introduction: update repositories registered, no automatic updates"
	refAuthentic = "OTC image factory introduction: authenticity of the packages is cryptographically verified"
)

func updateChecks() []Check {
	return []Check{
		{
			ID: "updates.repositories", Severity: High, Needs: []string{"package-sources", "apt-targets"}, References: []string{refUpdates},
			Title: "the image's update repositories are registered, with their suites and components, and no others",
			Why:   "Security updates come from there.",
			Judge: judgeRepositories,
		},
		{
			ID: "updates.no-build-mirror", Severity: High, Needs: []string{"package-sources", "apt-config"}, References: []string{refUpdates},
			Title: "nothing of the mirror that the image was built from remains",
			Why:   "It cannot be reached by the customer, or should not be.",
			Judge: judgeBuildMirror,
		},
		{
			ID: "updates.verified", Severity: Critical, Needs: []string{"package-sources", "apt-config", "package-options"},
			References: []string{refAuthentic, "sources.list(5): trusted", "apt-secure(8)"},
			Title:      "no package source is exempt from verification, nor any step of it",
			Why:        "Whoever is between the machine and its mirror could give it any package.",
			Judge:      judgeVerified,
		},
		{
			ID: "updates.keys", Severity: Critical, Needs: []string{"package-sources", "package-keys", "os-release", "apt-targets"},
			References: []string{refAuthentic, "sources.list(5): signed-by"},
			Title:      "packages are believed by the distribution's keys and those of the definition, which count today, and by no others",
			Why:        "Who has a key that the machine believes can give it any package; one that has expired gives it none.",
			Judge:      judgePackageKeys,
		},
		{
			ID: "updates.options", Severity: High, Needs: []string{"apt-config", "package-options", "os-release"},
			References: []string{refUpdates, "apt.conf(5)", "dpkg.cfg(5)"},
			Title:      "the package manager has its defaults: no hook, proxy, other directory or program, exclusion or forced step",
			Why:        "A hook runs as root at each update, and an option can turn updates away without a word.",
			Judge:      judgePackageOptions,
		},
		{
			ID: "updates.preferences", Severity: High, Needs: []string{"package-options"},
			References: []string{refUpdates, "apt_preferences(5)"},
			Title:      "no package or suite is pinned, locked or excluded",
			Why:        "What is pinned away or locked gets no security update.",
			Judge:      judgePreferences,
		},
		{
			ID: "updates.not-automatic", Severity: Medium, Needs: []string{"update-units", "apt-config", "package-options"}, References: []string{refUpdates},
			Title: "nothing updates the machine by itself",
			Why:   "Many applications replace machines instead, and an update at boot takes its locks and time.",
			Judge: judgeAutomaticUpdates,
		},
		{
			ID: "packages.required", Severity: High, Needs: []string{"packages"}, References: []string{"the image's definition"},
			Title: "the packages that the definition demands are installed",
			Why:   "The definition says that the image has them.",
			Judge: judgeRequired,
		},
		{
			ID: "packages.state", Severity: High, Needs: []string{"packages", "package-state"},
			References: []string{"OTC image factory introduction: generic quality requirements", "dpkg(1): --audit"},
			Title:      "every package is wholly installed, none is held or of another architecture, and an upgrade would find nothing to repair",
			Why:        "A held package gets no update; a half configured one stops all the others.",
			Judge:      judgePackageState,
		},
	}
}

// A packageSource is one entry of apt's sources, as its files have it.
type packageSource struct {
	file    string
	options map[string]string // by name in lower case: trusted, signed-by, types, uris, …
}

// aptSources reads the active entries of sources.list(5), in both formats.
func (f Facts) aptSources() []packageSource {
	var out []packageSource
	for _, file := range f.files("package-sources") {
		switch {
		case !strings.Contains(file.name, "/apt/"):
		case strings.HasSuffix(file.name, ".sources"):
			out = append(out, stanzas(file)...)
		default:
			for _, line := range file.lines {
				if s, ok := sourceLine(file.name, line); ok {
					out = append(out, s)
				}
			}
		}
	}
	return out
}

// stanzas reads deb822 entries. A new one begins with a field that is there
// already: facts keep no empty lines.
func stanzas(file namedFile) []packageSource {
	var out []packageSource
	var last string
	for _, line := range file.lines {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if cont := line[0] == ' ' || line[0] == '\t'; cont || !ok {
			if len(out) > 0 && last != "" {
				out[len(out)-1].options[last] += " " + strings.TrimSpace(line)
			}
			continue
		}
		last = strings.ToLower(strings.TrimSpace(key))
		if len(out) == 0 || out[len(out)-1].options[last] != "" {
			out = append(out, packageSource{file: file.name, options: map[string]string{}})
		}
		out[len(out)-1].options[last] = strings.TrimSpace(value)
	}
	return out
}

// sourceLine reads a line "deb [OPTION=VALUE…] URI SUITE COMPONENT…".
func sourceLine(name, line string) (packageSource, bool) {
	line, _, _ = strings.Cut(line, "#")
	s := packageSource{file: name, options: map[string]string{}}
	kind, rest, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
	if kind != "deb" && kind != "deb-src" {
		return s, false
	}
	rest = strings.TrimSpace(rest)
	if options, more, ok := strings.Cut(strings.TrimPrefix(rest, "["), "]"); ok && strings.HasPrefix(rest, "[") {
		for _, o := range strings.Fields(options) {
			key, value, _ := strings.Cut(o, "=")
			s.options[strings.ToLower(strings.TrimRight(key, "+-"))] = value
		}
		rest = more
	}
	if w := strings.Fields(rest); len(w) > 0 {
		s.options["types"], s.options["uris"] = kind, w[0]
		s.options["suites"] = strings.Join(w[1:min(2, len(w))], "")
		s.options["components"] = strings.Join(w[min(2, len(w)):], " ")
	}
	return s, true
}

// What an entry of sources may say: where it is, and by which key it is believed.
// The options of verification are judged by updates.verified.
var (
	placeOptions  = []string{"types", "uris", "suites", "components", "enabled", "signed-by", "x-repolib-name", "description"}
	verifyOptions = []string{"trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure", "check-valid-until", "valid-until-min", "valid-until-max",
		"check-date", "date-max-future", "inrelease-path", "by-hash"}
)

// sourceURLs returns the URLs of active package sources, and of all lines.
func sourceURLs(f Facts) (active []string, lines []string) {
	for _, file := range f.files("package-sources") {
		for _, line := range file.lines {
			lines = append(lines, line)
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			for _, w := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t=,\"'", r) }) {
				if strings.Contains(w, "://") {
					active = append(active, strings.TrimRight(w, "/"))
				}
			}
		}
	}
	return active, lines
}

func judgeRepositories(f Facts, p Params) Verdict {
	if len(p.Repositories) == 0 && !p.NoRepositories {
		return unknown("the definition names no repositories")
	}
	apt := strings.TrimSpace(f.text("apt-targets")) != "no apt"
	var wanted, found, bad []string
	byURL := map[string]Repository{}
	for _, r := range p.Repositories {
		r.URL = strings.TrimRight(r.URL, "/")
		byURL[r.URL] = r
		wanted = append(wanted, r.targets(apt)...)
	}
	if apt {
		for _, l := range f.lines("apt-targets") {
			if len(l) < 4 {
				bad = append(bad, fmt.Sprintf("%.200q", strings.Join(l, " ")))
				continue
			}
			target := strings.TrimRight(l[1], "/")
			if r, ok := byURL[target]; !ok || len(r.Suites) > 0 {
				target += " " + l[2] + " " + l[3]
			}
			if l[0] == "deb" || byURL[strings.TrimRight(l[1], "/")].URL == "" {
				found = append(found, target)
			}
		}
		for _, s := range f.aptSources() {
			for _, name := range sortedKeys(s.options) {
				if !slices.Contains(placeOptions, name) && !slices.Contains(verifyOptions, name) {
					bad = append(bad, fmt.Sprintf("option %s: %s in %s", name, s.options[name], s.file))
				}
			}
		}
	} else {
		found, _ = sourceURLs(f)
		found = slices.DeleteFunc(found, func(u string) bool { return strings.HasPrefix(u, "file://") })
	}
	for _, extra := range without(found, wanted) {
		bad = append(bad, "also "+extra)
	}
	for _, missing := range without(wanted, found) {
		bad = append(bad, "without "+missing)
	}
	if len(bad) > 0 {
		return failed(cmpOr(names(wanted), "none"), names(bad))
	}
	return want(cmpOr(names(wanted), "none"), cmpOr(names(found), "none"))
}

// targets are a repository's indexes as apt names them: URL SUITE COMPONENT; or its
// URL alone, where the definition names no suites or the machine has no apt.
func (r Repository) targets(apt bool) []string {
	if !apt || len(r.Suites) == 0 {
		return []string{r.URL}
	}
	components := r.Components
	if len(components) == 0 {
		components = []string{"main"}
	}
	var out []string
	for _, suite := range r.Suites {
		for _, c := range components {
			out = append(out, r.URL+" "+suite+" "+c)
		}
	}
	return out
}

func judgeBuildMirror(f Facts, p Params) Verdict {
	allowed := map[string]bool{}
	for _, r := range p.Repositories {
		if u, err := url.Parse(r.URL); err == nil {
			allowed[u.Host] = true
		}
	}
	var hosts []string
	for _, h := range p.MirrorHosts {
		if !allowed[h] {
			hosts = append(hosts, h)
		}
	}
	if len(hosts) == 0 {
		return skipped("no build mirror is named that is not an update repository too")
	}
	var bad []string
	_, lines := sourceURLs(f)
	for _, l := range f.lines("package-sources") {
		if l[0] == "list" { // apt's file names begin with the host
			lines = append(lines, strings.Join(l, " "))
		}
	}
	lines = append(lines, strings.Split(f.text("apt-config"), "\n")...)
	for _, line := range lines {
		for _, h := range hosts {
			if strings.Contains(line, h) {
				bad = append(bad, strings.TrimSpace(line))
			}
		}
	}
	if len(bad) > 0 {
		return failed("nothing of "+names(hosts), shown(bad))
	}
	return passed("nothing of " + names(hosts))
}

var (
	// verifyOption is an option of apt that has to do with what is believed.
	verifyOption = regexp.MustCompile(`(?i)allow-?(unauthenticated|insecure|weak|downgrade|releaseinfo|change)|check-valid-until|valid-?until|check-date|max-?futuretime|verify-?(peer|host)|sslforce|gpgv|apt::hashes|apt::key|untrusted|apt::sandbox::user`)
	// unverified is a line of a repository of yum, dnf or zypper that lets packages in
	// without a good signature, or from anybody.
	unverified = regexp.MustCompile(`(?i)^\s*((repo_|pkg_|local|localpkg_)?gpgcheck\s*=\s*(0|no|false|off)|sslverify\s*=\s*(0|no|false|off)|pkg_gpgcheck\s*=\s*(0|no|false|off)|(solver\.)?allow_?unsigned\S*\s*=.*)\s*$`)
)

func judgeVerified(f Facts, p Params) Verdict {
	if active, _ := sourceURLs(f); len(active) == 0 && !p.NoRepositories {
		return unknown("no package source is shown")
	}
	var bad []string
	for _, s := range f.aptSources() {
		for _, name := range sortedKeys(s.options) {
			if value := s.options[name]; slices.Contains(verifyOptions, name) && !harmless(name, value) {
				bad = append(bad, fmt.Sprintf("%s: %s in %s", headerCase(name), value, s.file))
			}
		}
	}
	for _, o := range f.aptOptions() {
		if o.value != "" && verifyOption.MatchString(o.name) && !harmless(o.name, o.value) && !slices.Contains(defaultVerify, o.String()) {
			bad = append(bad, o.String())
		}
	}
	for _, file := range append(f.files("package-sources"), f.files("package-options")...) {
		for _, line := range file.lines {
			if !strings.Contains(file.name, "/apt/") && unverified.MatchString(line) {
				bad = append(bad, strings.TrimSpace(line)+" in "+file.name)
			}
		}
	}
	if len(bad) > 0 {
		return failed("none", shown(bad))
	}
	return want("none", "none")
}

// defaultVerify are apt's own options that look as if they were about verification.
var defaultVerify = []string{`APT::Sandbox::User "_apt"`}

// harmless reports whether an option says what holds without it.
func harmless(name, value string) bool {
	no := slices.Contains([]string{"0", "no", "false", "off", "without", "disable", "never"}, strings.ToLower(value))
	yes := slices.Contains([]string{"1", "yes", "true", "on", "with", "enable", "force"}, strings.ToLower(value))
	name = strings.ToLower(name)
	if strings.Contains(name, "allow") || name == "trusted" {
		return no
	}
	return yes && (strings.Contains(name, "untrusted") || strings.Contains(name, "check-") || strings.Contains(name, "verify") || name == "by-hash")
}

// headerCase is a field's name as sources of stanzas have it: Allow-Insecure.
func headerCase(name string) string {
	words := strings.Split(name, "-")
	for i, w := range words {
		if w != "" {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "-")
}

// distributionKeys are the fingerprints of the keys with which distributions sign
// their packages, and the packages that bring them. They are those of
// debian-archive-keyring 2023.3+deb12u2.
var distributionKeys = map[string]struct {
	packages []string
	keys     []signing.Fingerprint
}{
	"debian": {[]string{"debian-archive-keyring"}, []signing.Fingerprint{
		"1F89983E0081FDE018F3CC9673A4F27B8DD47936", "AC530D520F2F3269F5E98313A48449044AAD5C5D", "A4285295FC7B1A81600062A9605C66F00D6C9793", // 11
		"B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8", "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0", "4D64FEC119C2029067D6E791F8D2585B8783D481", // 12
		"04B54C3CDCA79751B16BC6B5225629DF75B188BD", "5E04A1E3223A19A20706E20F9904613D4CCE68C6", "41587F7DB8C774BCCF131416762F67A0B2C39DE4", // 13
	}},
}

func judgePackageKeys(f Facts, p Params) Verdict {
	distribution := ""
	for _, id := range osIDs(f) {
		if _, ok := distributionKeys[id]; ok && distribution == "" {
			distribution = id
		}
	}
	if distribution == "" && len(p.PackageKeys) == 0 {
		return skipped("the keys of this distribution are not known, and the definition names none")
	}
	known := distributionKeys[distribution]
	var own []signing.Fingerprint // a file in no package may hold these
	for _, k := range p.PackageKeys {
		fpr, err := signing.ParseFingerprint(k)
		if err != nil {
			return unknown("the definition's key: %v", err)
		}
		own = append(own, fpr)
	}
	var bad, good []string
	for _, l := range f.lines("package-keys") {
		switch {
		case l[0] == "missing" && len(l) == 2:
			bad = append(bad, l[1]+" is missing")
		case l[0] == "key" && len(l) == 4:
			allowed := own
			if slices.Contains(known.packages, l[2]) {
				allowed = slices.Concat(own, known.keys)
			}
			g, b := f.judgeKeyFile(l[1], l[3], allowed)
			good, bad = append(good, g...), append(bad, b...)
		case l[0] == "key": // an empty file
			bad = append(bad, strings.Join(l[1:min(2, len(l))], "")+" holds no key")
		}
	}
	if strings.TrimSpace(f.text("apt-targets")) != "no apt" {
		for _, s := range f.aptSources() {
			// Without one, every key that is trusted counts: all of them are judged.
			if by, ok := s.options["signed-by"]; ok && !strings.HasPrefix(by, "/") {
				bad = append(bad, fmt.Sprintf("%s in %s is signed by %.40q, not by a file of keys", s.options["uris"], s.file, by))
			}
		}
	}
	expected := "the keys of " + cmpOr(names(known.packages), "the definition")
	switch {
	case len(bad) > 0:
		return failed(expected, shown(bad))
	case len(good) == 0:
		return failed(expected, "none")
	}
	return Verdict{Status: Pass, Expected: expected, Found: names(good)}
}

// judgeKeyFile returns what is good and what is bad about a file of keys.
func (f Facts) judgeKeyFile(name, encoded string, allowed []signing.Fingerprint) (good, bad []string) {
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, []string{name + " was not read whole"}
	}
	keys, err := signing.ReadKeys(bytes.NewReader(data))
	if err != nil {
		return nil, []string{name + " holds no key that can be read"}
	}
	for _, k := range keys {
		switch err := k.SignsAt(f.Started); {
		case !slices.Contains(allowed, k.Fingerprint()):
			bad = append(bad, fmt.Sprintf("%s holds key %s, which is not its package's or the definition's", name, cmpOr(string(k.Fingerprint()), "that cannot be read")))
		case err != nil:
			bad = append(bad, fmt.Sprintf("%s: %v", name, err))
		default:
			good = append(good, string(k.Fingerprint()))
		}
	}
	return good, bad
}

//go:embed apt-options.txt
var aptOptionsTable string

// An aptOption is one of apt's, a list's element with "::" at the end of its name.
type aptOption struct{ name, value string }

func (o aptOption) String() string { return fmt.Sprintf("%s %q", o.name, o.value) }

// aptOptions reads what apt-config dump says, without the command line's.
func (f Facts) aptOptions() []aptOption {
	var out []aptOption
	for line := range strings.Lines(f.text("apt-config")) {
		name, value, ok := strings.Cut(strings.TrimSuffix(strings.TrimSpace(line), `";`), ` "`)
		if ok && name != "Binary" && !strings.HasPrefix(name, "CommandLine") {
			out = append(out, aptOption{name, value})
		}
	}
	return out
}

// aptDefaults returns the table's options of a distribution, in lower case with
// their values behind a space, and whether they may be missing; nil if it has none.
func aptDefaults(distribution string) (allowed map[string]bool) {
	in := false
	for line := range strings.Lines(aptOptionsTable) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#") || line == "":
		case strings.HasPrefix(line, "["):
			if in = line == "["+distribution+"]"; in {
				allowed = map[string]bool{}
			}
		case in:
			line, optional := strings.CutPrefix(line, "? ")
			name, value, _ := strings.Cut(line, " ")
			allowed[strings.ToLower(name)+" "+value] = optional
		}
	}
	return allowed
}

// osVersion is ID and VERSION_ID of os-release(5): "debian 12".
func osVersion(f Facts) string {
	id, version := "", ""
	for line := range strings.Lines(f.text("os-release")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch value = strings.Trim(value, `"'`); key {
		case "ID":
			id = value
		case "VERSION_ID":
			version = value
		}
	}
	return id + " " + version
}

func judgePackageOptions(f Facts, _ Params) Verdict {
	bad := otherOptions(f)
	if allowed := aptDefaults(osVersion(f)); allowed != nil && strings.TrimSpace(f.text("apt-config")) != "no apt" {
		found := map[string]bool{}
		for _, o := range f.aptOptions() {
			name := strings.ToLower(o.name)
			exact, anything := name+" "+o.value, name+" *"
			found[exact], found[anything] = true, true
			_, known := allowed[exact]
			_, whatever := allowed[anything]
			// A name with an empty value is only the branch that others are on.
			if !known && !whatever && o.value != "" && !verifyOption.MatchString(o.name) && !strings.HasPrefix(name, "apt::periodic") {
				bad = append(bad, o.String())
			}
		}
		for _, o := range sortedKeys(allowed) {
			if !allowed[o] && !found[o] && !verifyOption.MatchString(o) {
				bad = append(bad, "without "+strings.TrimSpace(o))
			}
		}
	} else if len(bad) == 0 {
		return skipped("the defaults of this distribution's package manager are not known")
	}
	if len(bad) > 0 {
		return failed("the distribution's defaults", shown(bad))
	}
	return passed("the distribution's defaults")
}

// fileDefaults are the lines that distributions have in the files of dpkg, dnf,
// yum and zypper. What is about verification and exclusion is judged elsewhere.
var fileDefaults = map[string]*regexp.Regexp{
	"dpkg.cfg": regexp.MustCompile(`^(no-debsig|log /var/log/dpkg\.log)$`),
	"main.conf": regexp.MustCompile(`(?i)^(\[main\]|(repo_|local|localpkg_|pkg_)?gpgcheck *=.*|sslverify *=.*|(install_?only_?limit|installonly_limit) *= *\d+|clean_requirements_on_remove *=.*|` +
		`best *=.*|skip_if_unavailable *=.*|cachedir *= */var/cache/(yum|dnf)\S*|keepcache *=.*|debuglevel *= *\d+|logfile *= */var/log/yum\.log|exactarch *=.*|obsoletes *= *(1|true)|plugins *=.*|` +
		`distroverpkg *=.*|bugtracker_url *=.*|tolerant *=.*|exclude(pkgs)? *=.*|ip_resolve *=.*|fastestmirror *=.*)$`),
	"zypp": regexp.MustCompile(`(?i)^(\[(main|solver|commit|search|color|obs)\]|multiversion *=.*|multiversion\.kernels *=.*|solver\.onlyRequires *=.*|(repo_|pkg_)?gpgcheck *=.*|` +
		`download\.use_deltarpm *=.*|rpm\.install\.excludedocs *=.*|showAlias *=.*|refreshes? *=.*)$`),
}

// otherOptions names what is set beyond defaults in files that no tool dumps.
func otherOptions(f Facts) []string {
	var bad []string
	for _, file := range f.files("package-options") {
		var fine *regexp.Regexp
		switch {
		case strings.Contains(file.name, "/apt/preferences") || strings.HasSuffix(file.name, "versionlock.list") ||
			strings.HasSuffix(file.name, "/locks") || strings.HasSuffix(file.name, "/automatic.conf"):
			continue // others judge them
		case strings.Contains(file.name, "/apt/auth.conf"):
			if len(file.lines) > 0 { // which are secrets
				bad = append(bad, "credentials in "+file.name)
			}
			continue
		case strings.Contains(file.name, "dpkg.cfg"):
			fine = fileDefaults["dpkg.cfg"]
		case strings.Contains(file.name, "/zypp/"):
			fine = fileDefaults["zypp"]
		default:
			fine = fileDefaults["main.conf"]
		}
		for _, line := range file.lines {
			if line = strings.TrimSpace(line); !fine.MatchString(line) {
				bad = append(bad, line+" in "+file.name)
			}
		}
	}
	return bad
}

// excluding is a line of dnf's or yum's configuration that keeps packages out.
var excluding = regexp.MustCompile(`(?i)^\s*exclude(pkgs)?\s*=\s*\S`)

func judgePreferences(f Facts, _ Params) Verdict {
	var bad []string
	for _, file := range f.files("package-options") {
		locks := strings.Contains(file.name, "/apt/preferences") || strings.HasSuffix(file.name, "versionlock.list") || strings.HasSuffix(file.name, "/locks")
		for _, line := range file.lines {
			if locks || excluding.MatchString(line) {
				bad = append(bad, strings.TrimSpace(line)+" in "+file.name)
			}
		}
	}
	if len(bad) > 0 {
		return failed("none", shown(bad))
	}
	return want("none", "none")
}

func judgeAutomaticUpdates(f Facts, _ Params) Verdict {
	var bad []string
	for _, l := range f.lines("update-units") {
		if len(l) < 3 || strings.HasPrefix(l[1], "snapd.seeded") {
			continue
		}
		switch state := l[2]; l[0] {
		case "file":
			if strings.HasPrefix(state, "enabled") || state == "linked" && strings.HasSuffix(l[1], ".timer") {
				bad = append(bad, l[1]+" "+state)
			}
		case "unit":
			if state != "inactive" {
				bad = append(bad, l[1]+" "+state)
			}
		}
	}
	for _, o := range f.aptOptions() {
		name := strings.ToLower(o.name)
		if strings.HasPrefix(name, "apt::periodic::") && name != "apt::periodic::verbose" && !slices.Contains([]string{"", "0", "false", "no"}, o.value) {
			bad = append(bad, o.String())
		}
	}
	for _, file := range f.files("package-options") {
		for _, line := range file.lines {
			key, value, _ := strings.Cut(strings.ReplaceAll(line, " ", ""), "=")
			if strings.HasSuffix(file.name, "/automatic.conf") && key == "apply_updates" && slices.Contains([]string{"yes", "1", "true"}, strings.ToLower(value)) {
				bad = append(bad, strings.TrimSpace(line)+" in "+file.name)
			}
		}
	}
	if len(bad) > 0 {
		return failed("none", shown(bad))
	}
	return want("none", "none")
}

func judgeRequired(f Facts, p Params) Verdict {
	if len(p.RequiredPackages) == 0 {
		return skipped("the definition demands no packages")
	}
	have := f.packages()
	if len(have) == 0 {
		return unknown("no package is shown")
	}
	var missing []string
	for _, name := range p.RequiredPackages {
		if !have[name] {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return failed(names(p.RequiredPackages), "without "+names(missing))
	}
	return want(names(p.RequiredPackages), names(p.RequiredPackages))
}

func judgePackageState(f Facts, _ Params) Verdict {
	if len(f.packages()) == 0 {
		return unknown("no package is shown")
	}
	const expected = "all installed, none held, nothing to repair"
	var bad []string
	for _, l := range f.lines("packages") {
		// What was removed and left its configuration ("rc") is for the ledger to name.
		if l[0] != "ii" && l[0] != "rc" {
			bad = append(bad, strings.Join(l[1:min(2, len(l))], "")+" is "+packageStatus(l[0]))
		}
	}
	looked := strings.TrimSpace(f.text("package-state")) == "no apt"
	for line := range strings.Lines(f.text("package-state")) {
		switch line = strings.TrimSpace(line); line {
		case "looked":
			looked = true
		case "no apt", "":
		default:
			bad = append(bad, line)
		}
	}
	switch {
	case len(bad) > 0:
		return failed(expected, shown(bad))
	case !looked:
		return unknown("the package manager was not asked to its end")
	}
	return want(expected, expected)
}

// packageStatus says in words what dpkg's abbreviation means.
func packageStatus(s string) string {
	if len(s) < 2 {
		return fmt.Sprintf("in state %q", s)
	}
	wants := map[byte]string{'h': "held", 'r': "to be removed", 'p': "to be purged", 'u': "not wanted for certain"}
	states := map[byte]string{'U': "unpacked only", 'F': "half configured", 'H': "half installed", 'W': "waiting for triggers", 't': "waiting for triggers", 'n': "not installed"}
	var out []string
	for _, text := range []string{wants[s[0]], states[s[1]]} {
		if text != "" {
			out = append(out, text)
		}
	}
	if len(s) > 2 || len(out) == 0 {
		out = append(out, "in state "+s)
	}
	return strings.Join(out, ", ")
}

// maxShown bounds what a finding quotes of a machine.
const maxShown = 40

// shown is names for text that a machine gave: each of at most 200 bytes, and not
// more than maxShown of them.
func shown(list []string) string {
	list = slices.Clone(list)
	slices.Sort(list)
	list = slices.Compact(list)
	more := len(list) - maxShown
	list = list[:min(len(list), maxShown)]
	for i, s := range list {
		list[i] = fmt.Sprintf("%.200s", s)
	}
	out := strings.Join(list, ", ")
	if more > 0 {
		out += fmt.Sprintf(", and %d more", more)
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
