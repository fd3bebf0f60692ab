package boots

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/testsuite"
)

// Checks hold the machines that were made from an image beside each other. They need
// the fact FactName.
func Checks() []testsuite.Check {
	const cloudInit = "https://docs.cloud-init.io/en/latest/explanation/boot.html"
	checks := []testsuite.Check{
		{
			ID: "boots.started", Severity: testsuite.Critical,
			Title: "every machine that is made from the image starts and lets its user in, on each disk bus, network card, firmware and data source tried, and again with a larger disk",
			Why:   "An image that starts on one kind of machine only is no image for the others.",
			Judge: judge(started),
		},
		{
			ID: "boots.machine-id", Severity: testsuite.High, References: []string{"OTC image factory release notes: unique machine-id per VM", "machine-id(5)"},
			Title: "two machines of the image have two machine-ids",
			Why:   "Machines that share one get the same address and are taken for one another.",
			Judge: judge(func(s *state) testsuite.Verdict { return s.differ("machine-id", "machine-ids") }),
		},
		{
			ID: "boots.host-keys", Severity: testsuite.Critical, References: []string{cloudInit},
			Title: "two machines of the image share no SSH host key",
			Why:   "Whoever has the image could pose as the machine.",
			Judge: judge(func(s *state) testsuite.Verdict { return s.differ("hostkey", "host keys") }),
		},
		{
			ID: "boots.random-seed", Severity: testsuite.High, References: []string{"https://systemd.io/BUILDING_IMAGES/"},
			Title: "two machines of the image keep two random seeds",
			Why:   "Keys that are made from the same randomness are the same keys.",
			Judge: judge(randomSeeds),
		},
		{
			ID: "boots.password", Severity: testsuite.Critical,
			Title: "two machines of the image show two passwords, of 60 bits or more, though both have one instance ID",
			Why:   "A password that the image or its instance ID tells is known to whoever has these.",
			Judge: judge(passwords),
		},
		{
			ID: "boots.identity-stays", Severity: testsuite.High, References: []string{cloudInit},
			Title: "a machine that is started again has the machine-id and the host keys that it had",
			Why:   "Users who know the machine's key would be warned of a forger at each start.",
			Judge: judge(identityStays),
		},
		{
			ID: "boots.user-data", Severity: testsuite.High, References: []string{cloudInit},
			Title: "cloud-init does what user-data says",
			Why:   "Machines that are set up by user-data would stay as they are.",
			Judge: judge(func(s *state) testsuite.Verdict { return s.applied("user-data") }),
		},
		{
			ID: "boots.vendor-data", Severity: testsuite.High, References: []string{"https://docs.cloud-init.io/en/latest/explanation/vendordata.html"},
			Title: "cloud-init does what vendor-data says",
			Why:   "The cloud registers its mirrors of repositories so.",
			Judge: judge(func(s *state) testsuite.Verdict { return s.applied("vendor-data") }),
		},
		{
			ID: "boots.root-grows", Severity: testsuite.High, References: []string{cloudInit},
			Title: "a disk that became larger while the machine was off has a larger root file system after it was started",
			Why:   "Who buys a larger disk would not get it.",
			Judge: func(f testsuite.Facts, p testsuite.Params) testsuite.Verdict {
				if p.LVM {
					return testsuite.Verdict{Status: testsuite.Skipped, Reason: "the root file system is on a logical volume, which its owner makes larger"}
				}
				return judge(rootGrows)(f, p)
			},
		},
		{
			ID: "boots.identity-changes", Severity: testsuite.High, References: []string{cloudInit},
			Title: "a disk that is taken to another instance has other SSH host keys there",
			Why:   "Users make images of their machines. Each machine of such an image could pose as the others.",
			Judge: judge(identityChanges),
		},
		{
			ID: "boots.stays-good", Severity: testsuite.High,
			Title: "what was judged of the first machine is as good on one that was started again a week later",
			Why:   "What a second start or a date changes, no look at the first start shows.",
			Judge: judge(staysGood),
		},
		{
			ID: "boots.time", Severity: testsuite.Medium,
			Title: "the machines start in less than one and a half times of what those of the release before took",
			Why:   "Users wait for each machine.",
			Judge: judge(bootTime),
		},
		{
			ID: "boots.console", Severity: testsuite.High,
			Title: "no machine's console tells of a panic, an Oops, memory that ran out, an ordering cycle of units or an emergency shell",
			Why:   "What goes wrong at one start goes wrong at others.",
			Judge: judge(console),
		},
	}
	for i := range checks {
		checks[i].Group, checks[i].Needs = "boots", []string{FactName}
	}
	return checks
}

