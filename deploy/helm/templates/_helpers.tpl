{{- define "mirror.name" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) }}
{{- /* As a Service may be called: with no dots, and no longer. */}}
{{- $name | replace "." "-" | trunc 63 | trimAll "-" }}
{{- end }}

{{- define "mirror.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mirror.labels" -}}
{{ include "mirror.selector" . }}
app.kubernetes.io/version: {{ include "mirror.label" (.Values.image.tag | default .Chart.AppVersion) }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ include "mirror.label" (printf "%s-%s" .Chart.Name .Chart.Version) }}
{{- end }}

{{- /* A text as what a label may be: a tag can be longer, or have a digest in it. */}}
{{- define "mirror.label" -}}
{{ regexReplaceAll "[^A-Za-z0-9._-]" . "_" | trunc 63 | trimAll "._-" | quote }}
{{- end }}

{{- define "mirror.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "mirror.security" -}}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  privileged: false
  readOnlyRootFilesystem: true
{{- end }}

{{- /* The settings of the service that are not from other values: their names and texts. */}}
{{- define "mirror.settings" -}}
{{- $settings := dict }}
{{- range .Values.secret.settings }}
{{- $_ := set $settings (printf "%s_FILE" .) (printf "/etc/liveblocks-mirror/secret/%s" .) }}
{{- end }}
{{- range $name, $key := .Values.secret.files }}
{{- $_ := set $settings $name (printf "/etc/liveblocks-mirror/secret/%s" $key) }}
{{- end }}
{{- range $name, $value := .Values.env }}
{{- /* A number of a file of values is a float64, which would be printed with an exponent. */}}
{{- $_ := set $settings $name (kindIs "float64" $value | ternary (toJson $value) (toString $value)) }}
{{- end }}
{{- if hasKey $settings "MIRROR_PROJECTS_FILE" }}
{{- /* It takes the place of these two, which are in values.yaml. */}}
{{- $settings = omit $settings "LIVEBLOCKS_SECRET_KEY_FILE" "LIVEBLOCKS_WEBHOOK_SECRET_FILE" }}
{{- end }}
{{- toYaml $settings }}
{{- end }}

{{- /* The same for migrate, with the URL of the owner of the tables if there is one. */}}
{{- define "mirror.migrateSettings" -}}
{{- $settings := include "mirror.settings" . | fromYaml }}
{{- with .Values.migrate.databaseURLKey }}
{{- $_ := unset $settings "DATABASE_DIRECT_URL_FILE" }}
{{- $_ := set $settings "DATABASE_URL_FILE" (printf "/etc/liveblocks-mirror/secret/%s" .) }}
{{- end }}
{{- merge $settings (dict "MIRROR_DATABASE_WAIT" "1m") | toYaml }}
{{- end }}
