package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/builder/existing"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
	"github.com/opentelekomcloud/go-imagefactory/imagefactory/queue"
	"github.com/opentelekomcloud/go-imagefactory/publish/directory"
)

const definition = `images:
  - name: Standard_Vendor_1
    os: {distribution: debian, version: "12", codename: bookworm}
    disk: 4GiB
    builder: {existing: {image: %q, sha256: "%064d"}}
    publish: [{directory: {}}]
`

// asWorker has the test binary be the program.
const asWorker = "WORKER_TEST_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(asWorker); args != "" {
		os.Args = append(os.Args[:1], strings.Split(args, "\n")...)
		main()
	}
	os.Exit(m.Run())
}

// The program does what is in its database, and ends on SIGTERM.
func TestWorker(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(file("vendor.qcow2"), []byte("nothing"), 0o644))
	require.NoError(t, os.WriteFile(file("f.yaml"), fmt.Appendf(nil, definition, file("vendor.qcow2"), 0), 0o644))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asWorker+"="+strings.Join([]string{"-config", file("f.yaml"), "-out", file("dist"), "-key", file("key"), "-queues", "build=2,test"}, "\n"))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })

	definitions, err := imagefactory.LoadFile(file("f.yaml"))
	require.NoError(t, err)
	f := &imagefactory.Factory{
		Dir: file("dist"), Builders: []imagefactory.BuilderDriver{existing.Driver{}}, Targets: []imagefactory.TargetDriver{directory.Driver{Dir: file("dist")}},
	}
	tasks, err := f.Tasks(definitions)
	require.NoError(t, err)
	q, err := queue.Open(t.Context(), queue.Config{URL: "sqlite:" + file("dist/.work/queue.sqlite")})
	require.NoError(t, err)
	require.NoError(t, q.Add(t.Context(), tasks, queue.AddOptions{}))
	report, err := q.Wait(t.Context(), tasks, nil)
	require.NoError(t, err)
	require.Contains(t, report.Images[0].Error, "is not the image that is named")
	require.NoError(t, q.Close())
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), output.String())
	st, err := os.Stat(file("dist/.work"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "f.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, definition, "/vendor.qcow2", 0), 0o644))
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nothing":   {nil, 2, "want -config FILE -out DIR"},
		"help":      {[]string{"-h"}, 0, "-queues"},
		"time":      {[]string{"-night", "25:00"}, 2, "-night"},
		"number":    {[]string{"-queues", "build=x"}, 2, "want NAME[=N]"},
		"no file":   {[]string{"-config", "no.yaml", "-out", dir}, 2, "no.yaml"},
		"database":  {[]string{"-config", config, "-out", dir, "-key", filepath.Join(dir, "key"), "-database", "mysql:x"}, 1, "want sqlite:PATH"},
		"no queue":  {[]string{"-config", config, "-out", dir, "-key", filepath.Join(dir, "key"), "-queues", "tests"}, 1, `queue "tests"`},
		"arguments": {[]string{"-config", config, "-out", dir, "more"}, 2, "no other arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			require.Equal(t, test.code, run(t.Context(), test.args, &stderr))
			require.Contains(t, stderr.String(), test.want)
		})
	}
}
