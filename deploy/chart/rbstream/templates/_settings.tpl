{{/*
rbstream.toml. Sprig's toToml turns whole numbers into floats, so this writes it: TOML's scalars, lists and quoted keys
are JSON's. Where a GPU is asked for, the device is said, so that a missing one is an error and not a slow night.
*/}}
{{- define "rbstream.toml" -}}
{{- $config := deepCopy .Values.config }}
{{- if .Values.gpu.enabled }}
{{- $_ := set $config "model" (merge (dict) ($config.model | default dict) (dict "device" "cuda")) }}
{{- end }}
{{- include "rbstream.table" (dict "table" $config "path" "") | trim }}
{{- end }}

{{/* A table: what is in it, then the tables below. null is not set. (dict "table" T "path" "source.properties") */}}
{{- define "rbstream.table" -}}
{{- range $name, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{- include "rbstream.key" $name }} = {{ toRawJson $value }}
{{ end }}
{{- end }}
{{- range $name, $value := .table }}
{{- if kindIs "map" $value }}
{{- $path := include "rbstream.key" $name }}
{{- if $.path }}{{ $path = printf "%s.%s" $.path $path }}{{ end }}
[{{ $path }}]
{{ include "rbstream.table" (dict "table" $value "path" $path) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "rbstream.key" -}}
{{- regexMatch "^[A-Za-z0-9_-]+$" . | ternary . (toRawJson .) }}
{{- end }}

{{/* All settings of a table by dotted name, put into a dict. (dict "table" T "prefix" "source." "into" D) */}}
{{- define "rbstream.collect" -}}
{{- range $name, $value := .table }}
{{- $full := print $.prefix $name }}
{{- if kindIs "map" $value }}
{{- include "rbstream.collect" (dict "table" $value "prefix" (print $full ".") "into" $.into) }}
{{- else if not (kindIs "invalid" $value) }}
{{- $_ := set $.into $full $value }}
{{- end }}
{{- end }}
{{- end }}

{{/*
What a setting is, as text, by dotted name: rbstream's default where config doesn't say. A name that rbstream doesn't
have (any more) fails. (dict "root" $ "name" "shutdown.drain")
*/}}
{{- define "rbstream.setting" -}}
{{- $given := dict }}
{{- include "rbstream.collect" (dict "table" .root.Values.config "prefix" "" "into" $given) }}
{{- $defaults := .root.Files.Get "files/defaults.json" | fromJson }}
{{- if not (hasKey $defaults .name) }}
{{- include "rbstream.refuse" (printf "the chart reads %s, which is no setting of this rbstream" .name) }}
{{- end }}
{{- $value := hasKey $given .name | ternary (get $given .name) (get $defaults .name) }}
{{- kindIs "string" $value | ternary $value (toRawJson $value) }}
{{- end }}

{{/* A duration in milliseconds, as rbstream/units.py reads it. (dict "root" $ "name" "shutdown.drain") */}}
{{- define "rbstream.milliseconds" -}}
{{- $text := include "rbstream.setting" . | trim | lower }}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(e[+-]?[0-9]{1,3})?\\s*(ms|s|min|h|d)?$" $text) }}
{{- include "rbstream.refuse" (printf "config.%s: %s is no duration; write 100ms, 10s, 15min, 1h, 2d or a number of seconds" .name $text) }}
{{- end }}
{{- $unit := regexFind "(ms|s|min|h|d)?$" $text }}
{{- $in := dict "ms" 1 "s" 1000 "" 1000 "min" 60000 "h" 3600000 "d" 86400000 }}
{{- mulf ($text | trimSuffix $unit | trim | float64) (get $in $unit) }}
{{- end }}

{{/*
SIGTERM to SIGKILL [s]. rbstream is done within the drain, or leaves 3 s after it (GRACE_SECONDS in
rbstream/worker/stop.py); a process in which no thread runs any more is ended after another 3. The remaining 4 s are the
kubelet's: it counts from before its signal arrives.
*/}}
{{- define "rbstream.graceSeconds" -}}
{{- $drain := include "rbstream.milliseconds" (dict "root" . "name" "shutdown.drain") | float64 }}
{{- add (divf $drain 1000 | ceil) 3 3 4 }}
{{- end }}

{{- define "rbstream.group" -}}
{{- include "rbstream.setting" (dict "root" . "name" "source.group_id") }}
{{- end }}

{{- define "rbstream.port" -}}
{{- include "rbstream.setting" (dict "root" . "name" "metrics.port") }}
{{- end }}
