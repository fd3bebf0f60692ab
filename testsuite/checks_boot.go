package testsuite

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kernelArguments are what an image of the factory's kernel may be started with: a
// name and patterns (path.Match) of its values, none where it has no value. Whatever
// else there is changes what the kernel or systemd does, and fails by name.
var kernelArguments = map[string][]string{
	"BOOT_IMAGE": {"*vmlinuz-*"}, // from the boot loader
	"root":       {"LABEL=*", "UUID=*", "PARTUUID=*", "/dev/*", "/dev/*/*"},
	"ro":         nil, "rw": nil, "quiet": nil, "splash": {"silent"}, "rhgb": nil, "showopts": nil, // what is shown
	"console":        {"tty0", "ttyS0", "ttyS0,*", "ttyAMA0", "ttyAMA0,*", "hvc0"},
	"no_timer_check": nil, "nofb": nil, "nomodeset": nil, "gfxpayload": {"text"}, "vga": {"normal", "0x*"}, // machines without a screen
	"net.ifnames": {"0", "1"}, "biosdevname": {"0", "1"}, // names of interfaces
	"processor.max_cstate": {"1"}, "intel_idle.max_cstate": {"0", "1"}, "elevator": {"noop", "none"}, // virtual processors and disks
	"crashkernel": {"auto", "no", "1G-*"}, "rd.lvm.lv": {"*/*"}, "resume": {"UUID=*", "/dev/*", "/dev/*/*"},
	"LANG": {"*"}, "vconsole.keymap": {"*"}, "vconsole.font": {"*"}, "rd.luks": {"0"}, "rd.md": {"0"}, "rd.dm": {"0"}, // dracut's
}

// foreignArguments are the arguments that are none of kernelArguments.
func foreignArguments(words []string) []string {
	var out []string
	for _, w := range words {
		name, value, has := strings.Cut(w, "=")
		patterns, ok := kernelArguments[name]
		match := func(p string) bool { good, err := path.Match(p, value); return err == nil && good }
		if w == "" || ok && !has && len(patterns) == 0 || ok && has && (slices.ContainsFunc(patterns, match) || deepRoot(name, value)) {
			continue
		}
		out = append(out, fmt.Sprintf("%.80q", w))
	}
	return out
}

// deepRoot is the name of a root file system with slashes: path.Match's * has none.
func deepRoot(name, value string) bool {
	return (name == "BOOT_IMAGE" && regexp.MustCompile(`^(\([a-z0-9,]+\))?(/boot)?/vmlinuz-[\w.+-]+$`).MatchString(value)) ||
		name == "root" && strings.HasPrefix(value, "/dev/") && !strings.Contains(value, "..")
}

func judgeCommandLine(f Facts, _ Params) Verdict {
	const expected = "nothing but the arguments of the factory's images"
	for _, file := range f.files("boot") {
		if file.name != "/proc/cmdline" || len(file.lines) == 0 {
			continue
		}
		words := strings.Fields(strings.Join(file.lines, " "))
		if bad := foreignArguments(words); len(bad) > 0 {
			return failed(expected, "also "+first(bad, 20))
		}
		return Verdict{Status: Pass, Expected: expected, Found: strings.Join(words, " ")}
	}
	return unknown("the kernel's command line is not shown")
}

// grubVariables are what /etc/default/grub may set beside the command line.
var grubVariables = []string{"GRUB_TIMEOUT", "GRUB_TIMEOUT_STYLE", "GRUB_HIDDEN_TIMEOUT", "GRUB_HIDDEN_TIMEOUT_QUIET",
	"GRUB_RECORDFAIL_TIMEOUT", "GRUB_DISTRIBUTOR", "GRUB_DEVICE", "GRUB_DISABLE_LINUX_UUID", "GRUB_DISABLE_LINUX_PARTUUID",
	"GRUB_TERMINAL", "GRUB_TERMINAL_INPUT", "GRUB_TERMINAL_OUTPUT", "GRUB_GFXPAYLOAD_LINUX", "GRUB_GFXMODE",
	"GRUB_SERIAL_COMMAND", "GRUB_DISABLE_RECOVERY", "GRUB_DISABLE_OS_PROBER", "GRUB_DISABLE_SUBMENU", "GRUB_ENABLE_BLSCFG",
	"GRUB_BACKGROUND", "GRUB_THEME", "SUSE_BTRFS_SNAPSHOT_BOOTING", "GRUB_USE_LINUXEFI", "GRUB_USE_INITRDEFI", "GRUB_CMDLINE_XEN_DEFAULT"}

