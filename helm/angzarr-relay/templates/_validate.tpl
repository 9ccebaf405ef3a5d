{{/* What values.schema.json cannot say: what goes together, and what does not. */}}
{{- define "angzarr-relay.validate" -}}
{{- $handlers := .Values.config.handlers -}}
{{- if and .Values.existingConfigMap $handlers -}}
  {{- fail "existingConfigMap: config.handlers is set as well, and would not be read; give one of them" -}}
{{- else if not (or .Values.existingConfigMap $handlers) -}}
  {{- fail "config.handlers: there is none, and a relay without handlers does nothing; name who receives which events, such as { name: orders-stream, subscribe: [{ domain: orders }], kinesis: { stream: angzarr-orders } }" -}}
{{- end -}}

{{- range $index, $handler := $handlers -}}
  {{- $receivers := list -}}
  {{- range $receiver := list "kinesis" "http" "jsonl" -}}
    {{- if hasKey $handler $receiver -}}{{- $receivers = append $receivers $receiver -}}{{- end -}}
  {{- end -}}
  {{- if gt (len $receivers) 1 -}}
    {{- fail (printf "config.handlers[%d] (%s): found %s, expected exactly one of kinesis, http, jsonl" $index $handler.name (join " and " $receivers)) -}}
  {{- end -}}
  {{- range $header, $value := dig "http" "headers" dict $handler -}}
    {{- if and (kindIs "string" $value) (has (lower $header) (list "authorization" "proxy-authorization" "cookie" "x-api-key")) -}}
      {{- fail (printf "config.handlers[%d].http.headers.%s: a ConfigMap is no place for a secret; give { env: NAME } with extraEnv, or { file: /path } with extraVolumes" $index $header) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if kindIs "string" (dig "telemetry" "admin_token" nil .Values.config) -}}
  {{- fail "config.telemetry.admin_token: a ConfigMap is no place for a secret; give { env: NAME } with extraEnv, or { file: /path } with extraVolumes" -}}
{{- end -}}

{{- $listen := dig "telemetry" "listen" "" .Values.config -}}
{{- if regexMatch "^(127\\.|\\[::1\\])|:0$" $listen -}}
  {{- fail (printf "config.telemetry.listen: %s cannot be reached by probes and Prometheus; give an address such as 0.0.0.0:9464" $listen) -}}
{{- end -}}

{{- $grace := include "angzarr-relay.shutdownGrace" . | float64 -}}
{{- $period := include "angzarr-relay.terminationGracePeriodSeconds" . -}}
{{- if le (float64 $period) $grace -}}
  {{- fail (printf "terminationGracePeriodSeconds: %s is not more than config.relay.shutdown_grace (%vs); the relay would be killed while it hands over" $period $grace) -}}
{{- end -}}

{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
  {{- fail "autoscaling and keda: both are enabled, and KEDA makes a HorizontalPodAutoscaler of its own; give one of them" -}}
{{- end -}}
{{- range $name := list "autoscaling" "keda" -}}
  {{- $scaling := get $.Values $name -}}
  {{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
    {{- fail (printf "%s.minReplicas: %d is more than %s.maxReplicas, %d" $name (int $scaling.minReplicas) $name (int $scaling.maxReplicas)) -}}
  {{- end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
  {{- if and .enabled (not .targetCPUUtilizationPercentage) (not .lag.enabled) -}}
    {{- fail "autoscaling: nothing to scale by; set targetCPUUtilizationPercentage or lag.enabled" -}}
  {{- end -}}
  {{- if and .enabled .targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" $.Values.resources)) -}}
    {{- fail "autoscaling.targetCPUUtilizationPercentage: a percentage of resources.requests.cpu, which is not set" -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.prometheus.serverAddress) -}}
  {{- fail "keda.prometheus.serverAddress: missing, expected where Prometheus answers queries, such as http://prometheus.monitoring:9090" -}}
{{- end -}}

{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
  {{- fail "serviceMonitor and podMonitor: both are enabled, and every pod would be scraped twice; give one of them" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) -}}
  {{- fail "serviceMonitor: it selects the Service, which service.enabled leaves out; enable that, or give podMonitor" -}}
{{- end -}}
{{- end -}}
