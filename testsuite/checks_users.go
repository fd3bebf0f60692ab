package testsuite

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	refUser    = "OTC image factory introduction: a standard user linux with a RANDOM password and full passwordless sudo"
	refConsole = "OTC image factory introduction: the password is shown at the console and not readable by local users"
)

func userChecks() []Check {
	return []Check{
		{
			ID: "users.login-user", Severity: High, Needs: []string{"users", "shells"}, References: []string{refUser},
			Title: "the login user exists, is not root, and has a login shell",
			Why:   "Keys are injected for this user: without it nobody gets in.",
			Judge: judgeLoginUser,
		},
		{
			ID: "users.password", Severity: Medium, Needs: []string{"users"}, References: []string{refUser, "crypt(5)"},
			Title: "the login user has a password, hashed by yescrypt, SHA-512 or better",
			Why:   "It is the emergency login at the console.",
			Judge: func(f Facts, p Params) Verdict {
				const expected = "a hash by yescrypt, gost-yescrypt, scrypt, bcrypt or SHA-512"
				u, ok := findUser(f, p.user())
				if !ok {
					return failed(expected, "no user "+p.user())
				}
				found := fmt.Sprintf("%s, method %s", u.password, u.method)
				if u.password != "hash" || !slices.Contains([]string{"y", "gy", "7", "2b", "2y", "6"}, u.method) {
					return failed(expected, found)
				}
				return Verdict{Status: Pass, Expected: expected, Found: found}
			},
		},
		{
			ID: "users.sudo", Severity: High, Needs: []string{"sudo"}, References: []string{refUser},
			Title: "the login user has full sudo power without a password",
			Why:   "There is no other way to root.",
			Judge: judgeSudo,
		},
		{
			ID: "users.root-locked", Severity: High, Needs: []string{"users"}, References: []string{refUser},
			Title: "root has no password",
			Why:   "A password of root, known or guessed, is the machine's.",
			Judge: func(f Facts, _ Params) Verdict {
				u, ok := findUser(f, "root")
				if !ok {
					return unknown("no user root is shown")
				}
				return want("locked", u.password)
			},
		},
		{
			ID: "users.no-others", Severity: High, Needs: []string{"users"}, References: []string{refUser},
			Title: "no other user can log in or is root",
			Why:   "A user left by the build is a way in that nobody watches.",
			Judge: judgeOtherUsers,
		},
		{
			ID: "users.accounts", Severity: High, Needs: []string{"accounts"}, References: []string{refUser},
			Title: "users, groups and their members are the distribution's and the login user, each once and as their packages have them",
			Why:   "A member of disk, shadow or docker is root in all but name, as is who shares root's number.",
			Judge: judgeAccounts,
		},
		{
			ID: "users.sudo-rules", Severity: Critical, Needs: []string{"sudo-rules", "os-release"}, References: []string{refUser},
			Title: "sudo's rules are those of root, of its own empty group and of the login user, its settings the distribution's",
			Why:   "Every other rule makes somebody root.",
			Judge: judgeSudoRules,
		},
		{
			ID: "users.authorized-keys", Severity: Critical, Needs: []string{"authorized-keys", "login-key"}, References: []string{refUser},
			Title: "the key that was injected is the only one that sshd accepts, and it is the login user's",
			Why:   "Every other key is somebody's who keeps access.",
			Judge: judgeAuthorizedKeys,
		},
	}
}

func findUser(f Facts, name string) (user, bool) {
	for _, u := range f.users() {
		if u.name == name {
			return u, true
		}
	}
	return user{}, false
}

