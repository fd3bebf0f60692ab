package obs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
)

// Credentials are an access key's: what Open Telekom Cloud calls AK and SK, with a
// token where they are temporary.
type Credentials struct{ AccessKey, SecretKey, Token string }

// String hides the secrets.
func (Credentials) String() string { return "credentials" }

// GoString hides the secrets.
func (Credentials) GoString() string { return "credentials" }

func (c Credentials) check(where string) (Credentials, error) {
	if c.AccessKey == "" || c.SecretKey == "" {
		return Credentials{}, fmt.Errorf("%s has no access key with its secret key", where)
	}
	return c, nil
}

// FromEnvironment takes credentials from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
// AWS_SESSION_TOKEN.
func FromEnvironment(context.Context) (Credentials, error) {
	c := Credentials{os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN")}
	return c.check("the environment")
}

const maxCredentials = 1 << 20

func readCredentials(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxCredentials {
		return nil, fmt.Errorf("%s is no file of credentials", name)
	}
	return os.ReadFile(name)
}

// FromFile returns what takes the credentials of a profile, "default" if it is "",
// from a file of the form
//
//	[default]
//	aws_access_key_id = …
//	aws_secret_access_key = …
func FromFile(name, profile string) func(context.Context) (Credentials, error) {
	profile = cmp.Or(profile, "default")
	return func(context.Context) (Credentials, error) {
		data, err := readCredentials(name)
		if err != nil {
			return Credentials{}, err
		}
		var c Credentials
		section := ""
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
				section = strings.TrimSpace(line[1 : len(line)-1])
				continue
			}
			key, value, _ := strings.Cut(line, "=")
			if section != profile {
				continue
			}
			value = strings.TrimSpace(value)
			switch strings.ToLower(strings.TrimSpace(key)) {
			case "aws_access_key_id":
				c.AccessKey = value
			case "aws_secret_access_key":
				c.SecretKey = value
			case "aws_session_token":
				c.Token = value
			}
		}
		return c.check(fmt.Sprintf("profile %q of %s", profile, name))
	}
}

// FromCloud returns what takes the credentials of a cloud from clouds.yaml, which is
// searched for as OpenStack's clients do: OS_CLIENT_CONFIG_FILE, the working directory,
// ~/.config/openstack, /etc/openstack. They are the cloud's auth.access_key and
// auth.secret_key, or ak and sk, with security_token where they are temporary.
func FromCloud(cloud string) func(context.Context) (Credentials, error) {
	return func(context.Context) (Credentials, error) {
		name, err := findClouds()
		if err != nil {
			return Credentials{}, err
		}
		data, err := readCredentials(name)
		if err != nil {
			return Credentials{}, err
		}
		var file struct {
			Clouds map[string]struct {
				Auth struct {
					AccessKey string `yaml:"access_key"`
					SecretKey string `yaml:"secret_key"`
					AK        string `yaml:"ak"`
					SK        string `yaml:"sk"`
					Token     string `yaml:"security_token"`
				} `yaml:"auth"`
			} `yaml:"clouds"`
		}
		if err := yaml.Unmarshal(data, &file); err != nil {
			return Credentials{}, fmt.Errorf("%s is not the YAML that it should be", name) // which may hold a password
		}
		found, ok := file.Clouds[cloud]
		if !ok {
			return Credentials{}, fmt.Errorf("%s has no cloud %q", name, cloud)
		}
		a := found.Auth
		return Credentials{cmp.Or(a.AccessKey, a.AK), cmp.Or(a.SecretKey, a.SK), a.Token}.check(fmt.Sprintf("cloud %q of %s", cloud, name))
	}
}

func findClouds() (string, error) {
	if name := os.Getenv("OS_CLIENT_CONFIG_FILE"); name != "" {
		return name, nil
	}
	dirs := []string{".", "/etc/openstack"}
	if config, err := os.UserConfigDir(); err == nil {
		dirs = []string{".", filepath.Join(config, "openstack"), "/etc/openstack"}
	}
	for _, dir := range dirs {
		name := filepath.Join(dir, "clouds.yaml")
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	return "", errors.New("there is no clouds.yaml in the working directory, ~/.config/openstack or /etc/openstack")
}