// A state is the fact, read: for each word the lines' values by machine.
type state struct {
	machines []string // that were to be made, in order
	lines    map[string]map[string][]string
}

func judge(with func(*state) testsuite.Verdict) func(testsuite.Facts, testsuite.Params) testsuite.Verdict {
	return func(f testsuite.Facts, _ testsuite.Params) testsuite.Verdict {
		text, err := f.Text(FactName)
		if err != nil {
			return unknown("%v", err)
		}
		s := &state{lines: map[string]map[string][]string{}}
		for line := range strings.Lines(text) {
			word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			machine, value, _ := strings.Cut(rest, " ")
			if s.lines[word] == nil {
				s.lines[word] = map[string][]string{}
			}
			s.lines[word][machine] = append(s.lines[word][machine], value)
			if word == "boot" {
				s.machines = append(s.machines, machine)
			}
		}
		return with(s)
	}
}

func unknown(format string, args ...any) testsuite.Verdict {
	return testsuite.Verdict{Status: testsuite.Error, Reason: fmt.Sprintf(format, args...)}
}

func verdict(expected string, good, bad []string) testsuite.Verdict {
	if len(bad) > 0 {
		return testsuite.Verdict{Status: testsuite.Fail, Expected: expected, Found: strings.Join(bad, "; ")}
	}
	return testsuite.Verdict{Status: testsuite.Pass, Expected: expected, Found: strings.Join(good, "; ")}
}

func started(s *state) testsuite.Verdict {
	var good, bad []string
	for _, m := range s.machines {
		how := s.lines["boot"][m][0]
		if text, ok := strings.CutPrefix(how, "up"); ok {
			good = append(good, m+":"+text)
			continue
		}
		bad = append(bad, m+": "+strings.TrimPrefix(how, "failed "))
	}
	if len(s.machines) < 2 {
		return unknown("no second machine was made")
	}
	for m, why := range s.lines["unread"] {
		bad = append(bad, m+": "+why[0])
	}
	return verdict("every machine up", good, bad)
}

// instances are the machines that are made from the image, without those that are one
// of them again.
func (s *state) instances(word string) []string {
	var out []string
	for _, m := range s.machines {
		if m != "restarted" && m != "moved" && len(s.lines[word][m]) > 0 {
			out = append(out, m)
		}
	}
	return out
}

// differ wants no value of one machine to be another's.
func (s *state) differ(word, what string) testsuite.Verdict {
	machines := s.instances(word)
	if len(machines) < 2 || machines[0] != "first" {
		return unknown("the %s of two machines were not read: see boots.started", what)
	}
	owner := map[string]string{}
	var good, bad []string
	for _, m := range machines {
		for _, v := range s.lines[word][m] {
			if other, ok := owner[v]; ok && other != m {
				bad = append(bad, fmt.Sprintf("%s and %s have %s", other, m, v))
			}
			owner[v] = m
		}
		good = append(good, fmt.Sprintf("%s: %d", m, len(s.lines[word][m])))
	}
	return verdict("other "+what+" on each machine", good, bad)
}

func randomSeeds(s *state) testsuite.Verdict {
	if len(s.lines["seed"]) == 0 && len(s.instances("machine-id")) > 1 {
		return testsuite.Verdict{Status: testsuite.Skipped, Reason: "the image keeps no random seed"}
	}
	return s.differ("seed", "random seeds")
}

const minPasswordBits = 60

