package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// withProjects sets up a file of projects, and no project beside it.
func withProjects(t *testing.T, text string) (dir string) {
	t.Helper()
	clean(t)
	unset(t, "LIVEBLOCKS_SECRET_KEY")
	unset(t, "LIVEBLOCKS_WEBHOOK_SECRET")
	dir = t.TempDir()
	for name, content := range map[string]string{"projects.yaml": text, "key": secretKey + "\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("MIRROR_PROJECTS_FILE", filepath.Join(dir, "projects.yaml"))
	t.Setenv("ACME_KEY", "sk_test_acme")
	t.Setenv("ACME_WHSEC", webhookSecret)
	return dir
}

func TestProjectsFile(t *testing.T) {
	withProjects(t, `
# two
projects:
  - id: acme-prod
    secret_key: {env: ACME_KEY}
    webhook_secrets: [{env: ACME_WHSEC}, {file: key}]
    calls_per_second: 12.5
    base_url: https://liveblocks.example
    ack: synced
    settle: 5s
    sweep_interval: 0s
    max_attempts: 3
  - id: acme-dev
    secret_key:
      file: key
    webhook_secrets:
      - env: ACME_WHSEC
`)
	t.Setenv("MIRROR_SETTLE", "7s") // for those that do not say otherwise
	c, err := parse(t, "")
	if err != nil {
		t.Fatalf("parse = %v", err)
	}
	projects, err := c.Projects()
	if err != nil || len(projects) != 2 {
		t.Fatalf("Projects = %v, %v; want two", projects, err)
	}
	prod, dev := projects[0], projects[1]
	if prod.ID() != "acme-prod" || prod.SecretKey.Reveal() != "sk_test_acme" ||
		!reflect.DeepEqual(Reveal(prod.WebhookSecret), []string{webhookSecret, secretKey}) || prod.CallsPerSecond != 12.5 ||
		prod.BaseURL != "https://liveblocks.example" || prod.Ack != "synced" || prod.Settle != 5*time.Second ||
		prod.Sweep != 0 || prod.MaxAttempts != 3 || prod.FullSweep != 24*time.Hour || prod.Workers != 8 {
		t.Errorf("first project = %+v", prod)
	}
	if dev.ID() != "acme-dev" || dev.SecretKey.Reveal() != secretKey || dev.CallsPerSecond != 200 ||
		dev.Settle != 7*time.Second || dev.Sweep != time.Hour || dev.Ack != "durable" {
		t.Errorf("second project = %+v", dev)
	}
	ids, err := ProjectIDs(c.ProjectsFile)
	if d := cmp.Diff([]mirror.ProjectID{"acme-prod", "acme-dev"}, ids); d != "" || err != nil {
		t.Errorf("ProjectIDs = %v (-want +got):\n%s", err, d)
	}
}

// Without the file there is the one project of the variables.
func TestOneProject(t *testing.T) { //nolint:paralleltest // the environment is the process's
	clean(t)
	c, err := parse(t, "", "--project-id=mine", "--settle=9s")
	if err != nil {
		t.Fatalf("parse = %v", err)
	}
	projects, err := c.Projects()
	if err != nil || len(projects) != 1 || projects[0].ID() != "mine" || projects[0].SecretKey.Reveal() != secretKey ||
		projects[0].Settle != 9*time.Second {
		t.Fatalf("Projects = %+v, %v", projects, err)
	}
}

// Every setting that can be set for a project is one of the process too.
func TestSettingsOfProjects(t *testing.T) {
	t.Parallel()
	var names []string
	for _, s := range Settings() {
		if name := PerProject(s); name != "" {
			names = append(names, name)
		}
	}
	want := []string{
		"base_url", "calls_per_second", "call_timeout", "idle_timeout", "hedge_share", "max_answer", "ack", "settle",
		"max_attempts", "backoff_min", "backoff_max", "sweep_interval", "full_sweep_interval", "max_data",
		"retention_events", "retention_sessions", "retention_notifications",
		"retention_tombstones", "retention_audit",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("settings of a project (-want +got):\n%s", d)
	}
}

// What is wrong with the file is said, and no error shows a secret, wherever one stands
// by mistake.
func TestWrongProjectsFiles(t *testing.T) { //nolint:paralleltest // the environment is the process's
	const mark, signing = "sk_prod_HIDDENMARK", "whsec_HIDDENMARK"
	one := func(fields ...string) string {
		return "projects:\n  - " + strings.Join(fields, "\n    ") + "\n"
	}
	const id, key, hooks = "id: a", "secret_key: {env: ACME_KEY}", "webhook_secrets: [{env: ACME_WHSEC}]"
	for name, c := range map[string]struct{ text, want string }{ //nolint:paralleltest // as above
		"empty":               {"", "is empty"},
		"comment only":        {"# nothing\n", "is empty"},
		"no yaml":             {"projects: [\n  " + mark, "is not YAML"},
		"no yaml 2":           {"projects:\n\t- id: " + mark, "is not YAML (line 2)"},
		"a scalar":            {mark, "line 1: it must begin with `projects:`"},
		"a list":              {"- id: a\n", "it must begin with `projects:`"},
		"no list":             {"projects: " + mark, "`projects` must be a list"},
		"none":                {"projects: []", "it names no project"},
		"nothing":             {"{}", "it names no project"},
		"something beside":    {one(id, key, hooks) + "project: {}\n", "beside `projects` there is project"},
		"secret beside":       {one(id, key, hooks) + mark + ": x\n", "beside `projects` there is a name of other"},
		"two documents":       {one(id, key, hooks) + "---\nprojects: []\n", "something behind the list"},
		"a project in words":  {"projects: [" + mark + "]", "a project must have id, secret_key and webhook_secrets"},
		"no id":               {one(key, hooks), "the project has no id"},
		"wrong id":            {one("id: "+mark, key, hooks), "id must be 1 to 64 lower-case letters, digits and dashes"},
		"no key":              {one(id, hooks), `project "a" has no secret_key`},
		"no webhook secrets":  {one(id, key), `project "a" has no webhook_secrets`},
		"empty secrets":       {one(id, key, "webhook_secrets: []"), `project "a" has no webhook_secrets`},
		"twice":               {one(id, key, hooks) + "  - {id: a, secret_key: {env: X}, webhook_secrets: [{env: X}]}\n", `project "a" is there twice`},
		"field twice":         {one(id, id, key, hooks), "line 3: id is there twice"},
		"literal key":         {one(id, "secret_key: "+mark, hooks), "line 3: secret_key holds a secret itself"},
		"literal hook":        {one(id, key, "webhook_secrets: ["+signing+"]"), "webhook_secrets holds a secret itself"},
		"literal hook alone":  {one(id, key, "webhook_secrets: "+signing), "webhook_secrets must be a list"},
		"literal as env":      {one(id, "secret_key: {env: "+mark+"}", hooks), "a secret itself must not be in it"},
		"literal as file":     {one(id, "secret_key: {file: "+mark+"}", hooks), "a secret itself must not be in it"},
		"literal as name":     {one(id, "secret_key: {"+mark+": x}", hooks), "secret_key must be {env: NAME}"},
		"literal as a list":   {one(id, "secret_key: ["+mark+"]", hooks), "secret_key must be {env: NAME}"},
		"env and file":        {one(id, "secret_key: {env: ACME_KEY, file: key}", hooks), "secret_key must be {env: NAME}"},
		"neither":             {one(id, "secret_key: {}", hooks), "secret_key must be {env: NAME}"},
		"env is not set":      {one(id, "secret_key: {env: NOT_THERE}", hooks), `secret_key of project "a" in MIRROR_PROJECTS_FILE is in the environment variable NOT_THERE, which is not set`},
		"file is not there":   {one(id, "secret_key: {file: missing}", hooks), "missing, which cannot be read"},
		"file is empty":       {one(id, key, "webhook_secrets: [{file: empty}]"), `webhook_secrets of project "a" in MIRROR_PROJECTS_FILE is in the file`},
		"unknown setting":     {one(id, key, hooks, "histroy: 1"), `sets histroy in project "a", which is not a setting of a project`},
		"secret as setting":   {one(id, key, hooks, mark+": 1"), "sets a name of other characters"},
		"setting of all":      {one(id, key, hooks, "workers: 3"), "sets workers in project"},
		"setting with a list": {one(id, key, hooks, "settle: [1]"), "settle must be a single value"},
		"no duration":         {one(id, key, hooks, "settle: soon"), `settle of project "a" in MIRROR_PROJECTS_FILE is "soon"; it must be a duration`},
		"no word of it":       {one(id, key, hooks, "ack: never"), `is "never"; it must be durable or synced`},
		"no good rate":        {one(id, key, hooks, "calls_per_second: 0"), `cannot be used for project "a": MIRROR_LIVEBLOCKS_CALLS_PER_SECOND is 0`},
		"negative":            {one(id, key, hooks, "settle: -1s"), `cannot be used for project "a": MIRROR_SETTLE is -1s`},
		"one key for two": {
			one(id, key, hooks) + "  - {id: b, secret_key: {env: ACME_KEY}, webhook_secrets: [{env: ACME_WHSEC}]}\n",
			`secret_key of project "b" in MIRROR_PROJECTS_FILE is that of project "a" too`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			withProjects(t, c.text)
			_, err := parse(t, "")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("parse = %v; want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "HIDDENMARK") {
				t.Errorf("parse = %v; want no secret in it", err)
			}
		})
	}
}

