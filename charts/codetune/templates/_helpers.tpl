{{- define "codetune.labels" -}}
app.kubernetes.io/name: codetune
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: codetune
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "codetune.selector" -}}
app.kubernetes.io/name: codetune
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "codetune.serviceAccount" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- define "codetune.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "codetune.settings" -}}
{{- $own := dict "namespace" .Release.Namespace "namespaces" .Values.watchNamespaces -}}
{{- /* Store services and gateways run from the operator's image, wherever that was taken from. */ -}}
{{- $defaults := dict "images" (dict "operator" (include "codetune.image" .)) -}}
{{ merge $own .Values.settings $defaults | toYaml }}
{{- end }}

{{- define "codetune.rules" -}}
# The resources that people apply: read them, write what the operator found out, hold them until their artifacts are gone.
- apiGroups: [codetune.dev]
  resources: [projects, finetunes, modeldeployments, teams]
  verbs: [get, list, watch, patch]
- apiGroups: [codetune.dev]
  resources: [projects/status, finetunes/status, modeldeployments/status, teams/status]
  verbs: [get, patch]
# Owner references of children that block their owner's deletion.
- apiGroups: [codetune.dev]
  resources: [projects/finalizers, finetunes/finalizers, modeldeployments/finalizers, teams/finalizers]
  verbs: [update]
# What runs: scan, training and purge.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# What serves, gateways of teams, and the store service.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# What surrounds it: disruption budget, autoscaler, network policy.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# The artifact store, which is made where there is none, and never removed.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
# Configurations of runs and gateways: written and never read.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, patch, delete]
# The tokens of ModelDeployments and store services: written and never read, so no get, list or watch. The API server
# answers a patch with the whole object, though: where other Secrets must be out of reach, name `watchNamespaces`.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch, delete]
# How the pods are doing, and what they print.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# What happened, where `kubectl describe` shows it.
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}
