{{/* Short enough for the suffixes of other objects. */}}
{{- define "angzarr-relay.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
  {{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
  {{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
  {{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object of a component, given as `list . "relay"`. The component keeps pods of hooks out of the Service. */}}
{{- define "angzarr-relay.labels" -}}
{{- $root := index . 0 -}}
{{ include "angzarr-relay.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: angzarr
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "angzarr-relay.selectorLabels" -}}
{{ include "angzarr-relay.releaseLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of the pods of a component. The chart's version is not among them: a new one alone restarts nothing. */}}
{{- define "angzarr-relay.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "angzarr-relay.selectorLabels" . }}
app.kubernetes.io/part-of: angzarr
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with $root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What all pods of the release have. */}}
{{- define "angzarr-relay.releaseLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "angzarr-relay.serviceAccountName" -}}
{{- $own := ternary (include "angzarr-relay.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end -}}

{{/* The account of the tables Job: one of its own, or one that is there before the release is. */}}
{{- define "angzarr-relay.tables.serviceAccountName" -}}
{{- $account := .Values.createTables.serviceAccount -}}
{{- if or $account.create $account.name -}}
  {{- default (printf "%s-tables" (include "angzarr-relay.fullname" .)) $account.name -}}
{{- else if .Values.serviceAccount.create -}}
  {{- fail "createTables.serviceAccount: create it or name one that exists; the relay's own, serviceAccount, does not exist yet when the Job runs" -}}
{{- else -}}
  {{- include "angzarr-relay.serviceAccountName" . -}}
{{- end -}}
{{- end -}}

{{- define "angzarr-relay.image" -}}
{{- with .Values.image -}}
  {{- if .digest -}}
    {{- printf "%s@%s" .repository .digest -}}
  {{- else -}}
    {{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* The text of relay.toml. */}}
{{- define "angzarr-relay.config" -}}
# Rendered by Helm from values.config.
{{ include "angzarr-relay.toml" .Values.config | trim }}
{{ end -}}

{{- define "angzarr-relay.configMapName" -}}
{{- default (include "angzarr-relay.fullname" .) .Values.existingConfigMap -}}
{{- end -}}

{{/* The port of metrics and probes. */}}
{{- define "angzarr-relay.port" -}}
{{- $listen := "" -}}
{{- if not .Values.existingConfigMap -}}
  {{- $listen = dig "telemetry" "listen" "" .Values.config -}}
{{- end -}}
{{- default "9464" (regexFind "[0-9]+$" $listen) -}}
{{- end -}}

{{/* The port of the admin endpoint; empty while it is reached from the pod alone. */}}
{{- define "angzarr-relay.adminPort" -}}
{{- $listen := "" -}}
{{- if not .Values.existingConfigMap -}}
  {{- $listen = dig "telemetry" "admin_listen" "" .Values.config -}}
{{- end -}}
{{- if not (regexMatch "^(127\\.|\\[::1\\])" $listen) -}}
  {{- regexFind "[0-9]+$" $listen -}}
{{- end -}}
{{- end -}}

{{/* A duration of the relay, such as 1m 30s, in seconds. */}}
{{- define "angzarr-relay.seconds" -}}
{{- $units := dict "ms" 0.001 "msec" 0.001 "millis" 0.001 "s" 1 "sec" 1 "secs" 1 "second" 1 "seconds" 1
    "m" 60 "min" 60 "mins" 60 "minute" 60 "minutes" 60 "h" 3600 "hr" 3600 "hrs" 3600 "hour" 3600 "hours" 3600 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9]+ *[a-z]+" . -1 -}}
  {{- $unit := regexFind "[a-z]+$" . -}}
  {{- if not (hasKey $units $unit) -}}
    {{- fail (printf "config.relay.shutdown_grace: %q is no unit of time; write it as 20s or 1m" $unit) -}}
  {{- end -}}
  {{- $sum = addf $sum (mulf (regexFind "^[0-9]+" . | float64) (get $units $unit | float64)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{- define "angzarr-relay.shutdownGrace" -}}
{{- $grace := "20s" -}}
{{- if not .Values.existingConfigMap -}}
  {{- $grace = dig "relay" "shutdown_grace" "20s" .Values.config -}}
{{- end -}}
{{- include "angzarr-relay.seconds" $grace -}}
{{- end -}}

{{- define "angzarr-relay.terminationGracePeriodSeconds" -}}
{{- $grace := include "angzarr-relay.shutdownGrace" . | float64 -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
  {{- add (ceil $grace | int) 10 -}}
{{- else -}}
  {{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end -}}

{{/* Whether something else than the Deployment decides how many pods there are. */}}
{{- define "angzarr-relay.scaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled -}}true{{- end -}}
{{- end -}}

{{/* What the relay, the tables Job and the test run with alike. */}}
{{- define "angzarr-relay.container" -}}
image: {{ include "angzarr-relay.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
env:
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  {{- with .Values.logging.level }}
  - name: ANGZARR_RELAY__TELEMETRY__LOG_LEVEL
    value: {{ . | quote }}
  {{- end }}
  {{- with .Values.logging.format }}
  - name: ANGZARR_RELAY__TELEMETRY__LOG_FORMAT
    value: {{ . | quote }}
  {{- end }}
  {{- with .Values.observability.otlp.endpoint }}
  - name: OTEL_EXPORTER_OTLP_ENDPOINT
    value: {{ . | quote }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What all pods have alike. */}}
{{- define "angzarr-relay.pod" -}}
automountServiceAccountToken: false
# The variables of services, such as ANGZARR_RELAY_PORT, mean nothing to the relay.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Annotations of a hook, given as `list EVENTS WEIGHT DELETE-POLICY`. */}}
{{- define "angzarr-relay.hook" -}}
helm.sh/hook: {{ index . 0 }}
helm.sh/hook-weight: {{ index . 1 | quote }}
helm.sh/hook-delete-policy: {{ index . 2 }}
{{- end -}}

{{/* The text of a file of the chart, given as `list . PATH`. */}}
{{- define "angzarr-relay.file" -}}
{{- $text := (index . 0).Files.Get (index . 1) -}}
{{- required (printf "the chart lacks %s" (index . 1)) $text -}}
{{- end -}}
