{{- define "agentid.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: agentid
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* One install serves a cluster, so nothing here depends on the release's name. */}}
{{- define "agentid.selector" -}}
app.kubernetes.io/name: agentid
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "agentid.issuer" -}}
{{- .Values.config.issuer | default (printf "https://agentid.%s.svc" .Release.Namespace) -}}
{{- end }}

{{- define "agentid.trustDomain" -}}
{{- required "\n\nconfig.trustDomain is empty. It is the SPIFFE trust domain of your agents' ids, spiffe://<trust domain>/agent/<uid>, and stays fixed while there are agents: choose a name that is yours, one for each cluster, such as\n\n  --set config.trustDomain=prod.example.com\n" .Values.config.trustDomain -}}
{{- end }}

{{- define "agentid.image" -}}
{{- $repository := required "\n\nimage.repository is empty. Name the image of agentid, such as\n\n  --set image.repository=registry.example.com/agentid\n" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{/* The configuration file. `resource` of a bound kind is the chart's own. */}}
{{- define "agentid.configuration" -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "apiVersion" "config.agentid.dev/v1alpha1" -}}
{{- $_ := set $config "kind" "Configuration" -}}
{{- $_ := set $config "issuer" (include "agentid.issuer" .) -}}
{{- $_ := set $config "trustDomain" (include "agentid.trustDomain" .) -}}
{{- if hasKey $config "boundKinds" -}}
{{- $kinds := list -}}
{{- range $config.boundKinds }}{{ $kinds = append $kinds (omit . "resource") }}{{ end -}}
{{- $_ := set $config "boundKinds" $kinds -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{/* The RBAC rules for the bound kinds and the hops to them. Takes root and verbs. */}}
{{- define "agentid.boundKindRules" -}}
{{- $known := dict
  "v1/Pod" "pods" "batch/v1/Job" "jobs" "batch/v1/CronJob" "cronjobs" "apps/v1/Deployment" "deployments"
  "apps/v1/StatefulSet" "statefulsets" "apps/v1/DaemonSet" "daemonsets" "apps/v1/ReplicaSet" "replicasets" -}}
{{- $default := list
  (dict "apiVersion" "v1" "kind" "Pod") (dict "apiVersion" "batch/v1" "kind" "Job")
  (dict "apiVersion" "batch/v1" "kind" "CronJob") (dict "apiVersion" "apps/v1" "kind" "Deployment")
  (dict "apiVersion" "apps/v1" "kind" "StatefulSet") (dict "apiVersion" "apps/v1" "kind" "DaemonSet") -}}
{{- $groups := dict -}}
{{- $hop := false -}}
{{- /* None is not the same as none given. */ -}}
{{- $kinds := $default -}}
{{- if hasKey .root.Values.config "boundKinds" }}{{ $kinds = .root.Values.config.boundKinds }}{{ end -}}
{{- range $kinds }}
{{- $name := printf "%s/%s" .apiVersion .kind -}}
{{- $resource := .resource | default (get $known $name) -}}
{{- if not $resource -}}
{{- fail (printf "\n\nconfig.boundKinds: %s is no kind of Kubernetes' own: add `resource`, its plural, so that the processes may be given the right to see it\n" $name) -}}
{{- end -}}
{{- $group := ternary "" (splitList "/" .apiVersion | first) (eq .apiVersion "v1") -}}
{{- $_ := set $groups $group (append (get $groups $group | default list) $resource) -}}
{{- if eq $name "apps/v1/Deployment" }}{{ $hop = true }}{{ end -}}
{{- end -}}
{{- range $group := keys $groups | sortAlpha }}
- apiGroups: [{{ $group | quote }}]
  resources: [{{ get $groups $group | uniq | join ", " }}]
  verbs: [{{ $.verbs }}]
{{- end }}
{{- if $hop }}
# The hop from a pod to its Deployment.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
{{- end }}
{{- end }}

{{/* What both Deployments' pods share. Takes root, component, settings, port. */}}
{{- define "agentid.podSpec" -}}
{{- $values := .root.Values -}}
serviceAccountName: agentid-{{ .component }}
# Mounted below, for the one container, and renewed.
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $values.imagePullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- range $field := list "runAsUser" "runAsGroup" "fsGroup" }}
  {{- with get $values.podSecurityContext $field }}
  {{ $field }}: {{ int64 . }}
  {{- end }}
  {{- end }}
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with .settings.topologySpreadConstraints }}
{{- toYaml . | nindent 0 }}
{{- else }}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "agentid.selector" $.component | nindent 6 }}
{{- end }}
{{- end }}
volumes:
- name: configuration
  configMap: {name: agentid}
- name: kube-api-access
  projected:
    defaultMode: 0444
    sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3607}
    - configMap:
        name: kube-root-ca.crt
        items: [{key: ca.crt, path: ca.crt}]
    - downwardAPI:
        items:
        - path: namespace
          fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}
{{- end }}

{{/* What both containers share, after their arguments and ports. */}}
{{- define "agentid.container" -}}
{{- $values := .root.Values -}}
image: {{ include "agentid.image" .root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
env:
- name: POD_NAME
  valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}
- name: RUST_LOG
  value: {{ $values.logLevel | quote }}
{{- with .settings.extraEnv }}
{{- toYaml . | nindent 0 }}
{{- end }}
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 5
{{- with .settings.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end }}
