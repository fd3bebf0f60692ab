// Package openstacktest runs a real OpenStack cloud for tests: Keystone and Glance
// of the distribution's packages on ports of 127.0.0.1, with SQLite, in a temporary
// directory.
//
// A first start makes the databases, which takes half a minute. They are kept in the
// user's cache directory by the versions of the packages, so that later starts take
// some seconds. What a test does to the cloud is never kept.
//
// The packages are python3-keystone, python3-glance, uwsgi-core and
// uwsgi-plugin-python3. Glance's scripts are in glance-common and glance-api, which
// would start services where they are installed: those two are only unpacked.
package openstacktest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/internal/debs"
	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
)

// A Cloud is a running cloud. Its clouds.yaml has the clouds admin, publisher and
// other, each a user with a project of its own, and publisher-app, an application
// credential of publisher's. Their passwords are their names with "-pw" at the end.
type Cloud struct {
	CloudsFile string // path of clouds.yaml
	Keystone   string // URL, http://127.0.0.1:PORT/v3
	Glance     string // URL, http://127.0.0.1:PORT

	dir      string
	unpacked string // Glance's scripts
	stop     []func()
	ended    chan struct{} // when the service that was started last ends
	logFile  string        // its log
}

var shared struct {
	mu    sync.Mutex
	cloud *Cloud
	err   error
}

// Main runs a package's tests and then stops the cloud that they used. A TestMain
// calls it:
//
//	func TestMain(m *testing.M) { os.Exit(openstacktest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cloud != nil {
		shared.cloud.close()
	}
	return code
}

// Start returns the cloud of this test process. It starts it when it is called for
// the first time. Where packages are missing the test ends.
func Start(t testing.TB) *Cloud {
	t.Helper()
	needs.Tools(t, "uwsgi", "keystone-manage", "apt-get", "dpkg-deb")
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cloud == nil && shared.err == nil {
		shared.cloud, shared.err = start(context.WithoutCancel(t.Context()))
	}
	if shared.err != nil {
		t.Fatal("cannot start Keystone and Glance: ", shared.err)
	}
	return shared.cloud
}

// python is the distribution's, for which its packages are.
const python = "/usr/bin/python3"