func passwords(s *state) testsuite.Verdict {
	machines := s.instances("password")
	var good, bad []string
	for _, m := range s.instances("watched") {
		if len(s.lines["password"][m]) == 0 && len(s.lines["machine-id"][m]) > 0 {
			bad = append(bad, m+": its console shows none")
		}
	}
	if len(machines) < 2 && bad == nil {
		return unknown("the passwords of two machines were not seen on their consoles")
	}
	for _, m := range machines {
		length, symbols, _ := strings.Cut(s.lines["password"][m][0], " ")
		n, err := strconv.Atoi(length)
		of, oerr := strconv.Atoi(symbols)
		if err != nil || oerr != nil || of < 1 {
			return unknown("cannot understand the length of %s's password", m)
		}
		bits := float64(n) * math.Log2(float64(of))
		text := fmt.Sprintf("%s: %d of %d symbols, %.0f bits", m, n, of, bits)
		if bits < minPasswordBits {
			bad = append(bad, text)
		}
		good = append(good, text)
		for _, other := range s.lines["password-of"][m] {
			bad = append(bad, fmt.Sprintf("%s and %s have the same", other, m))
		}
	}
	return verdict("another password on each machine, of 60 bits or more", good, bad)
}

func identityStays(s *state) testsuite.Verdict {
	var bad []string
	for _, word := range []string{"machine-id", "hostkey"} {
		before, after := slices.Sorted(slices.Values(s.lines[word]["second"])), slices.Sorted(slices.Values(s.lines[word]["restarted"]))
		if len(before) == 0 || len(after) == 0 {
			return unknown("the %s of a machine before and after its restart was not read: see boots.started", word)
		}
		if !slices.Equal(before, after) {
			bad = append(bad, fmt.Sprintf("%s was %s and is %s", word, strings.Join(before, ", "), strings.Join(after, ", ")))
		}
	}
	return verdict("the same machine-id and host keys", []string{"the same"}, bad)
}

func (s *state) applied(data string) testsuite.Verdict {
	var good, bad []string
	for _, m := range s.machines {
		for _, v := range s.lines["data"][m] {
			switch v {
			case data + " applied":
				good = append(good, m+": applied")
			case data + " missing":
				bad = append(bad, m+": nothing came of it")
			}
		}
	}
	if len(good)+len(bad) == 0 {
		return unknown("no machine that had %s was read: see boots.started", data)
	}
	return verdict(data+" applied", good, bad)
}

func rootGrows(s *state) testsuite.Verdict {
	after, before := s.lines["root"]["restarted"], s.lines["root"]["second"]
	if len(after) != 1 || len(before) != 1 {
		return unknown("the root file system before and after the restart was not read: see boots.started")
	}
	was, _, _ := numbers(before[0])
	is, disk, ok := numbers(after[0])
	if !ok {
		return unknown("cannot understand the sizes of the root file system")
	}
	found := fmt.Sprintf("%d MiB, after %d MiB, on a disk of %d MiB", is>>20, was>>20, disk>>20)
	// A file system says less than its device has: its own tables are not counted.
	if is < was+moreBytes*8/10 {
		return verdict("grown with the disk", nil, []string{found})
	}
	return verdict("grown with the disk", []string{found}, nil)
}

func identityChanges(s *state) testsuite.Verdict {
	if len(s.machines) == 0 {
		return unknown("no machine was made")
	}
	if !slices.Contains(s.machines, "moved") {
		return testsuite.Verdict{Status: testsuite.Skipped, Reason: "no disk was taken to another instance: the set all has one"}
	}
	is := s.lines["hostkey"]["moved"]
	if len(is) == 0 || len(s.lines["hostkey"]["flavor"]) == 0 {
		return unknown("the host keys of a disk on both instances were not read: see boots.started")
	}
	var bad []string
	for _, key := range s.lines["hostkey"]["flavor"] {
		if slices.Contains(is, key) {
			bad = append(bad, "both have "+key)
		}
	}
	return verdict("other host keys", []string{fmt.Sprint(len(is))}, bad)
}

