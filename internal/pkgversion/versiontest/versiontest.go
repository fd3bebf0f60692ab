// Package versiontest makes versions for tests and asks dpkg and rpm for their order.
package versiontest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// Pairs makes n pairs of versions that resemble each other out of pieces that matter.
func Pairs(n int, pieces []string) [][2]string {
	r := rand.New(rand.NewPCG(1, uint64(n))) //nolint:gosec // the same each time
	piece := func() string { return pieces[r.IntN(len(pieces))] }
	out := make([][2]string, n)
	for i := range out {
		a := []string{strconv.Itoa(r.IntN(20))}
		for range r.IntN(7) {
			a = append(a, piece())
		}
		b := append([]string(nil), a...)
		for range 1 + r.IntN(2) {
			switch at := r.IntN(len(b)); r.IntN(3) {
			case 0:
				b = append(b, piece())
			case 1:
				if at > 0 {
					b[at] = piece()
				}
			default:
				b = b[:at+1]
			}
		}
		out[i] = [2]string{strings.Join(a, ""), strings.Join(b, "")}
		for k := range 2 {
			if strings.HasSuffix(out[i][k], "-") {
				out[i][k] += "0" // dpkg takes no empty revision
			}
			if r.IntN(8) == 0 {
				out[i][k] = strconv.Itoa(r.IntN(3)) + ":" + out[i][k]
			}
		}
		if r.IntN(2) == 0 {
			out[i][0], out[i][1] = out[i][1], out[i][0]
		}
	}
	return out
}

// dpkgCompare asks dpkg's module in perl, a thousand times as fast as a process
// each. It compares numbers as floating point, so long ones are left to dpkg itself.
const dpkgCompare = `use Dpkg::Version; while (<STDIN>) { chomp; my ($a, $b) = split / /; print version_compare($a, $b), "\n" }`

// Deb is the order of each pair by dpkg's module in perl. Numbers of more than 15
// digits are not compared rightly.
func Deb(t *testing.T, pairs [][2]string) []int {
	t.Helper()
	if exec.Command("perl", "-MDpkg::Version", "-e", "1").Run() != nil {
		needs.Missing(t, "perl has no Dpkg::Version (package libdpkg-perl)")
	}
	return ask(t, pairs, "perl", "-e", dpkgCompare)
}

// rpmCompare asks rpm itself about each line.
const rpmCompare = `%{lua:for line in io.lines("/dev/stdin") do local a, b = line:match("([^ ]+) ([^ ]+)") print(rpm.vercmp(a, b)..",") end}`

// RPM is the order of each pair by rpm's own function, which is about one part of a
// version: the epochs are taken away.
func RPM(t *testing.T, pairs [][2]string) []int {
	t.Helper()
	rpm := needs.Tools(t, "rpm")[0]
	for i := range pairs {
		for k, v := range pairs[i] {
			pairs[i][k] = v[strings.IndexByte(v, ':')+1:]
		}
	}
	return ask(t, pairs, rpm, "--eval", rpmCompare)
}

// ask writes a line for each pair and reads a number for each.
func ask(t *testing.T, pairs [][2]string, name string, args ...string) []int {
	t.Helper()
	var in bytes.Buffer
	for _, p := range pairs {
		fmt.Fprintln(&in, p[0], p[1])
	}
	cmd := exec.Command(name, args...)
	cmd.Stdin = &in
	out, err := cmd.Output()
	require.NoError(t, err)
	var got []int
	for _, field := range strings.FieldsFunc(string(out), func(r rune) bool { return r == ',' || r == '\n' }) {
		n, err := strconv.Atoi(field)
		require.NoError(t, err)
		got = append(got, n)
	}
	require.Len(t, got, len(pairs))
	return got
}
