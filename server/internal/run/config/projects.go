package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// The fields of a project in the file that hold secrets.
const (
	secretKeyField      = "secret_key"
	webhookSecretsField = "webhook_secrets"
)

// projectsFile is the setting that names the file of projects.
const projectsFile = "MIRROR_PROJECTS_FILE"

// Project holds the settings of one project. Those that are the same for all projects are
// those of the process.
type Project struct {
	Liveblocks `group:"Liveblocks"`
	Work       `group:"Work"`

	// file means that they are from the file of projects.
	file bool
}

// ID returns the project's id.
func (p Project) ID() mirror.ProjectID { return mirror.ProjectID(p.ProjectID) }

// Wrong says that a setting of the project cannot be used, and why. The setting is named
// by its environment variable.
func (p Project) Wrong(setting, problem string) error {
	names := map[string]string{
		"LIVEBLOCKS_SECRET_KEY": secretKeyField, "LIVEBLOCKS_WEBHOOK_SECRET": webhookSecretsField,
		"LIVEBLOCKS_BASE_URL": "base_url",
	}
	if p.file {
		setting = projectEntry{id: p.ProjectID}.name(names[setting])
	}
	return &Error{Setting: setting, Problem: problem}
}

// Projects returns the settings of each project, with the secrets: of those in the file
// that MIRROR_PROJECTS_FILE names, or of the one that the other settings are about.
func (s Serve) Projects() ([]Project, error) {
	if s.ProjectsFile == "" {
		if err := s.check(); err != nil {
			return nil, err
		}
		return []Project{{Liveblocks: s.Liveblocks, Work: s.Work}}, nil
	}
	for _, other := range []struct {
		name string
		set  bool
	}{
		{"LIVEBLOCKS_SECRET_KEY", s.SecretKey.Reveal() != ""},
		{"LIVEBLOCKS_WEBHOOK_SECRET", len(s.WebhookSecret) > 0},
		{"MIRROR_PROJECT_ID", s.ProjectID != DefaultProject},
	} {
		if other.set {
			return nil, wrong(other.name, "and %s are both set; name all projects in the file, or use no file", projectsFile)
		}
	}
	entries, err := readProjects(s.ProjectsFile)
	if err != nil {
		return nil, err
	}
	projects, keys := make([]Project, len(entries)), make(map[string]string)
	for i, e := range entries {
		if projects[i], err = s.project(e); err != nil {
			return nil, err
		}
		// Every dev server accepts the same key.
		key := projects[i].BaseURL + " " + projects[i].SecretKey.Reveal()
		if other, used := keys[key]; used {
			return nil, projects[i].Wrong("LIVEBLOCKS_SECRET_KEY",
				fmt.Sprintf("is that of project %q too; each project has its own", other))
		}
		keys[key] = e.id
	}
	return projects, nil
}

// ProjectIDs returns the ids of the projects in a file, without their secrets.
func ProjectIDs(path string) ([]mirror.ProjectID, error) {
	entries, err := readProjects(path)
	ids := make([]mirror.ProjectID, len(entries))
	for i, e := range entries {
		ids[i] = mirror.ProjectID(e.id)
	}
	return ids, err
}

// PerProject returns the name that a setting has in the file of projects; empty if it is
// the same for all projects.
func PerProject(flag *kong.Flag) string {
	if !flag.Tag.Has("perproject") {
		return ""
	}
	return strings.ReplaceAll(strings.TrimPrefix(flag.Name, "liveblocks-"), "-", "_")
}

// project applies an entry of the file to the settings of the process.
func (s Serve) project(e projectEntry) (Project, error) {
	p := Project{Liveblocks: s.Liveblocks, Work: s.Work, file: true}
	p.ProjectID = e.id
	var err error
	if p.SecretKey, err = e.key.read(e.name(secretKeyField)); err != nil {
		return p, err
	}
	for _, source := range e.webhook {
		secret, err := source.read(e.name(webhookSecretsField))
		if err != nil {
			return p, err
		}
		p.WebhookSecret = append(p.WebhookSecret, secret)
	}
	settings := make(map[string]*kong.Flag)
	for _, f := range flags(&p) {
		if name := PerProject(f); name != "" {
			settings[name] = f
		}
	}
	for _, given := range e.settings {
		f, ok := settings[given.name]
		if !ok {
			return p, wrong(projectsFile, "sets %s in project %q, which is not a setting of a project; see "+
				"docs/CONFIGURATION.md for those that are", shownName(given.name), e.id)
		}
		text, err := value(f, e.name(given.name), given.value)
		if err != nil {
			return p, err
		}
		if err := f.Parse(kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: text}), f.Target); err != nil {
			return p, wrong(e.name(given.name), "cannot be used: %v", err)
		}
	}
	if err := cmp.Or(p.check(), p.Validate()); err != nil {
		return p, wrong(projectsFile, "cannot be used for project %q: %v", e.id, err)
	}
	return p, nil
}

