// Package isolate runs builds in Linux namespaces of their own, so that one that
// is killed leaves neither a process nor a mount, and frees the rest of it: its
// loop devices, by their files, and its work directory. It is made of programs
// for a POSIX shell, so that it does the same on every host; the host needs
// util-linux, GNU coreutils and findutils, and /proc.
//
// A work directory DIR belongs to a build as long as the record DIR.owner lies
// beside it, with the boot ID, the PID and the start time of the build's first
// process.
package isolate

import (
	_ "embed"
	"errors"
	"path"
	"regexp"
	"strconv"
	"strings"
)

var (
	//go:embed init.sh
	initScript string
	//go:embed claim.sh
	claimScript string
	//go:embed cleanup.sh
	cleanupScript string
)

// Run is the argv that runs a command in namespaces. It must be killed by
// SIGKILL: the namespaces end with it. SIGTERM goes to the leader, which passes
// it on to the command.
func Run(workDir string, argv []string) []string {
	unshare := []string{"unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--"}
	return append(append(unshare, "sh", "-c", initScript, "init", Record(workDir)), argv...)
}

// Claim is the argv that makes a work directory and its record.
func Claim(workDir string) []string {
	return []string{"sh", "-c", claimScript, "claim", path.Clean(workDir)}
}

// Cleanup is the argv that frees what a build has left of a work directory.
func Cleanup(workDir string) []string {
	return []string{"sh", "-c", cleanupScript, "cleanup", path.Clean(workDir)}
}

// Record is the path of a work directory's record.
func Record(workDir string) string { return path.Clean(workDir) + ".owner" }

// Leader reads the PID of a build's first process from its record.
func Leader(record []byte) (int, error) {
	fields := strings.Fields(string(record))
	if len(fields) != 3 {
		return 0, errors.New("the build has no leader")
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil || pid <= 1 {
		return 0, errors.New("the record of the build's leader is damaged")
	}
	return pid, nil
}

var plainPath = regexp.MustCompile(`^/[A-Za-z0-9._/+@-]+$`)

// Check holds a work directory's path to plain characters.
func Check(workDir string) error {
	if !plainPath.MatchString(workDir) || path.Clean(workDir) == "/" {
		return errors.New("not an absolute path of plain characters below /")
	}
	return nil
}
