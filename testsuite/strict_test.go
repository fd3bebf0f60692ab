package testsuite

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The good Debian passes all of strict that OTC asks, and fails what the
// documentation of Strict says.
func TestStrict(t *testing.T) {
	s := &Suite{Profile: Strict(), Params: goodParams()}
	r, err := s.Judge(goodFacts(t))
	require.NoError(t, err)
	var bad []string
	for _, c := range r.Bad() {
		assert.Equal(t, Fail, c.Status, c.ID)
		bad = append(bad, c.ID)
	}
	assert.Equal(t, []string{"strict.sysctl", "strict.sshd-values", "strict.modules"}, bad)
	got := results(t, s, goodFacts(t))
	assert.Contains(t, got["strict.sysctl"].Found, "kernel.kptr_restrict")
	assert.NotContains(t, got["strict.sysctl"].Found, "randomize_va_space")
}

// What is below the severity that counts is said and does not count.
func TestFailFrom(t *testing.T) {
	for from, ok := range map[Severity]bool{"": false, Low: false, Medium: false, High: true, Critical: true} {
		s := &Suite{Profile: Strict(), Params: goodParams(), FailFrom: from}
		r, err := s.Judge(goodFacts(t))
		require.NoError(t, err)
		assert.Equal(t, ok, r.OK(), from)
		assert.Equal(t, 3, r.Summary.Fail, from)
	}
	s := &Suite{Profile: Strict(), FailFrom: "severe"}
	require.ErrorContains(t, s.Validate(), "severe")
}

func TestNextBoot(t *testing.T) {
	for line, want := range map[string]setLine{
		"net.ipv4.conf.eth0/1.forwarding = 1": {name: "net/ipv4/conf/eth0.1/forwarding", value: "1"},
		"-net/ipv4/conf/eth0.1/forwarding=1":  {name: "net/ipv4/conf/eth0.1/forwarding", value: "1"},
		"-net.ipv4.conf.eth0.rp_filter":       {name: "net/ipv4/conf/eth0/rp_filter", exclude: true},
		"kernel.sem =  1\t2":                  {name: "kernel/sem", value: "1 2"},
	} {
		got, err := readSet("f", line)
		require.NoError(t, err)
		want.file = "f"
		assert.Equal(t, want, got, line)
	}
	for _, line := range []string{"kernel.sysrq", "=1", "-"} {
		_, err := readSet("f", line)
		assert.Error(t, err, line)
	}
	// A name's own line counts before every pattern; of the patterns the last.
	set, bad := nextBoot([]namedFile{
		{name: "a", lines: []string{"net.ipv4.conf.all.rp_filter=2", "net.ipv4.conf.*.rp_filter=1", "kernel.sysrq=1"}},
		{name: "b", lines: []string{"net.ipv4.conf.e*.rp_filter=0", "kernel.sysrq=0"}},
	})
	assert.Empty(t, bad)
	for name, want := range map[string]string{"net/ipv4/conf/all/rp_filter": "2", "net/ipv4/conf/lo/rp_filter": "1",
		"net/ipv4/conf/eth0/rp_filter": "0", "kernel/sysrq": "0"} {
		got, ok := made(set, name)
		assert.True(t, ok, name)
		assert.Equal(t, want, got, name)
	}
}

func TestDemands(t *testing.T) {
	assert.True(t, demand("any").accepts("x"))
	assert.True(t, demand("1..3").accepts("3"))
	assert.False(t, demand("1..3").accepts("4"))
	assert.False(t, demand("1..").accepts("0"))
	assert.False(t, demand("..3").accepts("many"))
	assert.True(t, demand("a b or c").accepts("a b"))
	assert.False(t, demand("a b or c").accepts("b"))
}