// projectEntry is one project of the file.
type projectEntry struct {
	id       string
	key      secretSource
	webhook  []secretSource
	settings []struct{ name, value string }
}

// name names something of the entry in errors.
func (e projectEntry) name(what string) string {
	return fmt.Sprintf("%s of project %q in %s", what, e.id, projectsFile)
}

// secretSource says where a secret is: in a variable of the environment or in a file.
type secretSource struct{ env, file string }

// read returns the secret. name is that of what is read, for errors.
func (s secretSource) read(name string) (Secret, error) {
	if s.env != "" {
		if text := os.Getenv(s.env); text != "" {
			return NewSecret(text), nil
		}
		return Secret{}, wrong(name, "is in the environment variable %s, which is not set", s.env)
	}
	b, err := os.ReadFile(s.file)
	if err != nil {
		return Secret{}, wrong(name, "is in the file %s, which cannot be read; it must be a file that this user may read",
			s.file)
	}
	text := strings.TrimRight(string(b), "\r\n")
	if text == "" {
		return Secret{}, wrong(name, "is in the file %s, which is empty", s.file)
	}
	return NewSecret(text), nil
}

// readProjects parses a file. No error quotes what may be a secret at the wrong place,
// which those of the decoder of YAML do: so it only makes nodes here.
func readProjects(path string) ([]projectEntry, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, wrong(projectsFile, "is %s, which cannot be read; it must be a file that this user may read", path)
	}
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(b))
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, wrong(projectsFile, "is %s, which is empty; it must begin with `projects:`", path)
	case err != nil:
		return nil, wrong(projectsFile, "is %s, which is not YAML%s", path, lineOf(err))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, wrong(projectsFile, "is %s, which has something behind the list of projects; it must hold one YAML "+
			"document", path)
	}
	p := projectsParser{dir: filepath.Dir(path)}
	if err := p.parse(doc.Content[0]); err != nil {
		return nil, err
	}
	return p.entries, nil
}

// lineNumber is where the parser of YAML found an error. The rest of its text may quote
// the file.
var lineNumber = regexp.MustCompile(`line \d+`)

func lineOf(err error) string {
	if at := lineNumber.FindString(err.Error()); at != "" {
		return " (" + at + ")"
	}
	return ""
}

// plainName are names that are no secrets.
var plainName = regexp.MustCompile(`^[a-z_]{1,40}$`)

// shownName quotes a name unless it may be a secret.
func shownName(name string) string {
	if plainName.MatchString(name) && !strings.HasPrefix(name, "sk_") && !strings.HasPrefix(name, "whsec_") {
		return name
	}
	return "a name of other characters than a-z and _"
}

// projectsParser makes entries of the nodes of a file.
type projectsParser struct {
	dir     string // of the file: relative paths in it begin there
	entries []projectEntry
}

func (p *projectsParser) wrong(at *yaml.Node, problem string, args ...any) error {
	return wrong(projectsFile, "is wrong in line %d: %s", at.Line, fmt.Sprintf(problem, args...))
}

