{{/* The name of everything; also that of the pods before their number. */}}
{{- define "rusd.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "rusd.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rusd.labels" -}}
{{ include "rusd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "rusd.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What follows a pod's name in its DNS name. */}}
{{- define "rusd.domain" -}}
{{ include "rusd.name" . }}-headless.{{ .Release.Namespace }}.svc.{{ .Values.cluster.domain }}
{{- end -}}

{{- define "rusd.clientScheme" -}}
{{ ternary "https" "http" .Values.tls.client.enabled }}
{{- end -}}

{{- define "rusd.peerScheme" -}}
{{ ternary "https" "http" .Values.tls.peer.enabled }}
{{- end -}}

{{/* The members of the first cluster: NAME=URL, separated by commas. */}}
{{- define "rusd.initialCluster" -}}
{{- $name := include "rusd.name" . -}}
{{- $members := list -}}
{{- range $number := until (int .Values.cluster.initialSize) -}}
{{- $pod := printf "%s-%d" $name $number -}}
{{- $members = append $members (printf "%s=%s://%s.%s:2380" $pod (include "rusd.peerScheme" $) $pod (include "rusd.domain" $)) -}}
{{- end -}}
{{ join "," $members }}
{{- end -}}

{{/* Client URLs of all pods that there may be, separated by commas. */}}
{{- define "rusd.endpoints" -}}
{{- $name := include "rusd.name" . -}}
{{- $urls := list -}}
{{- range $number := until (int (max .Values.cluster.initialSize .Values.replicaCount)) -}}
{{- $urls = append $urls (printf "%s://%s-%d.%s:2379" (include "rusd.clientScheme" $) $name $number (include "rusd.domain" $)) -}}
{{- end -}}
{{ join "," $urls }}
{{- end -}}

{{/* Whether the first members may start a new cluster. */}}
{{- define "rusd.mayBootstrap" -}}
{{- if or (eq .Values.cluster.bootstrap "always") (and (eq .Values.cluster.bootstrap "auto") .Release.IsInstall) -}}
true
{{- end -}}
{{- end -}}

{{/* Variables of the clients in a pod: rusd's own commands, and those of `kubectl exec`. */}}
{{- define "rusd.clientEnvironment" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- if .Values.tls.client.enabled }}
- name: ETCDCTL_CACERT
  value: /etc/rusd/client/ca.crt
- name: ETCDCTL_CERT
  value: /etc/rusd/client/tls.crt
- name: ETCDCTL_KEY
  value: /etc/rusd/client/tls.key
{{- end }}
{{- end -}}

{{- define "rusd.mounts" -}}
- name: data
  mountPath: /var/lib/rusd
{{- if .Values.tls.client.enabled }}
- name: client-tls
  mountPath: /etc/rusd/client
  readOnly: true
{{- end }}
{{- if .Values.tls.peer.enabled }}
- name: peer-tls
  mountPath: /etc/rusd/peer
  readOnly: true
{{- end }}
{{- end -}}

{{- define "rusd.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end -}}
