{{- define "distill-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "distill-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "distill-operator.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "distill-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "distill-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "distill-operator.labels" -}}
{{ include "distill-operator.objectLabels" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{- /* For objects that are not the operator itself (dashboard, users' roles, test): no component. */ -}}
{{- define "distill-operator.objectLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "distill-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: distill-operator
{{- end -}}

{{- define "distill-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "distill-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false: set serviceAccount.name to an existing service account" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "distill-operator.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "distill-operator.trainerImage" -}}
{{- $image := default (printf "distill-trainer:%s" .Chart.AppVersion) .Values.trainer.image -}}
{{- if and .Values.trainer.digest (contains "@" $image) -}}
{{- fail "trainer.image has a digest and trainer.digest is set, too: remove one of them" -}}
{{- else if .Values.trainer.digest -}}
{{- printf "%s@%s" (regexReplaceAll ":[^:/]+$" $image "") .Values.trainer.digest -}}
{{- else -}}
{{- $image -}}
{{- end -}}
{{- end -}}

{{- /* Who may reach the metrics ports of training pods: the operator, which reads rank 0's status there, and Prometheus. */ -}}
{{- define "distill-operator.metricsPeers" -}}
{{- $operator := dict
  "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace))
  "podSelector" (dict "matchLabels" (fromYaml (include "distill-operator.selectorLabels" .)))
-}}
{{- toJson (prepend .Values.networkPolicies.prometheus $operator) -}}
{{- end -}}

{{- /* What training pods may reach besides their gang and DNS; fails where the rules would limit nothing. */ -}}
{{- define "distill-operator.trainerEgress" -}}
{{- range .Values.networkPolicies.trainerExtraEgress -}}
{{- if not (or .to .ports) -}}
{{- fail "networkPolicies.trainerExtraEgress has a rule without to and ports, which admits everything: give one of them, or set networkPolicies.trainerEgress to false" -}}
{{- end -}}
{{- end -}}
{{- toJson .Values.networkPolicies.trainerExtraEgress -}}
{{- end -}}

{{- /* Fail with a sentence rather than with the API server's "no matches for kind". */ -}}
{{- define "distill-operator.requireMonitoring" -}}
{{- if not (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- fail (printf "monitoring.%s.enabled is true but this cluster has no monitoring.coreos.com/v1: install Prometheus Operator first or set it to false (with helm template add --api-versions monitoring.coreos.com/v1)" .value) -}}
{{- end -}}
{{- end -}}

{{- define "distill-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* PriorityClass of placeholder pods; empty for the job's own. */}}
{{- define "distill-operator.placeholderPriorityClass" -}}
{{- $class := .Values.growth.priorityClass -}}
{{- if $class.create -}}
{{- default (printf "%s-placeholder" (include "distill-operator.fullname" .)) $class.name -}}
{{- else -}}
{{- $class.name -}}
{{- end -}}
{{- end -}}
