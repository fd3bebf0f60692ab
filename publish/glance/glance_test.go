package glance

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/opentelekomcloud/go-imagefactory/internal/needs"
	"github.com/opentelekomcloud/go-imagefactory/internal/openstackapi"
	"github.com/opentelekomcloud/go-imagefactory/internal/openstacktest"
	"github.com/opentelekomcloud/go-imagefactory/publish"
	"github.com/opentelekomcloud/go-imagefactory/publish/publishtest"
)

func TestMain(m *testing.M) { os.Exit(openstacktest.Main(m)) }

// target returns one on the real cloud that repeats calls soon.
func target(t testing.TB, c Config) *Target {
	t.Helper()
	cloud := openstacktest.Start(t)
	t.Setenv("OS_CLIENT_CONFIG_FILE", cloud.CloudsFile)
	if c.Cloud == "" {
		c.Cloud = "publisher"
	}
	c.AllowHTTP = true
	target, err := New(c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	target.pause = 50 * time.Millisecond
	return target
}

func TestTarget(t *testing.T) {
	require.NoError(t, publishtest.TestTarget(t.Context(), target(t, Config{}), "Publishtest"))
}

func TestApplicationCredentialAndImport(t *testing.T) {
	tg := target(t, Config{Cloud: "publisher-app", Import: true, Protected: true, Tags: []string{"os:debian"}})
	r := release(t, "Standard_Import", 1)
	p, err := publish.Publish(t.Context(), tg, r)
	require.NoError(t, err)
	i := show(t, tg, p.Entry.ID)
	require.Equal(t, "Standard_Import_latest", i.Name)
	require.True(t, i.Protected)
	require.Equal(t, "true", i.Prop("__support_kvm"))
	require.Equal(t, "2018-01-01", i.Prop("image_build_date"))
}

// TestClient looks with the openstack client at what was published.
func TestClient(t *testing.T) {
	needs.Tools(t, "openstack")
	tg := target(t, Config{Visibility: "community"})
	for n := range 4 {
		_, err := publish.Publish(t.Context(), tg, release(t, "Standard_Client", n+1))
		require.NoError(t, err)
	}
	for _, test := range []struct {
		hidden string
		want   []string
	}{
		{"", []string{"Standard_Client_latest", "Standard_Client_prev"}},
		{"--hidden", []string{"Standard_Client_20180101_0", "Standard_Client_20180201_0"}},
	} {
		args := []string{"openstack", "image", "list", "--property", "imagefactory_image=Standard_Client", "--sort", "name", "-f", "json", "--community"}
		if test.hidden != "" {
			args = append(args, test.hidden)
		}
		cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", append([]string{"/usr/bin/openstack"}, args[1:]...)...)
		cmd.Env = append(os.Environ(), "OS_CLOUD=publisher")
		out, err := cmd.Output()
		require.NoError(t, err)
		var rows []struct{ Name, Status string }
		require.NoError(t, json.Unmarshal(out, &rows))
		var names []string
		for _, r := range rows {
			require.Equal(t, "active", r.Status)
			names = append(names, r.Name)
		}
		require.Equal(t, test.want, names, args)
	}
}

// TestFewRequests counts what a run that changes nothing asks, in a project of 500 images.
func TestFewRequests(t *testing.T) {
	tg := target(t, Config{})
	c := connect(t, tg)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(4)
	for n := range 500 {
		group.Go(func() error {
			in := map[string]any{"name": fmt.Sprintf("Standard_Other_%d_latest", n), "disk_format": "qcow2", "container_format": "bare", "os_hidden": n%2 == 1}
			return c.Call(ctx, http.MethodPost, paths.List, in, new(image))
		})
	}
	require.NoError(t, group.Wait())
	r := release(t, "Standard_Few", 1)
	_, err := publish.Publish(t.Context(), tg, r)
	require.NoError(t, err)
	again := target(t, Config{}) // which logs in anew
	var calls []publish.Call
	again.Journal = func(c publish.Call) { calls = append(calls, c) }
	p, err := publish.Publish(t.Context(), again, r)
	require.NoError(t, err)
	require.Empty(t, p.Steps)
	require.LessOrEqual(t, len(calls), 10, "%+v", calls)
	journal, err := json.Marshal(calls)
	require.NoError(t, err)
	for _, secret := range []string{"publisher-pw", connect(t, again).Provider.Token()} {
		require.NotContains(t, string(journal), secret)
	}
}

// TestForeign has images of somebody else with the factory's names, and with its
// properties.
func TestForeign(t *testing.T) {
	tg, other := target(t, Config{}), target(t, Config{Cloud: "other", Visibility: "community"})
	r := release(t, "Standard_Foreign", 1)
	theirs, err := publish.Publish(t.Context(), other, r)
	require.NoError(t, err)
	c := connect(t, tg)
	var mine image
	require.NoError(t, c.Call(t.Context(), http.MethodPost, paths.List,
		map[string]any{"name": "Standard_Foreign_latest", "disk_format": "qcow2", "container_format": "bare"}, &mine))
	have, err := tg.List(t.Context(), "Standard_Foreign")
	require.NoError(t, err)
	require.Len(t, have, 1) // another project's community images are not in a user's list
	require.Equal(t, "foreign", have[0].State())
	p, err := publish.Publish(t.Context(), tg, r)
	require.NoError(t, err)
	require.NotEqual(t, theirs.Entry.ID, p.Entry.ID)
	require.Len(t, p.Problems, 1)
	require.Equal(t, "Standard_Foreign_latest", show(t, tg, mine.ID).Name)
	require.Error(t, tg.Apply(t.Context(), publish.Step{Op: publish.Remove, Entry: publish.Entry{ID: mine.ID, Image: "Standard_Foreign", Build: r.Index.Build}}))
	_, err = publish.Retire(t.Context(), tg, "Standard_Foreign", time.Now().AddDate(100, 0, 0))
	require.NoError(t, err)
	require.Equal(t, "queued", show(t, tg, mine.ID).Status)
}

// TestByHand changes by hand what was published, and publishes the next release.
func TestByHand(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, c *client, latest, prev *image){
		"renamed": func(t *testing.T, c *client, latest, _ *image) {
			require.NoError(t, c.Patch(t.Context(), latest, patch{}.Set("name", "mine")))
		},
		"hidden": func(t *testing.T, c *client, latest, _ *image) {
			require.NoError(t, c.Patch(t.Context(), latest, patch{}.Set("os_hidden", true)))
		},
		"two latest": func(t *testing.T, c *client, _, prev *image) {
			require.NoError(t, c.Patch(t.Context(), prev, patch{}.Set("name", prev.Prop(openstackapi.PropImage)+"_latest")))
		},
		"two prev": func(t *testing.T, c *client, latest, _ *image) {
			require.NoError(t, c.Patch(t.Context(), latest, patch{}.Set("name", latest.Prop(openstackapi.PropImage)+"_prev")))
		},
		"latest removed": func(t *testing.T, c *client, latest, _ *image) {
			require.NoError(t, c.remove(t.Context(), latest))
		},
		"prev removed": func(t *testing.T, c *client, _, prev *image) {
			require.NoError(t, c.remove(t.Context(), prev))
		},
		"not the hash any more": func(t *testing.T, c *client, latest, _ *image) {
			require.NoError(t, c.Patch(t.Context(), latest, patch{}.Set(propVerified, strings.Repeat("0", 128))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			tg := target(t, Config{})
			c := connect(t, tg)
			base := "Hand_" + strings.ReplaceAll(name, " ", "_")
			for _, again := range []bool{true, false} {
				image := fmt.Sprintf("%s_%t", base, again)
				var ids []string
				for n := range 2 {
					p, err := publish.Publish(t.Context(), tg, release(t, image, n+1))
					require.NoError(t, err)
					ids = append(ids, p.Entry.ID)
				}
				change(t, c, show(t, tg, ids[1]), show(t, tg, ids[0]))
				next := 3
				if again {
					next = 2
				}
				p, err := publish.Publish(t.Context(), tg, release(t, image, next))
				require.NoError(t, err)
				require.True(t, p.Entry.Has(publish.Latest))
				latest, err := c.List(t.Context(), map[string]string{"name": image + "_latest"})
				require.NoError(t, err)
				require.Len(t, latest, 1)
				require.Equal(t, nth(next), build(latest[0]))
				prev, err := c.List(t.Context(), map[string]string{"name": image + "_prev"})
				require.NoError(t, err)
				require.LessOrEqual(t, len(prev), 1)
				p, err = publish.Publish(t.Context(), tg, release(t, image, next))
				require.NoError(t, err)
				require.Empty(t, p.Steps)
			}
		})
	}
}

// TestHeld retires an image that somebody else has protected.
func TestHeld(t *testing.T) {
	tg := target(t, Config{})
	var first string
	for n := range 4 {
		p, err := publish.Publish(t.Context(), tg, release(t, "Standard_Held", n+1))
		require.NoError(t, err)
		if n == 0 {
			first = p.Entry.ID
		}
	}
	c := connect(t, tg)
	require.NoError(t, c.Patch(t.Context(), show(t, tg, first), patch{}.Set("protected", true)))
	steps, err := publish.Retire(t.Context(), tg, "Standard_Held", time.Now().AddDate(100, 0, 0))
	require.NoError(t, err)
	require.Len(t, steps, 1)
	require.NotEqual(t, first, steps[0].Entry.ID)
	require.NoError(t, c.Patch(t.Context(), show(t, tg, first), patch{}.Set("protected", false)))
}

func TestRefused(t *testing.T) {
	tg := target(t, Config{})
	tg.config.AllowHTTP = false
	_, err := tg.List(t.Context(), "Standard_Refused")
	require.ErrorContains(t, err, "is not https")

	tg = target(t, Config{SCS0102: true, Properties: map[string]string{"replace_frequency": "hourly", "architecture": "x86_64"}})
	_, err = publish.Publish(t.Context(), tg, release(t, "Standard_Refused", 1))
	require.ErrorContains(t, err, `replace_frequency is "hourly"; want`)
	require.ErrorContains(t, err, "image_source is missing")
	require.NotContains(t, err.Error(), "architecture")

	for _, c := range []Config{{}, {Cloud: "c", Visibility: "all"}, {Cloud: "c", Members: []string{"m"}}, {Cloud: "c", Properties: map[string]string{"imagefactory_build": "x"}}} {
		_, err := New(c, nil)
		require.Error(t, err, "%+v", c)
	}
}

// TestCloudsFile has clouds.yaml files that are not good: no error has a byte of them
// that may be secret.
func TestCloudsFile(t *testing.T) {
	for name, text := range map[string]string{
		"no cloud":   "clouds: {}\n",
		"no auth":    "clouds: {publisher: {region_name: hunter2}}\n",
		"no mapping": "clouds: {publisher: {auth: hunter2}}\n",
		"no YAML":    "clouds: {publisher: {auth: {password: hunter2\n",
		"no URL":     "clouds: {publisher: {auth: {auth_url: 'hunter2', password: hunter2}}}\n",
		"user":       "clouds: {publisher: {auth: {auth_url: 'https://u:hunter2@example.org', password: hunter2}}}\n",
		"unverified": "clouds: {publisher: {verify: false, auth: {auth_url: 'https://127.0.0.1:1/v3', password: hunter2}}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "clouds.yaml")
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			t.Setenv("OS_CLIENT_CONFIG_FILE", file)
			tg, err := New(Config{Cloud: "publisher"}, nil)
			require.NoError(t, err)
			tg.pause = time.Millisecond
			_, err = tg.List(t.Context(), "Standard_Clouds")
			require.Error(t, err)
			require.NotContains(t, err.Error(), "hunter2")
			t.Log(err)
		})
	}
}

func nth(n int) publish.BuildID {
	return publish.NewBuildID(time.Date(2018, time.Month(n), 1, 3, 15, 7, 0, time.UTC))
}

var releases = make(map[string]*publish.Release)

// release makes the nth release of an image, always the same one.
func release(t testing.TB, image string, n int) *publish.Release {
	t.Helper()
	key := fmt.Sprint(t.Name(), image, n)
	if releases[key] == nil {
		r, err := publishtest.Release(context.WithoutCancel(t.Context()), t.TempDir(), image, nth(n))
		require.NoError(t, err)
		releases[key] = r
	}
	return releases[key]
}

func connect(t testing.TB, tg *Target) *client {
	t.Helper()
	c, err := tg.connect(t.Context())
	require.NoError(t, err)
	return c
}

func show(t testing.TB, tg *Target, id string) *image {
	t.Helper()
	i, err := connect(t, tg).Get(t.Context(), id)
	require.NoError(t, err)
	return i
}
