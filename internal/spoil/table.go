package spoil

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opentelekomcloud/go-imagefactory/internal/strictyaml"
)

//go:embed table/*.yaml
var tableFiles embed.FS

// A Spoil is one way to break a machine, and what has to be said of it.
type Spoil struct {
	Name string `yaml:"name"` // what is broken; unique
	// Do is POSIX sh. It runs as root with -eu and umask 022, in / of the running
	// machine or, with When "disk", in a chroot of the disk: without /proc, without
	// network, and with device files that do not work.
	Do string `yaml:"do"`
	// Fails are the IDs of exactly those checks that must not pass, each with a text
	// that its finding or its reason must have; or several, a line for each.
	Fails map[string]string `yaml:"fails"`
	// When is "live" (the default): done and judged on the running machine; "reboot":
	// done there, judged after a reboot; "disk": put on the disk before the first boot;
	// or "boot": done by the first boot itself, judged by what it left on the disk.
	When string `yaml:"when"`
	// Alone is a word. Rows of one word do not share a machine with one another, for
	// instance since they set one option; with the word "true" a row shares it with none.
	Alone string `yaml:"alone"`
	// From is a note on where the row comes from, for who reads the table.
	From string `yaml:"from"`

	File string `yaml:"-"` // the file of the table that the row is in: "sshd"
}

// Moments of a Spoil.
const (
	Live   = "live"
	Reboot = "reboot"
	OnDisk = "disk"
	AtBoot = "boot"
)

// Table returns all rows, those of each file in its order.
func Table() ([]Spoil, error) {
	files, err := tableFiles.ReadDir("table")
	if err != nil {
		return nil, err
	}
	var rows []Spoil
	var errs []error
	for _, file := range files {
		data, err := tableFiles.ReadFile("table/" + file.Name())
		if err != nil {
			return nil, err
		}
		some, err := parse(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot read table/%s: %w", file.Name(), err))
		}
		for i := range some {
			some[i].File = strings.TrimSuffix(file.Name(), ".yaml")
		}
		rows = append(rows, some...)
	}
	return rows, errors.Join(append(errs, unique(rows))...)
}

// parse reads a file of the table, which may be empty.
func parse(data []byte) ([]Spoil, error) {
	node, err := strictyaml.Parse(data)
	if err != nil {
		return nil, err
	}
	var rows []Spoil
	if err := node.Decode(&rows); err != nil {
		return nil, err
	}
	var errs []error
	for i := range rows {
		if rows[i].When == "" {
			rows[i].When = Live
		}
		if err := rows[i].check(); err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", node.Items()[i].Line, err))
		}
	}
	return rows, errors.Join(errs...)
}

func (s Spoil) check() error {
	switch {
	case s.Name == "" || strings.TrimSpace(s.Do) == "" || len(s.Fails) == 0:
		return fmt.Errorf("%q lacks its name, what it does or what fails", s.Name)
	case !slices.Contains([]string{Live, Reboot, OnDisk, AtBoot}, s.When):
		return fmt.Errorf("%q is done %q: want live, reboot, disk or boot", s.Name, s.When)
	}
	for id, text := range s.Fails {
		if strings.TrimSpace(text) == "" {
			return fmt.Errorf("%q does not say what %s finds", s.Name, id)
		}
	}
	return nil
}

// Texts are what a check has to say.
func (s Spoil) Texts(check string) []string {
	return strings.Split(strings.TrimSpace(s.Fails[check]), "\n")
}

func unique(rows []Spoil) error {
	var errs []error
	seen := map[string]bool{}
	for _, s := range rows {
		if seen[s.Name] {
			errs = append(errs, fmt.Errorf("two rows are called %q", s.Name))
		}
		seen[s.Name] = true
	}
	return errors.Join(errs...)
}

// maxBatch is how many rows share a machine: few, so that who reads a failure has
// few to suspect.
const maxBatch = 60

// Batches divides rows into those that can share a machine: of one file, no two of
// one word, and not more than maxBatch.
func Batches(rows []Spoil) [][]Spoil {
	var batches [][]Spoil
	for _, s := range rows {
		at := slices.IndexFunc(batches, func(batch []Spoil) bool {
			return len(batch) < maxBatch && batch[0].File == s.File && !slices.ContainsFunc(batch, s.excludes)
		})
		if at < 0 {
			at = len(batches)
			batches = append(batches, nil)
		}
		batches[at] = append(batches[at], s)
	}
	return batches
}

