{{/* The Deployment of one role. Takes (dict "root" $ "name" ROLE "role" VALUES-OF-THE-ROLE). */}}
{{- define "whisperx-consumer.deployment" -}}
{{- $root := .root }}
{{- $pod := dict "root" .root "name" .name "own" .role }}
{{- $grace := dig "worker" "grace_s" (dig "worker" "grace_s" 60 $root.Values.settings) .role.settings }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "whisperx-consumer.name" $root }}-{{ .name }}
  labels:
    {{- include "whisperx-consumer.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  replicas: {{ .role.replicas }}
  # Never one consumer more than asked for: it would take partitions for a minute, and a GPU that nobody has.
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}
  selector:
    matchLabels:
      {{- include "whisperx-consumer.selectorLabels" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .name }}
  template:
    metadata:
      labels:
        {{- include "whisperx-consumer.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .name }}
        {{- with $root.Values.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      annotations:
        checksum/settings: {{ include "whisperx-consumer.settings" $root.Values.settings | sha256sum }}
        {{- with $root.Values.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      {{- include "whisperx-consumer.podDefaults" $root | nindent 6 }}
      serviceAccountName: {{ include "whisperx-consumer.name" $root }}
      terminationGracePeriodSeconds: {{ add (ceil $grace | int) 30 }}
      {{- with .role.runtimeClassName }}
      runtimeClassName: {{ . | quote }}
      {{- end }}
      containers:
        - name: {{ .name }}
          {{- include "whisperx-consumer.containerDefaults" $root | nindent 10 }}
          args: [run, --roles, {{ .name }}]
          envFrom:
            - configMapRef: {name: {{ include "whisperx-consumer.name" $root }}}
          env:
            {{- include "whisperx-consumer.settingsEnv" .role.settings | nindent 12 }}
            {{- include "whisperx-consumer.commonEnv" $pod | nindent 12 }}
          ports:
            - {name: metrics, containerPort: {{ $root.Values.metrics.port }}}
          startupProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: {{ div (add $root.Values.probes.startupSeconds 4) 5 }}
          livenessProbe:
            httpGet: {path: /healthz, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: {{ div (add $root.Values.probes.livenessSeconds 9) 10 }}
          readinessProbe:
            httpGet: {path: /readyz, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 5
          resources:
            {{- toYaml .role.resources | nindent 12 }}
          volumeMounts:
            {{- include "whisperx-consumer.volumeMounts" $pod | nindent 12 }}
      volumes:
        {{- include "whisperx-consumer.volumes" $pod | nindent 8 }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "whisperx-consumer.selectorLabels" $root | nindent 14 }}
              app.kubernetes.io/component: {{ .name }}
      {{- with .role.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .role.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .role.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
