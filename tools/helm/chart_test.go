// Package helm checks the chart with Helm's own library and the types of Kubernetes. It is a
// module of its own, so that theirs never become requirements of the service.
package helm

import (
	"bytes"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chartDir = "../../deploy/helm"

// everything switches on all that the chart can make.
const everything = `
replicas: 2
secret:
  name: mirror
  settings: [DATABASE_URL, DATABASE_DIRECT_URL]
  files: {MIRROR_PROJECTS_FILE: projects.yaml, MIRROR_KEYS_FILE: keys.yaml}
env:
  MIRROR_DATABASE_SCHEMA: liveblocks
  MIRROR_DATABASE_POOLED: true
  MIRROR_OWNER_ROLE: owner
  MIRROR_WORKERS: 4
  MIRROR_ACK: synced
migrate: {databaseURLKey: OWNER_URL}
imagePullSecrets: [{name: registry}]
tls: {secretName: mirror-tls}
stop: {delay: 15, grace: 60}
serviceMonitor:
  enabled: true
  labels: {release: prometheus}
  authorization: {secretName: mirror, key: metrics-key}
prometheusRule: {enabled: true, labels: {release: prometheus}}
podDisruptionBudget: {enabled: true}
networkPolicy:
  enabled: true
  from:
    webhook: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]
podLabels: {team: docs}
podAnnotations: {note: x}
nodeSelector: {disk: ssd}
tolerations: [{key: a, operator: Exists}]
affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: []}}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
`

const least = `secret: {name: mirror}`

// TestMain leaves out what Helm prints for each link that it follows.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	m.Run()
}

func values(t *testing.T, text string) map[string]any {
	t.Helper()
	parsed, err := chartutil.ReadValues([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// manifests renders the chart as a release: the text of each file by its name.
func manifests(t *testing.T, release, text string) map[string]string {
	t.Helper()
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(chart, values(t, text), chartutil.ReleaseOptions{
		Name: release, Namespace: "docs", IsInstall: true,
	}, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	files, err := engine.Render(chart, all)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]string{}
	for name, manifest := range files {
		named[filepath.Base(name)] = manifest
	}
	return named
}

// render renders the chart, and decodes each manifest into its type. A misspelt or misplaced
// field is an error.
func render(t *testing.T, release, text string) map[string]any {
	t.Helper()
	objects := map[string]any{}
	for name, manifest := range manifests(t, release, text) {
		if filepath.Ext(name) != ".yaml" || strings.TrimSpace(manifest) == "" {
			continue
		}
		var kind struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(manifest), &kind); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, manifest)
		}
		into, ok := map[string]any{
			"apps/v1 Deployment":                      new(apps.Deployment),
			"v1 Service":                              new(core.Service),
			"policy/v1 PodDisruptionBudget":           new(policy.PodDisruptionBudget),
			"networking.k8s.io/v1 NetworkPolicy":      new(networking.NetworkPolicy),
			"monitoring.coreos.com/v1 ServiceMonitor": new(monitoring.ServiceMonitor),
			"monitoring.coreos.com/v1 PrometheusRule": new(monitoring.PrometheusRule),
		}[kind.APIVersion+" "+kind.Kind]
		if !ok {
			t.Fatalf("%s is a %s of %s, which nobody expects", name, kind.Kind, kind.APIVersion)
		}
		if err := yaml.UnmarshalStrict([]byte(manifest), into, yaml.DisallowUnknownFields); err != nil {
			t.Errorf("%s: %v\n%s", name, err, manifest)
		}
		objects[kind.Kind] = into
	}
	return objects
}