// excludes reports whether s cannot share a machine with another row.
func (s Spoil) excludes(other Spoil) bool {
	return s.Alone == "true" || other.Alone == "true" || s.Alone != "" && s.Alone == other.Alone
}

// A Finding is what a check says that did not pass.
type Finding struct{ Check, Text string }

// Accompanying are the checks that hold a whole of the machine to what it should
// be, and why a row that is about something else makes them fail too. Such a row need
// not name them, so that each row says what it is about. They have rows of their own,
// which do name them. An entry that no row needs is a mistake, which TestLive shows.
var Accompanying = map[string]string{
	"files.access":     "a setting of PAM, sudo or sshd is a file that no package has",
	"files.startup":    "a unit, a drop-in or an option of apt's is one too",
	"files.others":     "and so is any other file that a row writes",
	"files.powers":     "modes and owners are changed, copies belong to nobody",
	"system.settings":  "a drop-in of systemd, the journal, limits or PAM is a setting",
	"sysctl.next-boot": "a setting that is changed by hand is not what the next boot sets",
	"units.loaded":     "a program that has to stay is a transient unit, a drop-in changes a unit",
	"units.processes":  "a program that has to stay is no package's, or in no unit",
	"users.accounts":   "a user, a password or a shell is a line of the accounts",
}

// Unspoiled are the checks that no row breaks, and why.
var Unspoiled = map[string]string{
	"sshd.terrapin":     "no option of this sshd turns strict key exchange off; the test of it has recorded offers",
	"sshd.weak-refused": "this sshd agrees to nothing that it does not offer; the test against the distribution's sshd tries that",
}

// Compare returns an error that joins what differs between what rows demand
// and what was found: a check that passed or that does not name what was spoiled, and
// one that fails without a row that says so. Where there are rows, those checks that
// compare a whole may fail without one.
func Compare(rows []Spoil, found []Finding) error {
	said, expected := map[string]string{}, map[string]bool{}
	for _, f := range found {
		said[f.Check] += f.Text
	}
	var errs []error
	for _, s := range rows {
		for _, id := range slices.Sorted(maps.Keys(s.Fails)) {
			expected[id] = true
			text, failed := said[id]
			if !failed {
				errs = append(errs, fmt.Errorf("%q: %s passes", s.Name, id))
				continue
			}
			for _, want := range s.Texts(id) {
				if !strings.Contains(text, want) {
					errs = append(errs, fmt.Errorf("%q: %s says nothing of %q but: %.2000s", s.Name, id, want, text))
				}
			}
		}
	}
	for _, f := range found {
		if !expected[f.Check] && (len(rows) == 0 || Accompanying[f.Check] == "") {
			errs = append(errs, fmt.Errorf("%s fails, which no row says: %.2000s", f.Check, f.Text))
		}
	}
	return errors.Join(errs...)
}

// Accompanied are the checks of Accompanying that fail without a row that names them.
func Accompanied(rows []Spoil, found []Finding) []string {
	var out []string
	for _, f := range found {
		named := slices.ContainsFunc(rows, func(s Spoil) bool { return s.Fails[f.Check] != "" })
		if Accompanying[f.Check] != "" && !named {
			out = append(out, f.Check)
		}
	}
	return out
}

// script is what is given to sh -euc.
func (s Spoil) script() string { return "umask 022\ncd /\n" + s.Do }

// Script does rows on a running machine, as root. It writes a line "cannot do
// NAME: …" for each that does not succeed. Last, sshd reads its configuration again.
func Script(rows []Spoil) string {
	var b strings.Builder
	for _, s := range rows {
		fmt.Fprintf(&b, "said=$(timeout 300 sh -euc %s 2>&1 >/dev/null </dev/null) || printf 'cannot do %%s: %%s\\n' %s \"$said\"\n", quote(s.script()), quote(s.Name))
	}
	b.WriteString("systemctl reload ssh 2>/dev/null || :\n")
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
