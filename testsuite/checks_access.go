package testsuite

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// accounts is the fact of that name.
type accounts struct {
	passwd, group, shadow, gshadow [][]string // their lines' fields
	odd                            []string   // lines that are none
	modes                          map[string]string
	masterUsers                    map[string][]string
	known                          map[string]bool // names of users and groups that the distribution makes
	nss                            map[string][]string
	loginGroups                    []string
}

// leftAccounts are those that a package made which another has replaced since.
var leftAccounts = []string{"systemd-timesync"}

func readAccounts(f Facts) accounts {
	a := accounts{modes: map[string]string{}, masterUsers: map[string][]string{}, known: map[string]bool{}, nss: map[string][]string{}}
	for _, name := range leftAccounts {
		a.known[name] = true
	}
	take := func(into *[][]string, kind, rest string, fields int) {
		l := strings.Split(rest, ":")
		if len(l) != fields || !plainName(l[0]) {
			a.odd = append(a.odd, fmt.Sprintf("%s has the line %.80q", kind, rest))
			return
		}
		*into = append(*into, l)
	}
	for line := range strings.Lines(f.text("accounts")) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		w := strings.Fields(rest)
		switch kind {
		case "passwd":
			take(&a.passwd, kind, rest, 7)
		case "group":
			take(&a.group, kind, rest, 4)
		case "shadow":
			take(&a.shadow, kind, rest, 9)
		case "gshadow":
			take(&a.gshadow, kind, rest, 4)
		case "mode":
			if len(w) == 4 {
				a.modes[w[3]] = strings.Join(w[:3], " ")
			}
		case "master-passwd", "master-group":
			l := strings.Split(rest, ":")
			a.known[l[0]] = true
			if kind == "master-passwd" {
				a.masterUsers[l[0]] = l
			}
		case "sysusers":
			if len(w) > 1 {
				a.known[w[1]] = true
			}
		case "scripts":
			for _, word := range w {
				a.known[word] = true
			}
		case "nss":
			if len(w) > 0 {
				a.nss[w[0]] = w[1:]
			}
		case "cloud-groups":
			for _, g := range w {
				a.loginGroups = append(a.loginGroups, strings.Trim(g, `"',`))
			}
		}
	}
	return a
}

func judgeAccounts(f Facts, p Params) Verdict {
	a := readAccounts(f)
	switch {
	case len(a.masterUsers) == 0:
		return skipped("the accounts that this distribution's packages make are not known")
	case len(a.passwd) == 0 || len(a.shadow) == 0 || len(a.group) == 0:
		return unknown("no account is shown")
	}
	bad := slices.Concat(a.odd, a.users(p.user()), a.passwords(p.user()), a.groups(p.user()), a.files())
	if len(bad) > 0 {
		return failed("the distribution's accounts and "+p.user(), names(bad))
	}
	return passed(fmt.Sprintf("%d users, %d groups", len(a.passwd), len(a.group)))
}

// twice finds values of a field that several lines have.
func twice(what string, lines [][]string, field int) (bad []string) {
	seen := map[string]string{}
	for _, l := range lines {
		if before, ok := seen[l[field]]; ok {
			bad = append(bad, fmt.Sprintf("%s %s is there twice, for %s and %s", what, l[field], before, l[0]))
		}
		seen[l[field]] = l[0]
	}
	return bad
}

func (a *accounts) users(login string) []string {
	groups := map[string]string{}
	for _, g := range a.group {
		groups[g[2]] = g[0]
	}
	bad := slices.Concat(twice("user", a.passwd, 0), twice("uid", a.passwd, 2))
	for _, u := range a.passwd {
		name, uid, gid, home, shell := u[0], u[2], groups[u[3]], u[5], u[6]
		number, err := strconv.Atoi(uid)
		if u[1] != "x" {
			bad = append(bad, name+" has its password in passwd")
		}
		if m, ok := a.masterUsers[name]; ok {
			if !slices.Equal(m[2:], u[2:]) {
				bad = append(bad, fmt.Sprintf("%s is %s, base-passwd has %s", name, strings.Join(u[2:], ":"), strings.Join(m[2:], ":")))
			}
			continue
		}
		switch {
		case name == login:
			if gid != login || home != "/home/"+login || number < 1000 {
				bad = append(bad, fmt.Sprintf("%s has group %s, home %s and uid %s", name, gid, home, uid))
			}
		case !a.known[name]:
			bad = append(bad, name+" is no user of an installed package")
		case err != nil || number < 1 || number > 999 || shell != "/usr/sbin/nologin" && shell != "/bin/false" && shell != "/usr/bin/false":
			bad = append(bad, fmt.Sprintf("%s has uid %s and shell %s", name, uid, shell))
		case gid != name && gid != "nogroup":
			bad = append(bad, fmt.Sprintf("%s has group %s", name, cmpOr(gid, u[3])))
		}
	}
	return bad
}

