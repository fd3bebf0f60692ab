// Package needs says what a test needs from its machine. A test whose need is
// not met is skipped with the reason on a developer's machine and fails where
// the environment variable CI is "true", so that continuous integration never
// passes by leaving something out.
package needs

import (
	"os"
	"os/exec"
	"testing"
)

// Tools returns the paths of the named programs, in order. Where one is
// missing the test ends.
func Tools(t testing.TB, names ...string) []string {
	t.Helper()
	paths := make([]string, len(names))
	for i, name := range names {
		p, err := exec.LookPath(name)
		if err != nil {
			Missing(t, "the program "+name+" is not installed")
		}
		paths[i] = p
	}
	return paths
}

// Root ends the test where it does not run as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
}

// Missing ends the test because of reason: a skip, or a failure under CI=true.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("CI lacks what this test needs: " + reason)
	}
	t.Skip(reason)
}
