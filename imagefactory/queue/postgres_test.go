package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// server is the PostgreSQL server of this process's tests.
var server struct {
	sync.Mutex
	dir       string // with the socket; "" while there is none
	cmd       *exec.Cmd
	databases int
}

func TestMain(m *testing.M) {
	code := m.Run()
	if server.cmd != nil {
		_ = server.cmd.Process.Signal(syscall.SIGQUIT) // its data is not needed any more
		_ = server.cmd.Wait()
	}
	if server.dir != "" {
		_ = os.RemoveAll(server.dir)
	}
	os.Exit(code)
}

// postgres returns the URL of a new database of a real server.
func postgres(t *testing.T) string {
	t.Helper()
	server.Lock()
	defer server.Unlock()
	if server.dir == "" {
		bin := programs(t)
		require.NoError(t, startServer(t.Context(), bin))
	}
	server.databases++
	name := "night" + strconv.Itoa(server.databases)
	conn, err := pgx.Connect(t.Context(), serverURL("postgres"))
	require.NoError(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	return serverURL(name)
}

func serverURL(database string) string {
	return "postgres://queue@/" + database + "?host=" + server.dir
}

// programs is where PostgreSQL's server programs are; Debian has them in no PATH.
func programs(t *testing.T) string {
	t.Helper()
	if initdb, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(initdb)
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	require.NoError(t, err)
	if len(found) == 0 {
		needs.Missing(t, "the package postgresql is not installed")
	}
	return filepath.Dir(found[len(found)-1])
}

// startServer starts a server that listens on a socket in a directory of its own. It
// does not run as root.
func startServer(ctx context.Context, bin string) error {
	dir, err := os.MkdirTemp("", "queue-postgresql-")
	if err != nil {
		return err
	}
	server.dir = dir
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			return err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "queue", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-h", "", "-F", "-c", "max_connections=50")
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = &syscall.SysProcAttr{Credential: attr.Credential}, dir, log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	server.cmd = cmd
	for range 300 {
		conn, cerr := pgx.Connect(ctx, serverURL("postgres"))
		if cerr == nil {
			return conn.Close(ctx)
		}
		err = errors.Join(cerr, ctx.Err())
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