// A file and a project beside it: nobody could tell which is meant.
func TestFileOrVariables(t *testing.T) {
	for name, value := range map[string]string{
		"LIVEBLOCKS_SECRET_KEY": secretKey, "LIVEBLOCKS_WEBHOOK_SECRET": webhookSecret, "MIRROR_PROJECT_ID": "other",
	} {
		t.Run(name, func(t *testing.T) {
			withProjects(t, "projects:\n  - id: a\n    secret_key: {env: ACME_KEY}\n    webhook_secrets: [{env: ACME_WHSEC}]\n")
			t.Setenv(name, value)
			want := name + " and MIRROR_PROJECTS_FILE are both set; name all projects in the file, or use no file"
			if _, err := parse(t, ""); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("parse = %v; want %q", err, want)
			}
		})
	}
	t.Run("file that is not there", func(t *testing.T) {
		withProjects(t, "")
		t.Setenv("MIRROR_PROJECTS_FILE", "/missing")
		if _, err := parse(t, ""); err == nil || !strings.Contains(err.Error(), "MIRROR_PROJECTS_FILE is /missing, which") {
			t.Errorf("parse = %v", err)
		}
	})
}

// A command that works on the database works on no project that nobody named.
func TestProjectThatIsNamed(t *testing.T) {
	t.Parallel()
	file := write(t, "projects:\n"+
		"  - {id: a, secret_key: {env: X}, webhook_secrets: [{env: Y}]}\n"+
		"  - {id: b, secret_key: {env: X}, webhook_secrets: [{env: Y}]}\n")
	for _, c := range []struct {
		given OneProject
		want  mirror.ProjectID
	}{
		{OneProject{}, "default"},
		{OneProject{ProjectID: "x"}, "x"},
		{OneProject{ProjectsFile: file, ProjectID: "b"}, "b"},
		{OneProject{ProjectsFile: file, ProjectID: "x"}, ""},
		{OneProject{ProjectsFile: file}, ""},
	} {
		got, err := c.given.ID()
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: ID = %q, %v; want %q", c.given, got, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "a, b") {
			t.Errorf("%+v: ID = %v; want the projects named", c.given, err)
		}
	}
}