// A bootEntry is one way in which the boot loader starts a kernel.
type bootEntry struct {
	release   string
	arguments []string
	recovery  bool
}

var kernelPath = regexp.MustCompile(`^(?:/boot)?/vmlinuz-([\w.+-]+)$`)

// readLoader reads the boot loader's files: its entries in order, and what should
// not be there.
func readLoader(files []namedFile) (entries []bootEntry, bad []string) {
	complain := func(file, format string, args ...any) {
		bad = append(bad, file+": "+fmt.Sprintf(format, args...))
	}
	for _, file := range files {
		base := path.Base(file.name)
		switch {
		case file.name == "/etc/default/grub" || strings.HasPrefix(file.name, "/etc/default/grub.d/"):
			for _, line := range file.lines {
				for _, b := range judgeGrubDefault(line) {
					complain(file.name, "%s", b)
				}
			}
		case base == "grubenv":
			for _, line := range file.lines {
				key, value, _ := strings.Cut(line, "=")
				switch key {
				case "saved_entry", "boot_success", "boot_indeterminate", "menu_auto_hide", "tuned_params", "tuned_initrd":
					if strings.HasPrefix(key, "tuned") && value != "" {
						complain(file.name, "%.80q", line)
					}
				case "kernelopts":
					for _, b := range foreignArguments(strings.Fields(value)) {
						complain(file.name, "%s", b)
					}
				default:
					complain(file.name, "%.80q", line)
				}
			}
		case strings.HasPrefix(file.name, "/etc/kernel/"):
			for _, b := range foreignArguments(strings.Fields(strings.Join(file.lines, " "))) {
				complain(file.name, "%s", b)
			}
		default:
			more, wrong := readMenu(file)
			entries = append(entries, more...)
			for _, b := range wrong {
				complain(file.name, "%s", b)
			}
		}
	}
	return entries, bad
}

// judgeGrubDefault looks at one line of shell that grub-mkconfig will read.
func judgeGrubDefault(line string) []string {
	name, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "export ")), "=")
	value = strings.Trim(value, `"'`)
	switch {
	case ok && strings.HasPrefix(name, "GRUB_CMDLINE_LINUX"):
		// What a file adds to others is judged where it is set.
		return foreignArguments(without(strings.Fields(value), []string{"$GRUB_CMDLINE_LINUX", "$GRUB_CMDLINE_LINUX_DEFAULT", "${GRUB_CMDLINE_LINUX}", "${GRUB_CMDLINE_LINUX_DEFAULT}"}))
	case ok && name == "GRUB_DEFAULT" && (value == "0" || value == "saved"):
	case ok && name == "GRUB_DISTRIBUTOR": // the distribution's own command gives it
	case ok && slices.Contains(grubVariables, name) && !strings.ContainsAny(value, "`$;&|"):
	default:
		return []string{fmt.Sprintf("%.80q", strings.TrimSpace(line))}
	}
	return nil
}