// fields calls do for each member of a mapping.
func (p *projectsParser) fields(node *yaml.Node, what string, do func(name string, value *yaml.Node) error) error {
	if node.Kind != yaml.MappingNode {
		return p.wrong(node, "%s", what)
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(node.Content); i += 2 {
		name := node.Content[i].Value
		if seen[name] {
			return p.wrong(node.Content[i], "%s is there twice", shownName(name))
		}
		seen[name] = true
		if err := do(name, node.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (p *projectsParser) parse(root *yaml.Node) error {
	err := p.fields(root, "it must begin with `projects:` and a list", func(name string, value *yaml.Node) error {
		if name != "projects" {
			return p.wrong(value, "beside `projects` there is %s; there must be nothing else", shownName(name))
		}
		if value.Kind != yaml.SequenceNode {
			return p.wrong(value, "`projects` must be a list of projects, each with id, secret_key and webhook_secrets")
		}
		for _, node := range value.Content {
			if err := p.project(node); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && len(p.entries) == 0 {
		return p.wrong(root, "it names no project")
	}
	return err
}

func (p *projectsParser) project(node *yaml.Node) error {
	var e projectEntry
	err := p.fields(node, "a project must have id, secret_key and webhook_secrets", func(name string, v *yaml.Node) error {
		var err error
		switch name {
		case "id":
			if v.Kind != yaml.ScalarNode || !mirror.ValidProjectID(v.Value) {
				return p.wrong(v, "id must be 1 to 64 lower-case letters, digits and dashes")
			}
			e.id = v.Value
		case secretKeyField:
			e.key, err = p.secret(v, secretKeyField)
		case webhookSecretsField:
			if v.Kind != yaml.SequenceNode {
				return p.wrong(v, "webhook_secrets must be a list, such as [{env: NAME}]; a secret itself must not be in it")
			}
			for _, node := range v.Content {
				source, err := p.secret(node, webhookSecretsField)
				if err != nil {
					return err
				}
				e.webhook = append(e.webhook, source)
			}
		default:
			if v.Kind != yaml.ScalarNode {
				return p.wrong(v, "%s must be a single value", shownName(name))
			}
			e.settings = append(e.settings, struct{ name, value string }{name, v.Value})
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case e.id == "":
		return p.wrong(node, "the project has no id")
	case slices.ContainsFunc(p.entries, func(o projectEntry) bool { return o.id == e.id }):
		return p.wrong(node, "project %q is there twice", e.id)
	case e.key == secretSource{}:
		return p.wrong(node, "project %q has no secret_key", e.id)
	case len(e.webhook) == 0:
		return p.wrong(node, "project %q has no webhook_secrets", e.id)
	}
	p.entries = append(p.entries, e)
	return nil
}

// variable is the name of a variable of the environment. No secret looks like that.
var variable = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

// secret reads where a secret is.
func (p *projectsParser) secret(node *yaml.Node, name string) (s secretSource, err error) {
	form := "{env: NAME} with the name of an environment variable in capitals, or {file: PATH}"
	if node.Kind == yaml.ScalarNode {
		return s, p.wrong(node, "%s holds a secret itself; whoever reads the file would know it; write %s instead", name,
			form)
	}
	err = p.fields(node, name+" must be "+form, func(field string, v *yaml.Node) error {
		switch {
		case v.Kind != yaml.ScalarNode:
		case field == "env" && variable.MatchString(v.Value):
			s.env = v.Value
			return nil
		case field == "file" && v.Value != "" && !strings.HasPrefix(v.Value, "sk_") && !strings.HasPrefix(v.Value, "whsec_"):
			if s.file = v.Value; !filepath.IsAbs(s.file) {
				s.file = filepath.Join(p.dir, s.file)
			}
			return nil
		}
		return p.wrong(v, "%s must be %s; a secret itself must not be in it", name, form)
	})
	if err == nil && (s.env == "") == (s.file == "") {
		return s, p.wrong(node, "%s must be %s", name, form)
	}
	return s, err
}

// OneProject names one of the projects that the service has, to a command that works on the
// database alone.
type OneProject struct {
	ProjectsFile string `name:"projects-file" env:"MIRROR_PROJECTS_FILE" placeholder:"FILE" help:"The file of projects that the service has, if it has one."`
	ProjectID    string `name:"project-id" env:"MIRROR_PROJECT_ID" placeholder:"ID" help:"Local id of the project. Required with a file of projects, otherwise default unless it is set there."`
}

// ID returns the project. With a file it must be named: nothing is to happen to one that
// nobody meant.
func (o OneProject) ID() (mirror.ProjectID, error) {
	id := mirror.ProjectID(o.ProjectID)
	if o.ProjectsFile == "" {
		return cmp.Or(id, DefaultProject), nil
	}
	ids, err := ProjectIDs(o.ProjectsFile)
	if err != nil {
		return "", err
	}
	if !slices.Contains(ids, id) {
		return "", wrong("--project-id", "is %q; it must be one of those in "+projectsFile+": %s", id, list(ids))
	}
	return id, nil
}

func list(ids []mirror.ProjectID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return strings.Join(names, ", ")
}

// Configured says which projects the service is configured with, to a command that must
// not touch them.
type Configured struct {
	ProjectsFile string `name:"projects-file" env:"MIRROR_PROJECTS_FILE" placeholder:"FILE" help:"The file of projects that the service has."`
	ProjectID    string `name:"project-id" env:"MIRROR_PROJECT_ID" placeholder:"ID" help:"Local id of the service's project, if it has no file; default unless it is set there."`
}

// IDs returns the projects. One of the settings must be given: what is assumed wrongly to
// be removed would be lost.
func (c Configured) IDs() ([]mirror.ProjectID, error) {
	switch {
	case c.ProjectsFile != "":
		return ProjectIDs(c.ProjectsFile)
	case c.ProjectID != "":
		return []mirror.ProjectID{mirror.ProjectID(c.ProjectID)}, nil
	}
	return nil, wrong(projectsFile, "and MIRROR_PROJECT_ID are not set; set the one that the service has (its project is "+
		"`default` if it has none), so that it is known which projects are in use")
}