func staysGood(s *state) testsuite.Verdict {
	count := s.lines["judged"]["restarted"]
	if len(count) == 0 {
		if slices.Contains(s.machines, "restarted") && strings.HasPrefix(s.lines["boot"]["restarted"][0], "up") {
			return testsuite.Verdict{Status: testsuite.Skipped, Reason: "no check of the profile is judged again"}
		}
		return unknown("no machine that was started again was judged: see boots.started")
	}
	var bad []string
	for _, w := range s.lines["worse"]["restarted"] {
		id, text, _ := strings.Cut(w, " ")
		bad = append(bad, id+": "+text)
	}
	if count[0] == "0" {
		return unknown("no check passed on the first machine that could be judged again")
	}
	return verdict("as good as it was", []string{count[0] + " checks"}, bad)
}

const (
	mostSlower    = 1.5
	mostSlowerMin = 10_000 // ms: less is no wait
)

// bootTime compares what came after the kernel's own part. That part says how much slower the
// host is today. An image is slower when each of its machines is.
func bootTime(s *state) testsuite.Verdict {
	if len(s.machines) == 0 {
		return unknown("no machine was made")
	}
	var good, bad []string
	fast := false
	for _, m := range s.machines {
		kernel, rest, ok := times(s.lines["time"][m])
		kernelWas, restWas, okWas := times(s.lines["before"][m])
		if !ok {
			continue
		}
		text := fmt.Sprintf("%s: %.1f s", m, (kernel+rest)/1000)
		for _, b := range s.lines["blame"][m] {
			ms, unit, _ := strings.Cut(b, " ")
			if n, err := strconv.ParseInt(ms, 10, 64); err == nil {
				text += fmt.Sprintf(", %s %.1f s", unit, float64(n)/1000)
			}
		}
		if !okWas {
			good = append(good, text+" (not timed before)")
			continue
		}
		slower := rest / restWas / max(1, kernel/kernelWas)
		text += fmt.Sprintf(" (after the kernel %.2f times of before)", slower)
		if slower < mostSlower || rest-restWas < mostSlowerMin {
			good, fast = append(good, text), true
		} else {
			bad = append(bad, text)
		}
	}
	switch {
	case len(good)+len(bad) == 0:
		return testsuite.Verdict{Status: testsuite.Skipped, Reason: "no machine says how long it took to start"}
	case len(s.lines["before"]) == 0:
		return testsuite.Verdict{Status: testsuite.Skipped, Reason: "there is no release before it whose machines were timed", Found: strings.Join(good, "; ")}
	case fast:
		return verdict("less than 1.5 times", append(bad, good...), nil)
	}
	return verdict("less than 1.5 times", good, bad)
}

// times are the milliseconds of a line of word time: the kernel's, and all after it.
func times(lines []string) (kernel, rest float64, ok bool) {
	if len(lines) != 1 {
		return 0, 0, false
	}
	var k, i, u int64
	if n, _ := fmt.Sscanf(lines[0], "%d %d %d", &k, &i, &u); n != 3 || k <= 0 || i < 0 || u <= 0 {
		return 0, 0, false
	}
	return float64(k), float64(i + u), true
}

func numbers(text string) (a, b int64, ok bool) {
	first, second, _ := strings.Cut(text, " ")
	a, aerr := strconv.ParseInt(first, 10, 64)
	b, berr := strconv.ParseInt(second, 10, 64)
	return a, b, aerr == nil && berr == nil
}

func console(s *state) testsuite.Verdict {
	if len(s.machines) == 0 {
		return unknown("no machine was made")
	}
	if len(s.lines["watched"]) == 0 {
		return testsuite.Verdict{Status: testsuite.Skipped, Reason: "nobody sees the machines' consoles"}
	}
	var bad []string
	for _, m := range s.machines {
		for _, line := range s.lines["console"][m] {
			bad = append(bad, m+": "+line)
		}
	}
	return verdict("nothing of the kind", []string{fmt.Sprintf("nothing on %d", len(s.lines["watched"]))}, bad)
}