// readMenu reads grub.cfg, the entries of the Boot Loader Specification and syslinux'
// configuration: all name kernels, initrds and arguments by words at a line's begin.
func readMenu(file namedFile) (entries []bootEntry, bad []string) {
	recovery := false
	for _, line := range file.lines {
		words := strings.Fields(strings.Trim(strings.TrimSpace(line), `"`))
		if len(words) == 0 {
			continue
		}
		switch rest := words[1:]; words[0] {
		case "menuentry", "title", "label":
			recovery = strings.Contains(line, "recovery mode")
		case "linux", "linux16", "linuxefi", "kernel":
			e := bootEntry{recovery: recovery}
			if len(rest) > 0 {
				if m := kernelPath.FindStringSubmatch(rest[0]); m != nil {
					e.release = m[1]
				} else {
					bad = append(bad, fmt.Sprintf("kernel %.80q", rest[0]))
				}
				e.arguments = rest[1:]
			}
			entries = append(entries, e)
		case "options", "append":
			if len(entries) > 0 {
				entries[len(entries)-1].arguments = append(entries[len(entries)-1].arguments, rest...)
			} else {
				entries = append(entries, bootEntry{arguments: rest, recovery: recovery})
			}
		case "initrd", "initrd16", "initrdefi":
			for i, w := range rest {
				if i > 0 || !strings.Contains(path.Base(w), "init") {
					bad = append(bad, fmt.Sprintf("initrd %.80q", w))
				}
			}
		case "chainloader", "multiboot", "multiboot2", "module", "module2", "xen_hypervisor", "configfile":
			bad = append(bad, fmt.Sprintf("%.80q", line))
		case "set":
			if v, ok := strings.CutPrefix(strings.Join(rest, " "), "default="); ok && !slices.Contains([]string{"0", "${next_entry}", "${saved_entry}"}, strings.Trim(v, `"'`)) {
				bad = append(bad, fmt.Sprintf("default entry %.80q", v))
			}
		}
	}
	return entries, bad
}