func (a *accounts) passwords(login string) (bad []string) {
	state := map[string]bool{}
	for _, s := range a.shadow {
		state[s[0]] = true
		if s[1] == "hash" && s[0] != login || s[1] == "empty" {
			bad = append(bad, fmt.Sprintf("%s has a password (%s)", s[0], s[1]))
		}
		// The day of the last change, and no limits: "0" would ask for a new password, a
		// date would end the account.
		ages := strings.Join(s[3:], ":")
		if n, err := strconv.Atoi(s[2]); err != nil || n <= 0 || ages != "0:99999:7:::" && ages != ":::::" {
			bad = append(bad, fmt.Sprintf("%s has the password ages %s", s[0], strings.Join(s[2:], ":")))
		}
	}
	bad = append(bad, twice("shadow entry", a.shadow, 0)...)
	for _, u := range a.passwd {
		if !state[u[0]] {
			bad = append(bad, u[0]+" is not in shadow")
		}
	}
	return bad
}

func (a *accounts) groups(login string) []string {
	bad := slices.Concat(twice("group", a.group, 0), twice("gid", a.group, 2))
	members := map[string]string{}
	for _, g := range a.group {
		members[g[0]] = g[3]
		if g[0] != login && !a.known[g[0]] {
			bad = append(bad, "group "+g[0]+" is no group of an installed package")
		}
		if g[1] != "x" || g[2] == "0" && g[0] != "root" {
			bad = append(bad, fmt.Sprintf("group %s has gid %s, or a password", g[0], g[2]))
		}
		for m := range strings.SplitSeq(g[3], ",") {
			if m != "" && (m != login || !slices.Contains(a.loginGroups, g[0])) {
				bad = append(bad, fmt.Sprintf("%s is a member of %s", m, g[0]))
			}
		}
	}
	for _, g := range a.gshadow {
		if g[1] == "hash" || g[2] != "" {
			bad = append(bad, fmt.Sprintf("group %s has a password or administrators %s", g[0], g[2]))
		}
		if want, ok := members[g[0]]; !ok || want != g[3] {
			bad = append(bad, fmt.Sprintf("group %s has members %q in gshadow", g[0], g[3]))
		}
	}
	return bad
}

// files judges the modes of the files and where names come from.
func (a *accounts) files() (bad []string) {
	for _, name := range []string{"passwd", "group", "shadow", "gshadow"} {
		want := "644 root root"
		if strings.HasSuffix(name, "shadow") {
			want = "640 root shadow"
		}
		for _, file := range []string{"/etc/" + name, "/etc/" + name + "-"} {
			if mode, ok := a.modes[file]; ok && mode != want && mode != "600 root root" {
				bad = append(bad, fmt.Sprintf("%s is %s", file, mode))
			}
		}
	}
	for _, base := range []string{"passwd", "group", "shadow", "gshadow", "sudoers", "initgroups"} {
		for _, source := range a.nss[base] {
			if source != "files" && source != "systemd" || base == "sudoers" && source != "files" {
				bad = append(bad, fmt.Sprintf("nsswitch.conf has %s from %s", base, source))
			}
		}
	}
	return bad
}

// sudoDefaults are the settings of Debian's and Ubuntu's /etc/sudoers, as
// cvtsudoers writes them, and whether each has to be there.
var sudoDefaults = map[string]bool{
	`{"env_reset":true}`:      true,
	`{"mail_badpass":true}`:   false,
	`{"use_pty":true}`:        false,
	`{"timestamp_timeout":0}`: false,
	`{"secure_path":"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}`:           false, // one of the two has to
	`{"secure_path":"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"}`: false,
}

const securePath = `{"secure_path":`

