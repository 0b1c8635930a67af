{{/* What the pods of roles and jobs have in common. */}}
{{- define "whisperx-consumer.podDefaults" -}}
automountServiceAccountToken: false
# Variables that Kubernetes makes for a Service called whisperx-... would look like settings.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "whisperx-consumer.containerDefaults" -}}
image: {{ include "whisperx-consumer.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Takes (dict "root" $ "own" VALUES), as the volumes do: the pod's own certificates win over those of all. */}}
{{- define "whisperx-consumer.volumeMounts" -}}
{{- $certificates := .own.certificatesSecret | default .root.Values.certificates.secret }}
{{- with .root }}
- {name: cache, mountPath: /var/cache/whisperx}
- {name: tmp, mountPath: /tmp}
{{- if or .Values.models.existingClaim .Values.models.hostPath }}
- {name: models, mountPath: {{ .Values.models.mountPath | quote }}, readOnly: true}
{{- end }}
{{- if $certificates }}
- {name: certificates, mountPath: {{ .Values.certificates.mountPath | quote }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "whisperx-consumer.volumes" -}}
{{- $certificates := .own.certificatesSecret | default .root.Values.certificates.secret }}
{{- with .root }}
- name: cache
  emptyDir: {sizeLimit: {{ .Values.cache.sizeLimit | quote }}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- if .Values.models.existingClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.models.existingClaim | quote }}, readOnly: true}
{{- else if .Values.models.hostPath }}
- name: models
  hostPath: {path: {{ .Values.models.hostPath | quote }}, type: Directory}
{{- end }}
{{- if $certificates }}
- name: certificates
  secret: {secretName: {{ $certificates | quote }}, defaultMode: 288}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}