func judgeNextCommandLine(f Facts, _ Params) Verdict {
	const expected = "nothing but the arguments of the factory's images, in every entry and for those that come"
	files := f.files("boot-next")
	if len(files) == 0 || files[len(files)-1].name != "end" {
		return unknown("the boot loader's files were not read to their end")
	}
	entries, bad := readLoader(files[:len(files)-1])
	if len(entries) == 0 {
		return unknown("no file of a boot loader starts a kernel")
	}
	for i, e := range entries {
		words := slices.DeleteFunc(slices.Clone(e.arguments), func(w string) bool {
			return w == "$kernelopts" || w == "$tuned_params" || e.recovery && (w == "single" || w == "dis_ucode_ldr")
		})
		for _, b := range foreignArguments(words) {
			bad = append(bad, fmt.Sprintf("entry %d: %s", i+1, b))
		}
	}
	if len(bad) > 0 {
		return failed(expected, "also "+first(bad, 20))
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d entries: %s", len(entries), strings.Join(entries[0].arguments, " "))}
}

// newer compares versions by their numbers.
func newer(a, b string) bool {
	split := regexp.MustCompile(`\d+`)
	x, y := split.FindAllString(a, -1), split.FindAllString(b, -1)
	for i := 0; i < len(x) && i < len(y); i++ {
		m, _ := strconv.ParseInt(x[i], 10, 64)
		n, _ := strconv.ParseInt(y[i], 10, 64)
		if m != n {
			return m > n
		}
	}
	return len(x) > len(y)
}

func judgeKernelVersion(f Facts, _ Params) Verdict {
	release, installed := f.value("kernel", "release"), f.values("kernel")["installed"]
	if release == "" || len(installed) == 0 {
		return unknown("no kernel is shown as installed")
	}
	newest := installed[0]
	for _, v := range installed {
		if newer(v, newest) && !strings.Contains(v, "rescue") {
			newest = v
		}
	}
	entries, _ := readLoader(f.files("boot-next"))
	next := "none"
	for _, e := range entries {
		if e.release != "" {
			next = e.release
			break
		}
	}
	expected := newest + ", the newest one, runs and boots next"
	if release != newest || next != newest {
		return failed(expected, fmt.Sprintf("%s runs, %s boots next, %s is installed", release, next, newest))
	}
	return passed(expected)
}

// noMicrocode is said where the processor lacks what a mitigation needs: an emulated
// one has no microcode. Nothing that was switched off says so. besideMitigation is
// said of processors with several threads, mitigated or not.
var (
	noMicrocode      = regexp.MustCompile(`(?i)no microcode|Dependent on hypervisor`)
	besideMitigation = regexp.MustCompile(`; SMT (vulnerable|Host state unknown)`)
)

func judgeMitigations(f Facts, _ Params) Verdict {
	var bad []string
	n := 0
	for _, v := range f.values("kernel")["vulnerability"] {
		n++
		name, text, _ := strings.Cut(v, " ")
		said := besideMitigation.ReplaceAllString(text, "")
		switch {
		case !strings.Contains(strings.ToLower(said), "vulnerable") || noMicrocode.MatchString(text):
		case name == "spec_store_bypass" && f.value("kernel", "ssbd") == "no":
		case strings.HasPrefix(text, "Processor vulnerable") || strings.Contains(text, "KVM: Mitigation"):
		default:
			bad = append(bad, fmt.Sprintf("%.40s: %.120s", name, text))
		}
	}
	const expected = "a mitigation of every fault that this processor has"
	switch {
	case n == 0:
		return unknown("the kernel shows no vulnerabilities")
	case len(bad) > 0:
		return failed(expected, first(bad, 20))
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d faults not present or mitigated", n)}
}

func judgeKernelIntegrity(f Facts, _ Params) Verdict {
	got := f.values("kernel")
	if len(got["end"]) != 1 {
		return unknown("the kernel's state was not read to its end")
	}
	var bad []string
	for _, key := range []string{"tainted", "kexec_loaded", "kexec_crash_loaded"} {
		if v := f.value("kernel", key); v != "0" && (v != "absent" || key == "tainted") {
			bad = append(bad, fmt.Sprintf("%s %.20q", key, v))
		}
	}
	modules := strings.Split(f.value("kernel", "lsm"), ",")
	for _, m := range []string{"capability", "yama"} {
		if !slices.Contains(modules, m) && !slices.Contains(modules, "absent") {
			bad = append(bad, "no security module "+m)
		}
	}
	const expected = "no taint, no other kernel loaded, and the security modules"
	if len(bad) > 0 {
		return failed(expected, names(bad))
	}
	return Verdict{Status: Pass, Expected: expected, Found: "security modules " + strings.Join(modules, ",")}
}

func judgeModules(f Facts, _ Params) Verdict {
	const expected = "every loaded module is its kernel package's, and untainted"
	var bad []string
	n, ended := 0, false
	for _, l := range f.lines("modules-loaded") {
		switch {
		case l[0] == "end":
			ended = true
		case l[0] != "module" || len(l) != 5:
			return unknown("a line about modules is not understood")
		case l[3] == "unknown" && l[2] == "-" && l[4] != "-":
			n++ // the ledger of other distributions has it
		case l[2] != "-" || l[3] != "packaged":
			bad = append(bad, fmt.Sprintf("%.60s (taint %s, %s, %.120s)", l[1], l[2], l[3], l[4]))
		default:
			n++
		}
	}
	switch {
	case !ended || n == 0:
		return unknown("the modules were not read to their end")
	case len(bad) > 0:
		return failed(expected, first(bad, 20))
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d modules", n)}
}

// ownSettings are the lines that the factory's images have in files of no package.
var ownSettings = map[string][]string{
	"/etc/systemd/resolved.conf.d/60-otc.conf": {"[Resolve]", "LLMNR=no", "MulticastDNS=no"},
}

// foreignSettings are the lines of settings, below any of the prefixes, that are no
// package's and not the factory's.
func foreignSettings(f Facts, prefixes ...string) (bad []string, err string) {
	files := f.files("settings")
	if strings.HasPrefix(f.text("settings"), "no dpkg") {
		return nil, "no dpkg"
	}
	if len(files) == 0 || files[len(files)-1].name != "end" {
		return nil, "not read to their end"
	}
	for _, file := range files {
		if !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(file.name, p) }) {
			continue
		}
		var lines []string
		for _, line := range file.lines {
			if line = strings.TrimSpace(line); !slices.Contains(ownSettings[file.name], line) {
				lines = append(lines, fmt.Sprintf("%.80q", line))
			}
		}
		if n := len(lines); n > 4 { // what was added is mostly the last
			lines = append([]string{fmt.Sprintf("%d lines, the last", n)}, lines[n-3:]...)
		}
		if len(lines) > 0 {
			bad = append(bad, fmt.Sprintf("%.120s: %s", file.name, strings.Join(lines, " ")))
		}
	}
	return bad, ""
}

func settingsCheck(id, title, why string, severity Severity, prefixes ...string) Check {
	return Check{
		ID: id, Title: title, Why: why, Severity: severity, Needs: []string{"settings"},
		References: []string{"OTC image factory introduction: standard hardening measures"},
		Judge: func(f Facts, _ Params) Verdict {
			const expected = "the packages' files and the factory's, unchanged"
			bad, cause := foreignSettings(f, prefixes...)
			switch {
			case cause == "no dpkg":
				return skipped("the files of this distribution's packages are not told apart yet")
			case cause != "":
				return unknown("the settings were %s", cause)
			case len(bad) > 0:
				return failed(expected, "also "+first(bad, 20))
			}
			return passed(expected)
		},
	}
}

// A mountRule is what may be mounted at a place: kinds of file systems, and the
// options that must stand.
type mountRule struct {
	at      string // path.Match
	kinds   []string
	options []string
}

var mountRules = []mountRule{
	{"/", []string{"ext4", "ext3", "xfs", "btrfs"}, nil},
	{"/boot", []string{"ext4", "ext3", "ext2", "xfs"}, nil},
	{"/boot/efi", []string{"vfat"}, nil},
	{"/proc", []string{"proc"}, []string{"nosuid", "nodev", "noexec"}},
	{"/proc/sys/fs/binfmt_misc", []string{"autofs", "binfmt_misc"}, nil},
	{"/sys", []string{"sysfs"}, []string{"nosuid", "nodev", "noexec"}},
	{"/sys/kernel/*", []string{"securityfs", "debugfs", "tracefs", "configfs"}, nil},
	{"/sys/kernel/debug/tracing", []string{"tracefs"}, nil},
	{"/sys/fs/selinux", []string{"selinuxfs"}, nil},
	{"/sys/fs/cgroup", []string{"cgroup2", "tmpfs"}, []string{"nosuid", "nodev", "noexec"}},
	{"/sys/fs/cgroup/*", []string{"cgroup", "cgroup2"}, []string{"nosuid", "nodev", "noexec"}},
	{"/sys/fs/pstore", []string{"pstore"}, []string{"nosuid", "nodev", "noexec"}},
	{"/sys/fs/bpf", []string{"bpf"}, []string{"nosuid", "nodev", "noexec"}},
	{"/sys/fs/fuse/connections", []string{"fusectl"}, nil},
	{"/sys/firmware/efi/efivars", []string{"efivarfs"}, []string{"nosuid", "nodev", "noexec"}},
	{"/dev", []string{"devtmpfs"}, []string{"nosuid"}},
	{"/dev/pts", []string{"devpts"}, []string{"nosuid", "noexec"}},
	{"/dev/shm", []string{"tmpfs"}, []string{"nosuid", "nodev"}},
	{"/dev/hugepages", []string{"hugetlbfs"}, nil},
	{"/dev/mqueue", []string{"mqueue"}, []string{"nosuid", "nodev", "noexec"}},
	{"/run", []string{"tmpfs"}, []string{"nosuid", "nodev"}},
	{"/run/lock", []string{"tmpfs"}, []string{"nosuid", "nodev", "noexec"}},
	{"/run/credentials/*", []string{"ramfs", "tmpfs"}, []string{"nosuid", "nodev", "noexec"}},
	{"/run/user/*", []string{"tmpfs"}, []string{"nosuid", "nodev"}},
	{"/tmp", []string{"tmpfs"}, []string{"nosuid", "nodev"}},
}

// badMount says what is wrong about a line of mountinfo(5), or nothing.
func badMount(l []string) string {
	dash := slices.Index(l, "-")
	if len(l) < 10 || dash < 6 || dash+2 >= len(l) {
		return "a line that is not understood"
	}
	root, at, options, kind, source := l[3], l[4], strings.Split(l[5], ","), l[dash+1], l[dash+2]
	shown := fmt.Sprintf("%.80s (%s of %.80s)", at, kind, source)
	for _, r := range mountRules {
		if ok, err := path.Match(r.at, at); err != nil || !ok {
			continue
		}
		subvolume := kind == "btrfs" && strings.HasPrefix(root, "/@")
		missing := without(r.options, options)
		switch {
		case !slices.Contains(r.kinds, kind):
			return shown
		case root != "/" && !subvolume:
			return fmt.Sprintf("%s, which is %.80s of another", shown, root)
		case len(missing) > 0:
			return fmt.Sprintf("%s without %s", shown, strings.Join(missing, ","))
		}
		return ""
	}
	return shown
}

func judgeMounts(f Facts, _ Params) Verdict {
	const expected = "the root file system and what systemd mounts, with its options; no swap"
	var bad []string
	n, ended := 0, false
	seen := map[string]int{}
	for _, l := range f.lines("mounts") {
		if l[0] == "end" {
			ended = true
			continue
		}
		n++
		if b := badMount(l); b != "" {
			bad = append(bad, b)
		} else if seen[l[4]]++; seen[l[4]] > 1 && l[4] != "/proc/sys/fs/binfmt_misc" {
			bad = append(bad, fmt.Sprintf("%.80s twice", l[4]))
		}
	}
	if !ended || n == 0 {
		return unknown("the mounts were not read to their end")
	}
	for _, s := range f.values("kernel")["swap"] {
		bad = append(bad, fmt.Sprintf("swap %.80s", s))
	}
	for _, file := range f.files("boot") {
		if file.name != "/etc/fstab" {
			continue
		}
		for _, line := range file.lines {
			w := strings.Fields(line)
			if len(w) < 4 || strings.HasPrefix(w[0], "#") {
				continue
			}
			if !slices.Contains([]string{"/", "/boot", "/boot/efi"}, w[1]) || strings.Contains(w[3], "bind") || slices.Contains([]string{"overlay", "tmpfs", "nfs", "nfs4", "cifs", "fuse", "none"}, w[2]) {
				bad = append(bad, fmt.Sprintf("fstab: %.80q", line))
			}
		}
	}
	if len(bad) > 0 {
		return failed(expected, "also "+first(bad, 20))
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d mounts", n)}
}

// judgeProfiles compares AppArmor's loaded profiles with those of its files.
func judgeProfiles(f Facts, p Params) Verdict {
	if v := judgeAppArmor(f, p); v.Status == Skipped {
		return v
	}
	got := f.values("apparmor")
	loaded := map[string]bool{}
	var bad []string
	for _, l := range got["loaded"] {
		name, mode, _ := strings.Cut(strings.TrimSuffix(l, ")"), " (")
		loaded[name] = true
		if mode != "enforce" {
			bad = append(bad, fmt.Sprintf("%.80s in mode %.20s", name, mode))
		}
	}
	if len(got["file"]) == 0 {
		return unknown("the profiles' files name none")
	}
	for _, name := range got["file"] {
		if !loaded[name] {
			bad = append(bad, fmt.Sprintf("%.80s not loaded", name))
		}
		delete(loaded, name)
	}
	for name := range loaded {
		bad = append(bad, fmt.Sprintf("%.80s in no file", name))
	}
	for _, file := range got["relaxed"] {
		bad = append(bad, fmt.Sprintf("%.120s", file))
	}
	const expected = "the profiles of the packages, all enforced"
	if len(bad) > 0 {
		return failed(expected, first(bad, 20))
	}
	return Verdict{Status: Pass, Expected: expected, Found: fmt.Sprintf("%d profiles", len(got["file"]))}
}

func kernelChecks() []Check {
	refs := []string{"OTC image factory introduction: standard hardening measures", "Linux documentation: admin-guide"}
	return []Check{
		{ID: "kernel.command-line", Severity: High, Needs: []string{"boot"}, References: refs, Judge: judgeCommandLine,
			Title: "the kernel was started with the image's arguments and no others",
			Why:   "An argument switches off mitigations, confinement or the whole of init."},
		{ID: "kernel.command-line-next", Severity: High, Needs: []string{"boot-next"}, References: refs, Judge: judgeNextCommandLine,
			Title: "the boot loader starts the kernel with the image's arguments and no others",
			Why:   "What it starts next, or after the next kernel's update, is not what runs now."},
		{ID: "kernel.version", Severity: High, Needs: []string{"kernel", "boot-next"}, References: refs, Judge: judgeKernelVersion,
			Title: "the newest installed kernel runs, and boots next",
			Why:   "An older kernel has the faults that the newer one mends."},
		{ID: "kernel.mitigations", Severity: High, Needs: []string{"kernel"}, References: refs, Judge: judgeMitigations,
			Title: "the processor's faults are mitigated",
			Why:   "Other tenants and programs could read this machine's memory."},
		{ID: "kernel.integrity", Severity: High, Needs: []string{"kernel"}, References: refs, Judge: judgeKernelIntegrity,
			Title: "the kernel is untainted, its security modules are on, and no other one is loaded to follow it",
			Why:   "A kernel loaded by kexec starts without the boot loader and its checks."},
		{ID: "kernel.modules", Severity: High, Needs: []string{"modules-loaded"}, References: refs, Judge: judgeModules,
			Title: "the loaded modules are the kernel package's",
			Why:   "A foreign module is a foreign kernel."},
		settingsCheck("kernel.module-settings", "modules are loaded, refused and configured as the packages say",
			"An install line is a command that root runs; a blacklist takes drivers away.", High,
			"/etc/modules", "/run/modules-load.d/", "/usr/lib/modules-load.d/", "/usr/local/lib/mod", "/etc/modprobe.d/", "/run/modprobe.d/", "/lib/modprobe.d/",
			"/etc/depmod.d/", "/etc/initramfs-tools/", "/etc/dracut.conf.d/", "/etc/binfmt.d/", "/run/binfmt.d/", "/etc/default/k"),
		settingsCheck("system.settings", "systemd, the journal, limits and core dumps are as the packages say",
			"These settings forward the log, keep memory of secrets in core dumps or change every service's environment.", Medium,
			"/etc/systemd/", "/run/systemd/", "/usr/lib/systemd/", "/usr/local/lib/systemd/", "/etc/security/", "/etc/rsyslog", "/etc/syslog-ng/"),
		{ID: "system.mounts", Severity: High, Needs: []string{"mounts", "kernel", "boot"}, References: refs, Judge: judgeMounts,
			Title: "nothing is mounted over the system's files, and nothing foreign at all",
			Why:   "A bind or overlay mount shows other files than those that the disk has."},
		{ID: "security.apparmor-profiles", Severity: High, Needs: []string{"apparmor", "os-release"}, References: refs, Judge: judgeProfiles,
			Title: "AppArmor's profiles are those of the packages, and enforced",
			Why:   "A profile that complains confines nothing."},
		settingsCheck("security.apparmor-settings", "the profiles' files are the packages', unchanged",
			"A line in a profile's local part lifts the confinement.", High, "/etc/apparmor"),
	}
}
