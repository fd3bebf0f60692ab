package advisory

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

// pairs makes versions that resemble each other out of pieces that matter.
func pairs(n int, pieces []string) [][2]string {
	r := rand.New(rand.NewPCG(1, uint64(n)))
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

func TestCompareDebAsDpkg(t *testing.T) {
	dpkg := needs.Tools(t, "dpkg")[0]
	pieces := []string{"1", "2", "10", "007", ".", "+", "~", "-", "a", "b", "Z", "rc", "deb12u", "~~", "-0"}
	for _, p := range pairs(150, append([]string{"20240101123456789012345", "20240101123456789012346"}, pieces...)) {
		require.Equal(t, byDpkg(t, dpkg, p), compareDeb(p[0], p[1]), "%q", p)
	}
	if exec.Command("perl", "-MDpkg::Version", "-e", "1").Run() != nil {
		needs.Missing(t, "perl has no Dpkg::Version (package libdpkg-perl)")
	}
	all := pairs(20_000, pieces)
	for i, order := range ask(t, all, "perl", "-e", dpkgCompare) {
		require.Equal(t, order, compareDeb(all[i][0], all[i][1]), "%q", all[i])
	}
}

func byDpkg(t *testing.T, dpkg string, p [2]string) int {
	for order, operator := range map[int]string{-1: "lt", 0: "eq", 1: "gt"} {
		if exec.Command(dpkg, "--compare-versions", p[0], operator, p[1]).Run() == nil {
			return order
		}
	}
	t.Fatalf("dpkg has no order for %q", p)
	return 0
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

func TestCompareRPMAsRPM(t *testing.T) {
	rpm := needs.Tools(t, "rpm")[0]
	all := pairs(20_000, []string{"1", "2", "10", "007", "20240101123456789012345", "20240101123456789012346", ".", "+", "~", "^", "_", "a", "b", "Z", "rc", "el", "..", "^git"})
	for i := range all {
		for k := range 2 { // rpm's function is about one part of a version
			_, all[i][k] = cutEpoch(all[i][k])
		}
	}
	const script = `%{lua:for line in io.lines("/dev/stdin") do local a, b = line:match("([^ ]+) ([^ ]+)") print(rpm.vercmp(a, b)..",") end}`
	for i, order := range ask(t, all, rpm, "--eval", script) {
		require.Equal(t, order, rpmvercmp(all[i][0], all[i][1]), "%q", all[i])
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		compare func(a, b string) int
		a, b    string
		want    int
	}{
		{compareDeb, "1:1.0", "2.0", 1},
		{compareDeb, "1.0", "1.0-0", 0},
		{compareDeb, "3.0.15-1~deb12u1", "3.0.15-1", -1},
		{compareDeb, "2.36-9+deb12u9", "2.36-9+deb12u10", -1},
		{compareRPM, "0:1.1.1k-12.el8_9", "1.1.1k-9.el8_9", 1},
		{compareRPM, "1:1.0-1", "2.0-1", 1},
		{compareRPM, "1.0-1", "1.0", 0},
		{compareRPM, "1.0~rc1-1", "1.0-1", -1},
		{compareRPM, "1.0^git1-1", "1.0.1-1", -1},
	} {
		require.Equal(t, c.want, c.compare(c.a, c.b), "%s %s", c.a, c.b)
		require.Equal(t, -c.want, c.compare(c.b, c.a), "%s %s", c.b, c.a)
	}
}