// Helm finds nothing to complain of.
func TestLint(t *testing.T) {
	for name, text := range map[string]string{"least": least, "everything": everything} {
		result := lint.AllWithKubeVersion(chartDir, values(t, text), "docs", nil)
		for _, m := range result.Messages {
			if m.Severity >= support.WarningSev {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}

// The manifests are those that Kubernetes takes, and hold what was asked for.
func TestRender(t *testing.T) {
	if got := slices.Sorted(maps.Keys(render(t, "mine", least))); !slices.Equal(got, []string{"Deployment", "Service"}) {
		t.Errorf("the least makes %q", got)
	}
	objects := render(t, "mine", everything)
	if len(objects) != 6 {
		t.Errorf("everything makes %q", slices.Sorted(maps.Keys(objects)))
	}
	for name, text := range map[string]string{"least": least, "everything": everything} {
		objects := render(t, "mine", text)
		deployment := objects["Deployment"].(*apps.Deployment)
		service := objects["Service"].(*core.Service)
		pod := deployment.Spec.Template
		for key, value := range service.Spec.Selector {
			if pod.Labels[key] != value || deployment.Spec.Selector.MatchLabels[key] != value {
				t.Errorf("%s: the pods have not the label %s=%s that the service selects", name, key, value)
			}
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			confined(t, name+" "+c.Name, pod.Spec, c)
			mounted(t, name+" "+c.Name, pod.Spec, c)
			settings(t, name+" "+c.Name, c)
		}
		ports := map[string]int32{}
		for _, p := range pod.Spec.Containers[0].Ports {
			ports[p.Name] = p.ContainerPort
		}
		for _, p := range service.Spec.Ports {
			if ports[p.TargetPort.StrVal] == 0 {
				t.Errorf("%s: no container has the port %s", name, p.TargetPort.StrVal)
			}
		}
		main := pod.Spec.Containers[0]
		for what, probe := range map[string]*core.Probe{
			"/readyz": main.ReadinessProbe, "/healthz": main.LivenessProbe,
		} {
			if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != what || ports[probe.HTTPGet.Port.StrVal] == 0 {
				t.Errorf("%s: a probe is %v; want one of %s", name, probe, what)
			}
		}
		if main.Resources.Limits.Memory().IsZero() || main.Resources.Requests.Cpu().IsZero() {
			t.Errorf("%s: resources are %v; want requests and a limit of memory", name, main.Resources)
		}
	}

	// The alerts are those of deploy/prometheus, and Prometheus finds the service.
	rules := objects["PrometheusRule"].(*monitoring.PrometheusRule)
	var alerts struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	text, err := os.ReadFile("../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &alerts); err != nil {
		t.Fatal(err)
	}
	if len(rules.Spec.Groups) != 1 || len(rules.Spec.Groups[0].Rules) != len(alerts.Groups[0].Rules) ||
		!bytes.Contains(text, []byte(rules.Spec.Groups[0].Rules[0].Annotations["summary"])) {
		t.Errorf("the rules are %v; want those of alerts.yml", rules.Spec.Groups)
	}
	monitor := objects["ServiceMonitor"].(*monitoring.ServiceMonitor)
	if e := monitor.Spec.Endpoints[0]; e.Port != "metrics" || e.Authorization.Credentials.Key != "metrics-key" ||
		*e.Scheme != "https" {
		t.Errorf("the monitor is of %+v", e)
	}
	for key, value := range monitor.Spec.Selector.MatchLabels {
		if objects["Service"].(*core.Service).Labels[key] != value {
			t.Errorf("the monitor selects %s=%s, which the service lacks", key, value)
		}
	}
	if rules := objects["NetworkPolicy"].(*networking.NetworkPolicy).Spec.Ingress; len(rules) != 1 ||
		rules[0].Ports[0].Port.StrVal != "webhook" {
		t.Errorf("the policy lets in %v; want the webhook port only", rules)
	}
}

// confined checks that a container may do as little as the systemd unit lets the service do.
func confined(t *testing.T, name string, pod core.PodSpec, c core.Container) {
	t.Helper()
	s, p := c.SecurityContext, pod.SecurityContext
	yes := func(b *bool) bool { return b != nil && *b }
	no := func(b *bool) bool { return b != nil && !*b }
	if s == nil || p == nil || !no(s.AllowPrivilegeEscalation) || !no(s.Privileged) || !yes(s.ReadOnlyRootFilesystem) ||
		s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || !yes(p.RunAsNonRoot) ||
		p.SeccompProfile == nil || p.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault ||
		!no(pod.AutomountServiceAccountToken) || !no(pod.EnableServiceLinks) {
		t.Errorf("%s may do more than it needs: %+v, %+v", name, s, p)
	}
}

// mounted checks that there is a volume for each mount, and a mount for each file that a
// setting names.
func mounted(t *testing.T, name string, pod core.PodSpec, c core.Container) {
	t.Helper()
	for _, m := range c.VolumeMounts {
		if !m.ReadOnly || !slices.ContainsFunc(pod.Volumes, func(v core.Volume) bool { return v.Name == m.Name }) {
			t.Errorf("%s mounts %+v; want a volume of the pod, to read", name, m)
		}
	}
	for _, e := range c.Env {
		if strings.HasPrefix(e.Value, "/") && !slices.ContainsFunc(c.VolumeMounts, func(m core.VolumeMount) bool {
			return strings.HasPrefix(e.Value, m.MountPath+"/")
		}) {
			t.Errorf("%s: %s is %s, where nothing is mounted", name, e.Name, e.Value)
		}
	}
}

// settings checks that each variable is a setting of the service, once.
func settings(t *testing.T, name string, c core.Container) {
	t.Helper()
	text, err := os.ReadFile("../../docs/CONFIGURATION.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllSubmatch(text, -1) {
		known[string(m[1])], known[string(m[1])+"_FILE"] = true, true
	}
	if len(known) < 60 {
		t.Fatalf("docs/CONFIGURATION.md has %d settings; want all of them", len(known)/2)
	}
	seen := map[string]bool{}
	for _, e := range c.Env {
		if !known[e.Name] || seen[e.Name] {
			t.Errorf("%s: %s is no setting of the service, or is given twice", name, e.Name)
		}
		seen[e.Name] = true
		secret := regexp.MustCompile(`(SECRET|SECRET_KEY|TOKEN|DATABASE_URL)$`).MatchString(e.Name)
		if e.ValueFrom != nil || secret {
			t.Errorf("%s: %s is in the environment; want secrets as files", name, e.Name)
		}
	}
}

// pod returns what the Deployment runs.
func pod(t *testing.T, text string) core.PodSpec {
	t.Helper()
	return render(t, "mine", text)["Deployment"].(*apps.Deployment).Spec.Template.Spec
}

// variables returns the environment of a container.
func variables(c core.Container) map[string]string {
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
	}
	return env
}

// Values that cannot be right are refused before anything is installed.
func TestValuesAreChecked(t *testing.T) {
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"{}":                                              "name",
		"secret: {name: m}\nreplica: 2":                   "replica",
		"secret: {name: m}\nreplicas: -1":                 "replicas",
		"secret: {name: m}\nenv: {WORKERS: 4}":            "WORKERS",
		"secret: {name: m, settings: [database_url]}":     "settings",
		"secret: {name: m}\nservice: {ports: {http: 80}}": "http",
		"secret: {name: m}\nstop: {delay: -1}":            "delay",
		"secret: {name: m}\nimage: {pullPolicy: always}":  "pullPolicy",
	} {
		_, err := chartutil.ToRenderValues(chart, values(t, text), chartutil.ReleaseOptions{Name: "m"},
			chartutil.DefaultCapabilities)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q = %v; want an error about %s", text, err, want)
		}
	}
}

