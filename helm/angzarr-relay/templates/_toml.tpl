{{/*
A YAML map as TOML. Helm's own toToml would do, but that it makes 1000.0 of 1000: every number of a values file is a
floating-point number to Helm. Maps at the top become [tables], and maps in those [sub.tables]; lists of maps at the top
become [[arrays of tables]], and whatever is deeper stands in line. A null is a key that is not there. Keys are sorted,
but that the name of an entry comes first.
*/}}
{{- define "angzarr-relay.toml" -}}
{{- $lists := dict -}}
{{- $tables := dict -}}
{{- range $key, $value := . -}}
  {{- if eq (include "angzarr-relay.toml.isTables" $value) "true" -}}
    {{- $_ := set $lists $key $value -}}
  {{- else -}}
    {{- $_ := set $tables $key $value -}}
  {{- end -}}
{{- end -}}
{{- include "angzarr-relay.toml.table" (dict "path" "" "table" $tables) -}}
{{- range $key, $entries := $lists -}}
  {{- range $entry := $entries }}

[[{{ include "angzarr-relay.toml.key" $key }}]]
    {{- $names := keys $entry | sortAlpha -}}
    {{- if hasKey $entry "name" -}}
      {{- $names = prepend (without $names "name") "name" -}}
    {{- end -}}
    {{- range $name := $names -}}
      {{- include "angzarr-relay.toml.pair" (dict "key" $name "value" (get $entry $name)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* "true" for a list of nothing but maps, and at least one. */}}
{{- define "angzarr-relay.toml.isTables" -}}
{{- if and (kindIs "slice" .) . -}}
  {{- $all := true -}}
  {{- range . -}}
    {{- if not (kindIs "map" .) -}}{{- $all = false -}}{{- end -}}
  {{- end -}}
  {{- $all -}}
{{- end -}}
{{- end -}}

{{/* A table's own keys, then its sub-tables. Every line is begun with a line break. */}}
{{- define "angzarr-relay.toml.table" -}}
{{- $path := .path -}}
{{- range $key, $value := .table -}}
  {{- if not (kindIs "map" $value) -}}
    {{- include "angzarr-relay.toml.pair" (dict "key" $key "value" $value) -}}
  {{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
  {{- if kindIs "map" $value -}}
    {{- $name := include "angzarr-relay.toml.key" $key -}}
    {{- $name = ternary (printf "%s.%s" $path $name) $name (ne $path "") }}

[{{ $name }}]
    {{- include "angzarr-relay.toml.table" (dict "path" $name "table" $value) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* A line break, and `key = value`; nothing for a null. */}}
{{- define "angzarr-relay.toml.pair" -}}
{{- if not (kindIs "invalid" .value) }}
{{ include "angzarr-relay.toml.key" .key }} = {{ include "angzarr-relay.toml.value" .value }}
{{- end -}}
{{- end -}}

{{- define "angzarr-relay.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . -}}{{ . }}{{- else -}}{{ include "angzarr-relay.toml.string" . }}{{- end -}}
{{- end -}}

{{- define "angzarr-relay.toml.value" -}}
{{- $value := . -}}
{{- if kindIs "map" $value -}}
  {{- $pairs := list -}}
  {{- range $key, $inner := $value -}}
    {{- if not (kindIs "invalid" $inner) -}}
      {{- $pair := printf "%s = %s" (include "angzarr-relay.toml.key" $key) (include "angzarr-relay.toml.value" $inner) -}}
      {{- $pairs = append $pairs $pair -}}
    {{- end -}}
  {{- end -}}
  {{- if $pairs -}}{ {{ join ", " $pairs }} }{{- else -}}{}{{- end -}}
{{- else if kindIs "slice" $value -}}
  {{- $entries := list -}}
  {{- range $value -}}
    {{- $entries = append $entries (include "angzarr-relay.toml.value" .) -}}
  {{- end -}}
  [{{ join ", " $entries }}]
{{- else if kindIs "string" $value -}}
  {{- include "angzarr-relay.toml.string" $value -}}
{{- else if kindIs "bool" $value -}}
  {{- $value -}}
{{- else if kindIs "float64" $value -}}
  {{- if ne (floor $value) $value -}}
    {{- $value -}}
  {{- else if or (gt $value 9007199254740991.0) (lt $value -9007199254740991.0) -}}
    {{- fail (printf "config: %.0f is larger than the numbers that Helm keeps whole" $value) -}}
  {{- else -}}
    {{- printf "%.0f" $value -}}
  {{- end -}}
{{- else if kindIs "invalid" $value -}}
  {{- fail "config: a list holds a null, for which TOML has no value" -}}
{{- else -}}
  {{/* An int64, from --set. */}}
  {{- $value -}}
{{- end -}}
{{- end -}}

{{/*
A TOML basic string. Go's %q escapes what TOML has escaped, and three things in its own way: \a, \v and \x... Cut at every
escaped backslash, what is left of backslashes begins an escape.
*/}}
{{- define "angzarr-relay.toml.string" -}}
{{- $parts := list -}}
{{- range splitList `\\` (printf "%q" .) -}}
  {{- $parts = append $parts (. | replace `\x` `\u00` | replace `\a` `\u0007` | replace `\v` `\u000b`) -}}
{{- end -}}
{{- join `\\` $parts -}}
{{- end -}}