func start(ctx context.Context) (*Cloud, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // two busy cores
	defer cancel()
	dir, err := os.MkdirTemp("", "openstacktest-")
	if err != nil {
		return nil, err
	}
	c := &Cloud{dir: dir, CloudsFile: filepath.Join(dir, "clouds.yaml")}
	if err := c.run(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *Cloud) run(ctx context.Context) error {
	keystone, err := freePort()
	if err != nil {
		return err
	}
	glance, err := freePort()
	if err != nil {
		return err
	}
	c.Keystone, c.Glance = "http://"+keystone+"/v3", "http://"+glance
	state, err := cached(ctx)
	if err != nil {
		return err
	}
	c.unpacked = filepath.Join(state, "unpacked")
	for _, d := range []string{"fernet", "credential", "images", "staging", "tasks", "lock", "log"} {
		if err := os.Mkdir(filepath.Join(c.dir, d), 0o700); err != nil {
			return err
		}
	}
	if err := c.configure(keystone, glance); err != nil {
		return err
	}
	made := filepath.Join(state, "made")
	_, err = os.Stat(made)
	fresh := errors.Is(err, os.ErrNotExist)
	if fresh {
		err = c.makeDatabases(ctx)
	} else if err == nil {
		err = os.CopyFS(c.dir, os.DirFS(made))
	}
	if err != nil {
		return err
	}
	if !fresh {
		if err := c.setUp(ctx, "ports"); err != nil {
			return err
		}
	}
	if err := c.serve(ctx, "keystone", keystone, "/usr/bin/keystone-wsgi-public"); err != nil {
		return err
	}
	if err := c.answers(ctx, c.Keystone); err != nil {
		return err
	}
	if fresh {
		if err := c.setUp(ctx, "users"); err != nil {
			return err
		}
		if err := c.keep(made); err != nil {
			return err
		}
	}
	if err := c.writeClouds(); err != nil {
		return err
	}
	if err := c.serve(ctx, "glance", glance, filepath.Join(c.unpacked, "usr/bin/glance-wsgi-api")); err != nil {
		return err
	}
	return c.answers(ctx, c.Glance+"/v2/images")
}

// cached returns the directory of what is kept for the machine's versions of the
// packages, with Glance's scripts unpacked.
func cached(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Package}=${Version}\n", "python3-keystone", "python3-glance").Output()
	if err != nil {
		return "", fmt.Errorf("cannot find the versions of python3-keystone and python3-glance: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	var version string
	for line := range strings.Lines(string(out)) {
		name, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		version += strings.NewReplacer(":", "_", "/", "_").Replace(name+"-"+v) + "-"
		if name == "python3-glance" {
			out = []byte(v)
		}
	}
	dir := filepath.Join(cache, "imagefactory-openstacktest", version+layout)
	if _, err := os.Stat(filepath.Join(dir, "unpacked")); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(dir, "unpacking-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	if err := debs.Apt(nil).Download(ctx, temp, "glance-common="+string(out), "glance-api="+string(out)); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(temp, "*.deb"))
	if err != nil || len(found) != 2 {
		return "", fmt.Errorf("apt-get brought %d packages, want glance-common and glance-api: %w", len(found), err)
	}
	tree := filepath.Join(temp, "tree")
	for _, deb := range found {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, tree).CombinedOutput(); err != nil {
			return "", fmt.Errorf("cannot unpack %s: %w: %s", filepath.Base(deb), err, out)
		}
	}
	err = os.Rename(tree, filepath.Join(dir, "unpacked"))
	if errors.Is(err, os.ErrExist) { // another test was faster
		err = nil
	}
	return dir, err
}

// layout changes when what is kept does.
const layout = "1"

//go:embed conf.tmpl
var conf string

//go:embed setup.py
var setup []byte

// configure writes the configuration of both services.
func (c *Cloud) configure(keystone, glance string) error {
	t, err := template.New("").Parse(conf)
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(glance)
	data := map[string]string{
		"Dir": c.dir, "Keystone": "http://" + keystone, "Glance": c.Glance, "GlancePort": port,
	}
	const paste = "glance-api-paste.ini"
	pipelines, err := os.ReadFile(filepath.Join(c.unpacked, "usr/share/glance-common", paste))
	if err == nil {
		err = os.WriteFile(filepath.Join(c.dir, paste), pipelines, 0o600) //nolint:gosec // the name is ours
	}
	if err != nil {
		return err
	}
	for _, name := range []string{"keystone.conf", "glance-api.conf", "glance-image-import.conf"} {
		f, err := os.Create(filepath.Join(c.dir, name))
		if err != nil {
			return err
		}
		if err := errors.Join(t.ExecuteTemplate(f, name, data), f.Close()); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(c.dir, "setup.py"), setup, 0o600)
}

func (c *Cloud) makeDatabases(ctx context.Context) error {
	glance := make(chan error, 1)
	go func() {
		glance <- c.command(ctx, python, filepath.Join(c.unpacked, "usr/bin/glance-manage"), "--config-file", filepath.Join(c.dir, "glance-api.conf"), "db_sync")
	}()
	var err error
	for _, args := range [][]string{
		{"db_sync"},
		{"fernet_setup", "--keystone-user", "root", "--keystone-group", "root"},
		{"credential_setup", "--keystone-user", "root", "--keystone-group", "root"},
		{"bootstrap", "--bootstrap-password", "admin-pw", "--bootstrap-region-id", "RegionOne",
			"--bootstrap-admin-url", c.Keystone, "--bootstrap-internal-url", c.Keystone, "--bootstrap-public-url", c.Keystone},
	} {
		if err = c.command(ctx, python, append([]string{"/usr/bin/keystone-manage", "--config-file", filepath.Join(c.dir, "keystone.conf")}, args...)...); err != nil {
			break
		}
	}
	if err = errors.Join(err, <-glance); err != nil {
		return err
	}
	return c.setUp(ctx, "databases")
}

// setUp runs a part of setup.py.
func (c *Cloud) setUp(ctx context.Context, part string) error {
	return c.command(ctx, python, filepath.Join(c.dir, "setup.py"), part, c.dir, c.Keystone, c.Glance)
}

// keep copies the databases and keys into the cache.
func (c *Cloud) keep(made string) error {
	temp, err := os.MkdirTemp(filepath.Dir(made), "making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	for _, name := range []string{"fernet", "credential"} {
		if err := os.CopyFS(filepath.Join(temp, name), os.DirFS(filepath.Join(c.dir, name))); err != nil {
			return err
		}
	}
	for _, name := range []string{"keystone.db", "glance.db", "app.credential"} {
		b, err := os.ReadFile(filepath.Join(c.dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(temp, name), b, 0o600) //nolint:gosec // the name is ours
		}
		if err != nil {
			return err
		}
	}
	if err := os.Rename(temp, made); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (c *Cloud) writeClouds() error {
	app, err := os.ReadFile(filepath.Join(c.dir, "app.credential"))
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("clouds:\n")
	for _, cloud := range [][2]string{{"admin", "admin"}, {"publisher", "images"}, {"other", "other"}} {
		fmt.Fprintf(&b, "  %s:\n    region_name: RegionOne\n    auth: {auth_url: %q, username: %s, password: %s-pw, project_name: %s, user_domain_name: Default, project_domain_name: Default}\n",
			cloud[0], c.Keystone, cloud[0], cloud[0], cloud[1])
	}
	id, secret, _ := strings.Cut(strings.TrimSpace(string(app)), " ")
	fmt.Fprintf(&b, "  publisher-app:\n    region_name: RegionOne\n    auth_type: v3applicationcredential\n    auth: {auth_url: %q, application_credential_id: %q, application_credential_secret: %q}\n", c.Keystone, id, secret)
	return os.WriteFile(c.CloudsFile, []byte(b.String()), 0o600)
}

// environment is that of the services and programs: the distribution's python.
func (c *Cloud) environment() []string {
	return []string{
		"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + c.dir, "LC_ALL=C.UTF-8",
		"OS_KEYSTONE_CONFIG_FILES=" + filepath.Join(c.dir, "keystone.conf"), "OS_GLANCE_CONFIG_DIR=" + c.dir,
	}
}

func (c *Cloud) command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = c.environment(), c.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), filepath.Base(args[0]), err, out[max(0, len(out)-2000):])
	}
	return nil
}

