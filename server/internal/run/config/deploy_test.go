package config_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

const deploy = "../../../../deploy"

// The files for deployments name settings that there are.
func TestDeploymentsNameSettings(t *testing.T) {
	t.Parallel()
	known := []string{"MIRROR_CONFIG", "MIRROR_SERVER"} // of all commands, of those that call a service
	for _, f := range config.Settings() {
		known = append(known, f.Envs...)
	}
	setting := regexp.MustCompile(`\b(MIRROR|LIVEBLOCKS|DATABASE)_[A-Z_]*[A-Z]\b`)
	found := 0
	err := filepath.WalkDir(deploy, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range setting.FindAllString(string(text), -1) {
			found++
			if !slices.Contains(known, name) && !slices.Contains(known, strings.TrimSuffix(name, "_FILE")) {
				t.Errorf("%s names %s; there is no such setting", path, name)
			}
		}
		return err
	})
	if err != nil || found < 20 {
		t.Fatalf("found %d settings, %v; want those of all files", found, err)
	}
}

// service is what is used of Compose's own format.
type service struct {
	Image       string            `yaml:"image"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	HealthCheck struct {
		Test     []string `yaml:"test"`
		Interval string   `yaml:"interval"`
		Retries  int      `yaml:"retries"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	StopGracePeriod string `yaml:"stop_grace_period"`
	Restart         string `yaml:"restart"`
}

// The Compose file has no misspelt key, publishes ports to this machine only, takes
// every secret from outside, and names services and variables that there are.
func TestCompose(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(deploy + "/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Name     string             `yaml:"name"`
		Services map[string]service `yaml:"services"`
		Volumes  map[string]any     `yaml:"volumes"`
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for name, s := range file.Services {
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s publishes %s; want it on this machine only", name, port)
			}
		}
		for on := range s.DependsOn {
			if _, ok := file.Services[on]; !ok {
				t.Errorf("%s depends on %s, which there is not", name, on)
			}
		}
		for variable, value := range s.Environment {
			secret := regexp.MustCompile(`SECRET|TOKEN|PASSWORD|URL`).MatchString(variable)
			if secret && !strings.Contains(value, "${") {
				t.Errorf("%s of %s is %q; want it from outside", variable, name, value)
			}
		}
	}
	example, err := os.ReadFile(deploy + "/env.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)`).FindAllSubmatch(text, -1) {
		if !bytes.Contains(example, append(m[1], '=')) {
			t.Errorf("env.example lacks %s", m[1])
		}
	}
}
