{{/* 52 characters: the controller appends a hash of 10 to a StatefulSet's name, and makes a label of it (63). */}}
{{- define "rbstream.name" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) }}
{{- $name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* (dict "root" $ "component" "worker") */}}
{{- define "rbstream.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "rbstream.labels" -}}
{{ include "rbstream.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "rbstream.image" -}}
{{- $image := .Values.image }}
{{- $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* What all pods have. */}}
{{- define "rbstream.pod" -}}
serviceAccountName: {{ include "rbstream.name" . }}
automountServiceAccountToken: false
# Variables of Services whose names begin with rbstream would look like settings.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001 # the image's
  runAsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- range $name := list "imagePullSecrets" "nodeSelector" "tolerations" "priorityClassName" }}
{{- with get $.Values $name }}
{{ $name }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "rbstream.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where settings come from: the same for workers and the rehearsal. */}}
{{- define "rbstream.volumes" -}}
- name: config
  configMap:
    name: {{ include "rbstream.name" . }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmpSize }}
{{- with .Values.secrets }}
- name: secrets
  projected:
    sources:
      {{- range . }}
      - secret: {{- toYaml . | nindent 10 }}
      {{- end }}
{{- end }}
{{- with .Values.certificates.volume }}
- name: certificates
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rbstream.mounts" -}}
- name: config
  mountPath: /etc/rbstream
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- if .Values.secrets }}
- name: secrets
  mountPath: /run/secrets/rbstream
  readOnly: true
{{- end }}
{{- if .Values.certificates.volume }}
- name: certificates
  mountPath: /certificates
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* For those who open the model. */}}
{{- define "rbstream.modelVolume" -}}
{{- with .Values.model.volume }}
- name: models
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "rbstream.modelMount" -}}
{{- if .Values.model.volume }}
- name: models
  mountPath: /models
  readOnly: true
{{- end }}
{{- end }}

{{- define "rbstream.env" -}}
{{- with .Values.extraEnv }}
{{- toYaml . }}
{{ end -}}
- name: RBSTREAM_CONFIG
  value: /etc/rbstream/rbstream.toml
{{- end }}
