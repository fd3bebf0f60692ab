package pkgversion

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/pkgversion/versiontest"
)

func TestCompareDebAsDpkg(t *testing.T) {
	dpkg := needs.Tools(t, "dpkg")[0]
	pieces := []string{"1", "2", "10", "007", ".", "+", "~", "-", "a", "b", "Z", "rc", "deb12u", "~~", "-0"}
	for _, p := range versiontest.Pairs(150, append([]string{"20240101123456789012345", "20240101123456789012346"}, pieces...)) {
		require.Equal(t, byDpkg(t, dpkg, p), Deb(p[0], p[1]), "%q", p)
	}
	all := versiontest.Pairs(20_000, pieces)
	for i, order := range versiontest.Deb(t, all) {
		require.Equal(t, order, Deb(all[i][0], all[i][1]), "%q", all[i])
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

func TestCompareRPMAsRPM(t *testing.T) {
	all := versiontest.Pairs(20_000, []string{"1", "2", "10", "007", "20240101123456789012345", "20240101123456789012346", ".", "+", "~", "^", "_", "a", "b", "Z", "rc", "el", "..", "^git"})
	for i, order := range versiontest.RPM(t, all) {
		require.Equal(t, order, RPMPart(all[i][0], all[i][1]), "%q", all[i])
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		compare func(a, b string) int
		a, b    string
		want    int
	}{
		{Deb, "1:1.0", "2.0", 1},
		{Deb, "1.0", "1.0-0", 0},
		{Deb, "3.0.15-1~deb12u1", "3.0.15-1", -1},
		{Deb, "2.36-9+deb12u9", "2.36-9+deb12u10", -1},
		{RPM, "0:1.1.1k-12.el8_9", "1.1.1k-9.el8_9", 1},
		{RPM, "1:1.0-1", "2.0-1", 1},
		{RPM, "1.0-1", "1.0", 0},
		{RPM, "1.0~rc1-1", "1.0-1", -1},
		{RPM, "1.0^git1-1", "1.0.1-1", -1},
	} {
		require.Equal(t, c.want, c.compare(c.a, c.b), "%s %s", c.a, c.b)
		require.Equal(t, -c.want, c.compare(c.b, c.a), "%s %s", c.b, c.a)
	}
}

func TestVersionsOfADistribution(t *testing.T) {
	for _, c := range []struct {
		distribution string
		good, bad    []string
	}{
		{"debian", []string{"1", "1:9.2p1-2+deb12u3", "0~rc1", "1-2-3"}, []string{"", "a1", ":1", "1:", "1-", "x:1", "1_2", "1^2", "1 2", "1:2:3"}},
		{"sles", []string{"1", "2.16.4_k4.4.76_1-1.1", "a1", "1^git1-1", "0:1"}, []string{"", ":1", "1:", "1-", "1-2-3", "x:1", "1 2"}},
	} {
		scheme, ok := For(c.distribution)
		require.True(t, ok)
		for _, v := range c.good {
			require.True(t, scheme.Valid(v), "%s %q", c.distribution, v)
		}
		for _, v := range c.bad {
			require.False(t, scheme.Valid(v), "%s %q", c.distribution, v)
		}
	}
	_, ok := For("windows")
	require.False(t, ok)
}
