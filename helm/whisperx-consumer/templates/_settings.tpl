{{/* Settings {group: {name: value}} as a YAML map of environment variables. Numbers by toJson: 500000000, not 5e+08. */}}
{{- define "whisperx-consumer.settings" -}}
{{- range $group, $settings := . }}
{{- range $name, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
WHISPERX_{{ upper $group }}__{{ upper $name }}: {{ (kindIs "string" $value | ternary $value (toJson $value)) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Settings as a list of environment variables. */}}
{{- define "whisperx-consumer.settingsEnv" -}}
{{- range $name, $value := (include "whisperx-consumer.settings" . | fromYaml) }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* What every pod has besides its settings: secrets by reference, and what the user adds. Takes (dict "root" $ "name"
     NAME "own" VALUES): the pod's own secretEnv wins over that of all, of which a pod gets what it has a use for. The
     key of the store's encryption goes to all: without it the settings that they share would be refused. */}}
{{- define "whisperx-consumer.commonEnv" -}}
{{- $own := .own.secretEnv | default dict }}
{{- $common := deepCopy .root.Values.secretEnv }}
{{- if has .name (list "intake" "create-topics") }}
{{- $common = omit $common "WHISPERX_STORE__ACCESS_KEY" "WHISPERX_STORE__SECRET_KEY" "WHISPERX_STORE__SESSION_TOKEN" }}
{{- end }}
{{- if not (has .name (list "plan" "transcribe" "assemble")) }}
{{- $common = omit $common "WHISPERX_MODELS__HUB_TOKEN" }}
{{- end }}
{{- if eq .name "create-topics" }}
{{- $common = omit $common "WHISPERX_REGISTRY__PASSWORD" "WHISPERX_SENTRY__DSN" }}
{{- end }}
{{- with .root }}
- name: WHISPERX_SERVER__PORT
  value: {{ .Values.metrics.port | quote }}
{{- range $variable, $source := merge (deepCopy $own) $common }}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef: {name: {{ $source.name | quote }}, key: {{ $source.key | quote }}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}