func judgeSudoRules(f Facts, p Params) Verdict {
	if ids := osIDs(f); !slices.Contains(ids, "debian") {
		return skipped("the rules that this distribution's sudo has are not known")
	}
	var sections map[string]json.RawMessage
	err := json.Unmarshal([]byte(f.text("sudo-rules")), &sections)
	rules := map[string][]map[string]any{}
	for _, name := range []string{"Defaults", "User_Specs"} {
		var list []map[string]any
		if text, ok := sections[name]; ok && err == nil {
			err = json.Unmarshal(text, &list)
		}
		rules[name] = list
	}
	if err != nil {
		return unknown("cannot read sudo's rules: %v", err)
	}
	var bad []string
	seen := map[string]bool{}
	for _, d := range rules["Defaults"] {
		options, _ := d["Options"].([]any)
		for _, o := range options {
			text := compact(o)
			seen[text] = true
			if _, ok := sudoDefaults[text]; !ok || len(d) != 1 {
				bad = append(bad, "Defaults "+compact(d))
			}
		}
	}
	for text, needed := range sudoDefaults {
		if needed && !seen[text] {
			bad = append(bad, "no Defaults "+text)
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(s string) bool { return strings.HasPrefix(s, securePath) }) {
		bad = append(bad, "no Defaults secure_path")
	}
	for _, s := range rules["User_Specs"] {
		who, rule := compact(s["User_List"]), compact(s)
		all := strings.ReplaceAll(rule, `{"setenv":true}`, "")
		all = strings.ReplaceAll(all, `[{"authenticate":false},]`, "NOPASSWD")
		switch {
		case who == `[{"username":"root"}]` || who == `[{"usergroup":"sudo"}]` || who == `[{"usergroup":"admin"}]`:
			if strings.Contains(rule, "authenticate") {
				bad = append(bad, rule)
			}
		case who == `[{"username":"`+p.user()+`"}]` && strings.Contains(all, "NOPASSWD"):
		default:
			bad = append(bad, rule)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(sections)) {
		if key != "Defaults" && key != "User_Specs" {
			bad = append(bad, key+" "+compact(sections[key]))
		}
	}
	if len(rules["User_Specs"]) == 0 {
		return unknown("sudo has no rule, which cannot be")
	}
	if len(bad) > 0 {
		return failed("rules of root, %sudo and "+p.user()+" only", names(bad))
	}
	return passed("rules of root, %sudo and " + p.user() + " only")
}

// compact is a value as JSON on one line, its keys sorted, cut where it is long.
func compact(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	if len(text) > 500 {
		text = text[:500]
	}
	return string(text)
}

// rootRefusals end the command that cloud-init puts before the injected key
// in root's authorized_keys, so that it says whom to log in as; by version.
var rootRefusals = []string{";echo;sleep 10;exit 142", ";echo;sleep 10"}

func judgeAuthorizedKeys(f Facts, p Params) Verdict {
	own, _, _, _, err := ssh.ParseAuthorizedKey([]byte(f.text("login-key")))
	if err != nil {
		return unknown("cannot read the login key: %v", err)
	}
	key := own.Type() + " " + ssh.FingerprintSHA256(own)
	var bad []string
	found := false
	for line := range strings.Lines(f.text("authorized-keys")) {
		line = strings.TrimSpace(line)
		if file, ok := strings.CutPrefix(line, "file "); ok {
			bad = append(bad, file)
		}
		w := strings.SplitN(line, " ", 6)
		if w[0] != "keys" {
			continue
		}
		if len(w) != 6 {
			return unknown("cannot understand %.80q", line)
		}
		user, mode, owner, file := w[1], w[2], w[3], w[4]
		is, _, options, _, err := ssh.ParseAuthorizedKey([]byte(w[5]))
		what := fmt.Sprintf("%s: a line that is no key in %s", user, file)
		if err == nil {
			what = fmt.Sprintf("%s: %s %s in %s", user, is.Type(), ssh.FingerprintSHA256(is), file)
			if len(options) > 0 {
				what += fmt.Sprintf(" with %.60q", strings.Join(options, ","))
			}
		}
		switch {
		case err != nil || string(is.Marshal()) != string(own.Marshal()) || mode != "600" || owner != user:
			bad = append(bad, what)
		case user == p.user() && len(options) == 0:
			found = true
		case user == "root" && refusesRoot(options, p.user()):
		default:
			bad = append(bad, what)
		}
	}
	switch {
	case len(bad) > 0:
		return failed(p.user()+": "+key+" only", names(bad))
	case !found:
		return failed(p.user()+": "+key+" only", "not that key, although it logs in")
	}
	return passed(p.user() + ": " + key)
}

// refusesRoot reports whether options are those by which cloud-init refuses.
func refusesRoot(options []string, user string) bool {
	for _, end := range rootRefusals {
		command := `command="echo 'Please login as the user \"` + user + `\" rather than the user \"root\".'` + end + `"`
		if slices.Equal(options, []string{"no-port-forwarding", "no-agent-forwarding", "no-X11-forwarding", command}) {
			return true
		}
	}
	return false
}