func judgeLoginUser(f Facts, p Params) Verdict {
	expected := fmt.Sprintf("user %s, not uid 0, with a shell of /etc/shells", p.user())
	u, ok := findUser(f, p.user())
	if !ok {
		return failed(expected, "no such user")
	}
	found := fmt.Sprintf("uid %s, shell %s", u.uid, u.shell)
	shells := strings.Fields(f.text("shells"))
	if uid, err := strconv.Atoi(u.uid); err != nil || uid == 0 || !slices.Contains(shells, u.shell) || !loginShell(u.shell) {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}

func judgeSudo(f Facts, _ Params) Verdict {
	const expected = "(ALL) NOPASSWD: ALL, and sudo -n gives uid 0"
	became := f.value("sudo", "as-user")
	full := ""
	for line := range strings.Lines(f.text("sudo")) {
		line = strings.Join(strings.Fields(line), " ")
		switch line {
		case "(ALL) NOPASSWD: ALL", "(ALL : ALL) NOPASSWD: ALL":
			full = line
		}
	}
	found := fmt.Sprintf("%s, and sudo -n gives uid %s", cmpOr(full, "no such rule"), cmpOr(became, "none"))
	if full == "" || became != "0" {
		return failed(expected, found)
	}
	return Verdict{Status: Pass, Expected: expected, Found: found}
}

func judgeOtherUsers(f Facts, p Params) Verdict {
	users := f.users()
	if len(users) == 0 {
		return unknown("no user is shown")
	}
	var bad []string
	for _, u := range users {
		if u.name == "root" || u.name == p.user() {
			continue
		}
		uid, err := strconv.Atoi(u.uid)
		switch {
		case err != nil || uid == 0:
			bad = append(bad, fmt.Sprintf("%s has uid %s", u.name, u.uid))
		case u.password != "locked":
			bad = append(bad, fmt.Sprintf("%s has password %s", u.name, u.password))
		case uid >= 1000 && uid < 65534 && loginShell(u.shell):
			bad = append(bad, fmt.Sprintf("%s has uid %s and shell %s", u.name, u.uid, u.shell))
		}
	}
	if len(bad) > 0 {
		return failed("root and "+p.user()+" only", names(bad))
	}
	return passed("root and " + p.user() + " only")
}

func consoleChecks() []Check {
	return []Check{
		{
			ID: "console.password-hint", Severity: Medium, Needs: []string{"console"}, References: []string{refConsole},
			Title: "the console shows the login user's password",
			Why:   "When the network is broken, the console is the only way in.",
			Judge: func(f Facts, _ Params) Verdict { return want("shown", f.value("console", "password")) },
		},
		{
			ID: "console.password-secret", Severity: High, Needs: []string{"console", "console-secret"}, References: []string{refConsole},
			Title: "no other user of the machine can read the console's password",
			Why:   "A service that is broken into would become the login user, and so root.",
			Judge: judgePasswordSecret,
		},
		{
			ID: "console.password-leaks", Severity: High, Needs: []string{"console", "console-leaks"}, References: []string{refConsole},
			Title: "no process's arguments, no other user's environment, no unit and no journal shows the console's password",
			Why:   "Every user of the machine reads arguments and units; journals are sent away and kept.",
			Judge: judgePasswordLeaks,
		},
		{
			ID: "console.serial", Severity: Medium, Needs: []string{"boot", "services"},
			References: []string{"OTC image factory release notes: serial console log"},
			Title:      "the kernel and a login prompt use the serial console",
			Why:        "The platform's console log shows nothing otherwise.",
			Judge: func(f Facts, _ Params) Verdict {
				const expected = "console=ttyS0 and serial-getty@ttyS0.service active"
				var consoles []string
				for _, w := range kernelArgs(f) {
					if strings.HasPrefix(w, "console=") {
						consoles = append(consoles, w)
					}
				}
				getty := f.units()["serial-getty@ttyS0.service"]
				serial := slices.ContainsFunc(consoles, func(c string) bool {
					return c == "console=ttyS0" || strings.HasPrefix(c, "console=ttyS0,")
				})
				found := fmt.Sprintf("%s and %s", cmpOr(names(consoles), "no console="), getty)
				if !serial || !getty.active() {
					return failed(expected, found)
				}
				return Verdict{Status: Pass, Expected: expected, Found: found}
			},
		},
	}
}

// kernelArgs returns the words of the kernel's command line.
func kernelArgs(f Facts) []string {
	for _, file := range f.files("boot") {
		if file.name == "/proc/cmdline" {
			return strings.Fields(strings.Join(file.lines, " "))
		}
	}
	return nil
}