// Each value is described, and the schema knows it.
func TestValuesAreDescribed(t *testing.T) {
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := yaml.Unmarshal(chart.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	for name := range chart.Values {
		if _, ok := schema["properties"].(map[string]any)[name]; !ok {
			t.Errorf("the schema lacks %s", name)
		}
	}
	for name := range values(t, everything) {
		if _, ok := chart.Values[name]; !ok {
			t.Errorf("values.yaml lacks %s", name)
		}
		if reflect.DeepEqual(values(t, everything)[name], chart.Values[name]) {
			t.Errorf("%s is tried only with its default", name)
		}
	}
}

// The first container migrates with the settings with which the service uses the database: through
// no pooler if there is a direct URL, and into the same schema.
func TestMigrateUsesTheSameDatabase(t *testing.T) {
	const text = `
secret: {name: m, settings: [DATABASE_URL, DATABASE_DIRECT_URL, LIVEBLOCKS_SECRET_KEY]}
env:
  MIRROR_DATABASE_SCHEMA: liveblocks
  MIRROR_DATABASE_POOLED: true
  MIRROR_DATABASE_WAIT: 5m
  MIRROR_READ_TIMEOUT: 20s
  MIRROR_OWNER_ROLE: owner
  MIRROR_SERVICE_ROLE: service
  MIRROR_READER_ROLE: reader
  MIRROR_LOG_LEVEL: debug
`
	spec := pod(t, text)
	migrate, serve := variables(spec.InitContainers[0]), variables(spec.Containers[0])
	shared := 0
	for name, value := range serve {
		if regexp.MustCompile(`^(DATABASE_|MIRROR_(DATABASE|READ|LOG)_|MIRROR_[A-Z]+_ROLE)`).MatchString(name) {
			shared++
			if migrate[name] != value {
				t.Errorf("migrate has %s=%q; the service has %q", name, migrate[name], value)
			}
		}
	}
	if shared != 11 {
		t.Errorf("the service has %d settings of the database and the log; want 11: %v", shared, serve)
	}

	// The owner's URL is instead of both, and leads to the database itself.
	migrate = variables(pod(t, text+"migrate: {databaseURLKey: OWNER_URL}").InitContainers[0])
	if got := migrate["DATABASE_URL_FILE"]; got != "/etc/liveblocks-mirror/secret/OWNER_URL" {
		t.Errorf("migrate uses %s; want the owner's URL", got)
	}
	if direct, ok := migrate["DATABASE_DIRECT_URL_FILE"]; ok {
		t.Errorf("migrate would use %s instead of the owner's URL", direct)
	}

	// It waits for a database that starts at the same time.
	if got := variables(pod(t, least).InitContainers[0])["MIRROR_DATABASE_WAIT"]; got != "1m" {
		t.Errorf("migrate waits %q for the database; want 1m", got)
	}
}

// A number reaches the service as it was written.
func TestNumbersOfTheEnvironment(t *testing.T) {
	env := variables(pod(t, `
secret: {name: m}
env:
  MIRROR_MAX_DATA: 16777216
  MIRROR_LIVEBLOCKS_HEDGE_SHARE: 0.05
  MIRROR_WORKERS: 4
  MIRROR_TRACE_IDS: true
  MIRROR_SWEEP_INTERVAL: 0s
  MIRROR_PROJECT_ID: "16777216"
`).Containers[0])
	for name, want := range map[string]string{
		"MIRROR_MAX_DATA": "16777216", "MIRROR_LIVEBLOCKS_HEDGE_SHARE": "0.05", "MIRROR_WORKERS": "4",
		"MIRROR_TRACE_IDS": "true", "MIRROR_SWEEP_INTERVAL": "0s", "MIRROR_PROJECT_ID": "16777216",
	} {
		if env[name] != want {
			t.Errorf("%s is %q; want %q", name, env[name], want)
		}
	}
}

// Settings that have a place of their own are refused in others: what the chart sets by its other
// values everywhere, and secrets but in the list of those.
func TestSettingsHaveOnePlace(t *testing.T) {
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/CONFIGURATION.md")
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name, text string) {
		_, err := chartutil.ToRenderValues(chart, values(t, text), chartutil.ReleaseOptions{Name: "m"},
			chartutil.DefaultCapabilities)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s = %v; want an error about %s", text, err, name)
		}
	}
	secrets := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|.*\\*Secret\\.\\*").FindAllSubmatch(text, -1)
	if len(secrets) < 7 {
		t.Fatalf("docs/CONFIGURATION.md has the secrets %q; want all of them", secrets)
	}
	for _, m := range secrets {
		name := string(m[1])
		refused(name, "secret: {name: m}\nenv: {"+name+": x}")
		refused(name, "secret: {name: m, files: {"+name+": x}}")
		pod(t, "secret: {name: m, settings: ["+name+"]}")
	}
	const bare = "secret: {name: m, settings: []}\nenv: {MIRROR_LOG_FORMAT: null}\n"
	own := variables(pod(t, bare).Containers[0])
	maps.Copy(own, variables(pod(t, bare+"tls: {secretName: t}").Containers[0]))
	if len(own) < 8 {
		t.Fatalf("the chart sets %v; want addresses, certificates or that there are none, and the grace", own)
	}
	for name := range own {
		refused(name, "secret: {name: m}\nenv: {"+name+": x}")
		refused(name, "secret: {name: m, files: {"+name+": x}}")
		refused("/secret/settings", "secret: {name: m, settings: ["+name+"]}")
	}
}

