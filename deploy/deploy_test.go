// Package deploy_test checks what is shipped beside the program.
package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// alert is a rule.
type alert struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) (list []alert) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []alert
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(read(t, "prometheus/alerts.yml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		list = append(list, g.Rules...)
	}
	if len(list) < 15 {
		t.Fatalf("alerts = %d; want all of them", len(list))
	}
	return list
}

// documented holds the names of the series of all documented metrics, and the labels of
// each.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	names := map[string][]string{}
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*) \\|")
	for _, m := range row.FindAllStringSubmatch(read(t, "../docs/METRICS.md"), -1) {
		labels := regexp.MustCompile("[a-z_]+").FindAllString(m[3], -1)
		if m[2] != "histogram" {
			names[m[1]] = labels
			continue
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			names[m[1]+suffix] = append(slices.Clone(labels), "le")
		}
	}
	if len(names) < 25 {
		t.Fatalf("documented metrics = %d; want all of them", len(names))
	}
	// Those of Go and of the process that are used here.
	for _, name := range []string{
		"go_goroutines", "go_memstats_heap_inuse_bytes", "process_cpu_seconds_total", "process_resident_memory_bytes",
	} {
		names[name] = nil
	}
	return names
}

var (
	metricName = regexp.MustCompile(`\b(?:mirror|grpc_server|go|process)_[a-z_]+\b`)
	selector   = regexp.MustCompile(`\b((?:mirror|grpc_server|go|process)_[a-z_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-z_]+)(?:=~|!~|!=|=)"`)
)

// exist checks that the metrics of a query exist, with the labels that it selects by.
func exist(t *testing.T, what, query string, names map[string][]string) {
	t.Helper()
	found := metricName.FindAllString(query, -1)
	if len(found) == 0 {
		t.Errorf("%s: %s asks for no metric", what, query)
	}
	for _, name := range found {
		if _, ok := names[name]; !ok {
			t.Errorf("%s: there is no metric %s", what, name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(query, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(names[s[1]], m[1]) {
				t.Errorf("%s: %s has no label %s", what, s[1], m[1])
			}
		}
	}
}

// Each alert is of metrics that exist, and leads to a paragraph that exists.
func TestAlertsLeadToParagraphs(t *testing.T) {
	t.Parallel()
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^#+ (.*)$").FindAllStringSubmatch(read(t, "../docs/OPERATIONS.md"), -1) {
		anchors[strings.ReplaceAll(strings.ToLower(strings.ReplaceAll(m[1], "`", "")), " ", "-")] = true
	}
	names := documented(t)
	const page = "https://github.com/liveblocks-mirror/liveblocks-mirror/blob/main/docs/OPERATIONS.md#"
	for _, a := range alerts(t) {
		exist(t, a.Alert, a.Expr, names)
		anchor, ok := strings.CutPrefix(a.Annotations["runbook_url"], page)
		if !ok || !anchors[anchor] {
			t.Errorf("%s leads to %q, which OPERATIONS.md does not have", a.Alert, a.Annotations["runbook_url"])
		}
		if !slices.Contains([]string{"critical", "warning"}, a.Labels["severity"]) || a.Annotations["summary"] == "" {
			t.Errorf("%s has the severity %q and the summary %q", a.Alert, a.Labels["severity"], a.Annotations["summary"])
		}
	}
}

// Each alert fires, as Prometheus' own tool finds.
func TestPromtoolSeesAlertsFire(t *testing.T) {
	t.Parallel()
	tests := read(t, "prometheus/alerts_test.yml")
	for _, a := range alerts(t) {
		fires := regexp.MustCompile(`alertname="` + a.Alert + `", alertstate="firing"\}\)', eval_time: \S+ exp_samples: \[\{`)
		if !fires.MatchString(tests) {
			t.Errorf("alerts_test.yml does not show that %s fires", a.Alert)
		}
	}
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out tests that need promtool")
	}
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not on the PATH; install it: apt-get install --no-install-recommends prometheus")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.CommandContext(t.Context(), tool, args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// Each query of the dashboard is of metrics that exist, and each metric is shown.
func TestDashboardShowsWhatExists(t *testing.T) {
	t.Parallel()
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct {
				Name  string
				Query json.RawMessage
			}
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/liveblocks-mirror.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	names, shown, ids := documented(t), "", map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Title == "" {
			t.Errorf("the panel %q shows nothing", p.Title)
		}
		for _, q := range p.Targets {
			exist(t, p.Title, q.Expr, names)
			shown += q.Expr + "\n"
		}
	}
	for _, v := range dashboard.Templating.List {
		if v.Name == "project" {
			exist(t, "project", string(v.Query), names)
		}
	}
	for name := range names {
		metric := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if !strings.Contains(shown, metric) {
			t.Errorf("the dashboard does not show %s", metric)
		}
	}
}
