{{/* helm lint goes on after `fail`. It doesn't after a template that isn't there, and says its name. */}}
{{- define "rbstream.refuse" -}}
{{- fail . }}
{{- include . nil }}
{{- end }}

{{/* What the schema can't say: of values together, and in words where it matters why. */}}
{{- define "rbstream.check" -}}
{{- $given := dict }}
{{- include "rbstream.collect" (dict "table" .Values.config "prefix" "" "into" $given) }}
{{- include "rbstream.checkMissing" (dict "root" . "given" $given) }}
{{- include "rbstream.checkNames" (dict "root" . "given" $given) }}
{{- include "rbstream.checkSecrets" (dict "root" . "given" $given) }}
{{- include "rbstream.checkTimes" (dict "root" . "given" $given) }}
{{- include "rbstream.checkModel" (dict "root" . "given" $given) }}
{{- include "rbstream.checkAutoscaling" (dict "root" . "given" $given) }}
{{- include "rbstream.checkReceipt" (dict "root" . "given" $given) }}
{{- end }}

{{/* What has no default. Only `fail`: helm lint without values has nothing to complain of. */}}
{{- define "rbstream.checkMissing" -}}
{{- if not .root.Values.image.repository }}
{{- fail "image.repository is not set: build deploy/Dockerfile, push it, and say where" }}
{{- end }}
{{- range list "source.bootstrap_servers" "source.topics" "sink.topic" "sink.dead_letters" }}
{{- if not (get $.given .) }}
{{- fail (printf "config.%s is not set, and rbstream run needs it: see docs/settings.md" .) }}
{{- end }}
{{- end }}
{{- with .root.Values.rehearsal }}
{{- if and .enabled (not .topic) }}
{{- fail "rehearsal.topic is not set: the topic to publish to, which config.source.topics reads" }}
{{- end }}
{{- if and .enabled (not .volume) }}
{{- fail "rehearsal.volume is not set: a volume with the night, mounted at /nights" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "rbstream.checkReceipt" -}}
{{- if and .root.Values.receipt.enabled (not (get .given "sink.scores")) }}
{{- include "rbstream.refuse" "receipt.enabled needs config.sink.scores: the receipt is made of the scores topic" }}
{{- end }}
{{- end }}

{{- define "rbstream.checkNames" -}}
{{- range list "source.instance_id" "sink.transactional_id" }}
{{- if hasKey $.given . }}
{{- include "rbstream.refuse" (printf "config.%s must differ from pod to pod, or workers would fence each other: leave it out, it is made of namespace and pod" .) }}
{{- end }}
{{- end }}
{{- if eq (include "rbstream.port" .root) "0" }}
{{- include "rbstream.refuse" "config.metrics.port: 0 is any free port, which no probe would find" }}
{{- end }}
{{- end }}

{{/* What is secret: as in rbstream/masking.py, but for names of files. Values end up in the ConfigMap and in Helm's records. */}}
{{- define "rbstream.isSecret" -}}
{{- $name := lower . | replace "token.endpoint" "" }}
{{- if and (regexMatch "password|passphrase|secret|token|key\\.pem|private\\.key|oauthbearer\\.config|jaas" $name) (not (regexMatch "\\.(file|location)$" $name)) }}yes{{ end }}
{{- end }}

{{- define "rbstream.checkSecrets" -}}
{{- range $name, $value := .given }}
{{- if include "rbstream.isSecret" $name }}
{{- include "rbstream.refuse" (printf "config.%s is a secret: put it into a Secret, under the key %s, and name that in `secrets`" $name $name) }}
{{- end }}
{{- if and (kindIs "string" $value) (regexMatch "://[^/?#\\s]*@" $value) }}
{{- include "rbstream.refuse" (printf "config.%s has credentials in its URL: put all of it into a Secret, under the key %s, and name that in `secrets`" $name $name) }}
{{- end }}
{{- end }}
{{- range .root.Values.extraEnv }}
{{- if and (hasPrefix "RBSTREAM_" .name) (not .valueFrom) }}
{{- include "rbstream.refuse" (printf "extraEnv: %s is a setting: write it in `config`, where it is checked; a secret by `secrets`, or here by valueFrom" .name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* batch.max_delay < shutdown.drain < max.poll.interval.ms, as rbstream/checks.py has it; the grace period is computed. */}}
{{- define "rbstream.checkTimes" -}}
{{- $drain := include "rbstream.milliseconds" (dict "root" .root "name" "shutdown.drain") | float64 }}
{{- $delay := include "rbstream.milliseconds" (dict "root" .root "name" "batch.max_delay") | float64 }}
{{- $poll := include "rbstream.setting" (dict "root" .root "name" "source.properties.max.poll.interval.ms") }}
{{- if not (regexMatch "^[0-9]+$" $poll) }}
{{- include "rbstream.refuse" (printf "config.source.properties.max.poll.interval.ms: %s is no number of milliseconds" $poll) }}
{{- end }}
{{- if ge $drain (float64 $poll) }}
{{- include "rbstream.refuse" (printf "config.shutdown.drain, %d ms, is not less than max.poll.interval.ms, %s: the group would take partitions away while they are drained; set a shorter drain, or config.source.properties.max.poll.interval.ms" (int64 $drain) $poll) }}
{{- end }}
{{- if ge $delay $drain }}
{{- include "rbstream.refuse" (printf "config.batch.max_delay, %d ms, is not less than config.shutdown.drain, %d ms: what waits to fill a batch could not be finished in time" (int64 $delay) (int64 $drain)) }}
{{- end }}
{{- end }}

{{- define "rbstream.checkModel" -}}
{{- $device := get .given "model.device" | default "cuda" }}
{{- if and .root.Values.gpu.enabled (not (hasPrefix "cuda" $device)) }}
{{- include "rbstream.refuse" (printf "config.model.device is %s, and gpu.enabled asks for a GPU: leave the device out, which is cuda then, or disable the GPU" $device) }}
{{- end }}
{{- if and .root.Values.model.volume (not (hasPrefix "/models/" (get .given "model.bundle"))) }}
{{- include "rbstream.refuse" "model.volume is mounted at /models, and config.model.bundle names no file there: the image's own model would score" }}
{{- end }}
{{- end }}

{{- define "rbstream.checkAutoscaling" -}}
{{- with .root.Values.autoscaling }}
{{- if .enabled }}
{{- if not .maxReplicaCount }}
{{- include "rbstream.refuse" "autoscaling.maxReplicaCount is not set: as many as a night's topics have partitions, more would stand idle" }}
{{- end }}
{{- if lt (int .maxReplicaCount) (int .minReplicaCount) }}
{{- include "rbstream.refuse" (printf "autoscaling.maxReplicaCount, %d, is less than minReplicaCount, %d" (int .maxReplicaCount) (int .minReplicaCount)) }}
{{- end }}
{{- if eq (include "rbstream.setting" (dict "root" $.root "name" "source.report_progress")) "false" }}
{{- include "rbstream.refuse" "autoscaling: KEDA looks for the group's lag at the source, and config.source.report_progress is false" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