// A pod that stops goes on serving until nothing sends to it any more, then finishes its work, and is
// not killed meanwhile.
func TestStop(t *testing.T) {
	for _, c := range []struct {
		text         string
		delay, whole int64
		grace        string
	}{
		{least, 10, 40, "20s"},
		{least + "\nstop: {grace: 60}", 10, 80, "60s"},
		{least + "\nstop: {delay: 0}", 0, 30, "20s"},
	} {
		spec := pod(t, c.text)
		main, delay := spec.Containers[0], int64(0)
		if main.Lifecycle != nil {
			delay = main.Lifecycle.PreStop.Sleep.Seconds
		}
		if delay != c.delay || *spec.TerminationGracePeriodSeconds != c.whole ||
			variables(main)["MIRROR_STOP_GRACE"] != c.grace {
			t.Errorf("%q: stops after %d s with MIRROR_STOP_GRACE=%s, and is killed after %d s; want %d s, %s, %d s",
				c.text, delay, variables(main)["MIRROR_STOP_GRACE"], *spec.TerminationGracePeriodSeconds,
				c.delay, c.grace, c.whole)
		}
	}
}

// A file of projects takes the place of the settings of one project: with both the service does not
// start.
func TestProjectsFile(t *testing.T) {
	for name, text := range map[string]string{
		"from the Secret":      "secret: {name: m, files: {MIRROR_PROJECTS_FILE: projects.yaml}}",
		"from the environment": "secret: {name: m}\nenv: {MIRROR_PROJECTS_FILE: /etc/projects.yaml}",
		"named in the list": "secret: {name: m, settings: [DATABASE_URL, LIVEBLOCKS_SECRET_KEY], " +
			"files: {MIRROR_PROJECTS_FILE: p}}",
	} {
		env := variables(pod(t, text).Containers[0])
		if env["DATABASE_URL_FILE"] == "" || env["MIRROR_PROJECTS_FILE"] == "" {
			t.Errorf("%s: the service has %v; want the database and the file of projects", name, env)
		}
		for _, other := range []string{"LIVEBLOCKS_SECRET_KEY_FILE", "LIVEBLOCKS_WEBHOOK_SECRET_FILE"} {
			if _, ok := env[other]; ok {
				t.Errorf("%s: the service has %s too, and would not start", name, other)
			}
		}
	}
}