// serve starts a WSGI program. It ends with this process at the latest.
func (c *Cloud) serve(ctx context.Context, name, address, program string) error {
	log, err := os.Create(filepath.Join(c.dir, "log", name+"-uwsgi.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("uwsgi", "--plugin", "python3", "--buffer-size", "65535", "--lazy-apps", "--enable-threads", "--die-on-term",
		"--listen", "100", "--need-app", "--disable-logging", "--http-socket", address,
		// The socket has no keep-alive and does not say so.
		"--add-header", "Connection: close", "--socket-timeout", "60",
		// One at a time: two threads that write lock each other out of SQLite.
		"--processes", "1", "--threads", "1", "--wsgi-file", program)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.environment(), c.dir, log, log
	cmd.SysProcAttr = endWithParent()
	started, ended := make(chan error), make(chan struct{})
	c.ended, c.logFile = ended, log.Name()
	go func() {
		runtime.LockOSThread() // the parent, to the kernel, is the thread
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	c.stop = append(c.stop, func() { _ = cmd.Process.Kill(); <-ended })
	return ctx.Err()
}

func (c *Cloud) close() {
	for _, stop := range c.stop {
		stop()
	}
	_ = os.RemoveAll(c.dir)
}

// answers waits until the service that was started last does.
func (c *Cloud) answers(ctx context.Context, url string) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode < 500 {
				return nil
			}
		}
		select {
		case <-c.ended:
			return fmt.Errorf("the service at %s has ended: %s", url, c.log())
		case <-ctx.Done():
			return fmt.Errorf("no answer from %s: %w", url, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// log is the end of what the service that was started last said.
func (c *Cloud) log() string {
	b, err := os.ReadFile(c.logFile)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-6000):])
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