// Names and labels are what Kubernetes takes, however long the names of the release and the image are.
func TestLongNames(t *testing.T) {
	label := regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	name := regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	for release, tag := range map[string]string{
		strings.Repeat("r", 53):                  strings.Repeat("1", 128),
		strings.Repeat("r", 51):                  "_1.2.3-" + strings.Repeat("x", 55) + "..",
		strings.Repeat("a-liveblocks-mirror", 2): "1.2.3@sha256:" + strings.Repeat("0", 64),
		"r":                                      "latest",
		"docs.prod":                              "1.2.3",
	} {
		text := everything + "image: {tag: \"" + tag + "\"}\n"
		for kind, object := range render(t, release, text) {
			meta := object.(interface {
				GetName() string
				GetLabels() map[string]string
			})
			if !name.MatchString(meta.GetName()) {
				t.Errorf("%s of %s is called %s", kind, release, meta.GetName())
			}
			for key, value := range meta.GetLabels() {
				if !label.MatchString(value) {
					t.Errorf("%s of %s with the tag %s has the label %s=%s", kind, release, tag, key, value)
				}
			}
		}
	}
}

// Prometheus believes the certificate of the service by the authority in its Secret, or by that of
// another one, or by those that it knows.
func TestMonitorKnowsTheAuthority(t *testing.T) {
	const text = least + "\nserviceMonitor: {enabled: true, authorization: {secretName: m, key: k}}\n"
	for values, want := range map[string]*core.SecretKeySelector{
		"{secretName: t}":                  {LocalObjectReference: core.LocalObjectReference{Name: "t"}, Key: "ca.crt"},
		"{secretName: t, caKey: root.pem}": {LocalObjectReference: core.LocalObjectReference{Name: "t"}, Key: "root.pem"},
		"{secretName: t, caKey: \"\"}":     nil,
	} {
		monitor := render(t, "mine", text+"tls: "+values)["ServiceMonitor"].(*monitoring.ServiceMonitor)
		if got := monitor.Spec.Endpoints[0].TLSConfig.CA.Secret; !reflect.DeepEqual(got, want) {
			t.Errorf("tls: %s: the authority is %v; want %v", values, got, want)
		}
	}
}

// The notes print a command that works: to the right port, with TLS if the service has it, and with a
// credential.
func TestNotes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"least": {least, "-c mirror -- /liveblocks-mirror status --server 127.0.0.1:9090\n"},
		"other port": {
			least + "\nservice: {ports: {grpc: 9999}}", "-c mirror -- /liveblocks-mirror status --server 127.0.0.1:9999\n",
		},
		"TLS": {
			least + "\ntls: {secretName: t}",
			"--server https://mine-liveblocks-mirror.docs.svc:9090 --server-ca /etc/liveblocks-mirror/tls/ca.crt\n",
		},
		"public certificate": {
			least + "\ntls: {secretName: t, caKey: \"\"}", "--server https://mine-liveblocks-mirror.docs.svc:9090\n",
		},
		"keys only": {
			"secret: {name: m, settings: [DATABASE_URL], files: {MIRROR_KEYS_FILE: keys.yaml}}",
			"--server 127.0.0.1:9090 --api-token TOKEN\n",
		},
	} {
		notes := manifests(t, "mine", c.text)["NOTES.txt"]
		if !strings.Contains(notes+"\n", c.want) {
			t.Errorf("%s: the notes are\n%s\nwant %s", name, notes, c.want)
		}
	}
}
