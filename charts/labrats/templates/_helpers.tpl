{{/* The name prefix of all objects. The name of a Service, such as NAME-egress-proxy, has at most 63 characters. */}}
{{- define "labrats.name" -}}
{{- $name := ternary .Release.Name (printf "%s-labrats" .Release.Name) (contains "labrats" .Release.Name) -}}
{{- if gt (len $name) 50 }}{{ fail (printf "%s has %d characters, and at most 50 are allowed: choose a shorter release name" $name (len $name)) }}{{ end -}}
{{ $name }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "labrats.labels" -}}
app.kubernetes.io/name: labrats
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* The selector labels of a component's pods, given (list . "api"). */}}
{{- define "labrats.selector" -}}
app.kubernetes.io/name: labrats
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "labrats.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "labrats.executorImage" -}}
{{ .Values.executor.image.repository }}:{{ .Values.executor.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The profile: from the values, else that of the installation in the cluster, else `small`. */}}
{{- define "labrats.profile" -}}
{{- $controller := printf "%s-controller" (include "labrats.name" .) }}
{{- if .Values.profile }}
{{- .Values.profile }}
{{- else if not (or (lookup "v1" "ConfigMap" .Release.Namespace "kube-root-ca.crt") (lookup "v1" "Namespace" "" "kube-system")) }}
{{- fail "without access to the cluster, the chart cannot see what is installed there: name the profile, such as --set profile=production for an installation by chart 0.2, or --set profile=small for a new one on one node" }}
{{- else }}
{{- with lookup "apps/v1" "Deployment" .Release.Namespace $controller }}
{{- $known := get (.metadata.labels | default dict) "labrats.work/profile" }}
{{- if $known }}
{{- $known }}
{{- else if lookup "admissionregistration.k8s.io/v1" "ValidatingAdmissionPolicy" "" (printf "labrats-leader-%s" $.Release.Namespace) }}
{{- "production" }}
{{- else }}
{{- "replicated" }}
{{- end }}
{{- else }}
{{- "small" }}
{{- end }}
{{- end }}
{{- end }}

{{/* true if the chart creates the fence and the policies; empty otherwise. */}}
{{- define "labrats.fence" -}}
{{- $enabled := .Values.fence.enabled }}
{{- if ternary $enabled (eq (include "labrats.profile" .) "production") (kindIs "bool" $enabled) }}true{{ end }}
{{- end }}

{{/* The number of pods of a component, given (list . "api"). */}}
{{- define "labrats.replicas" -}}
{{- $replicas := (index (index . 0).Values (index . 1)).replicas }}
{{- if kindIs "invalid" $replicas }}
{{- ternary 1 2 (eq (include "labrats.profile" (index . 0)) "small") }}
{{- else }}
{{- $replicas }}
{{- end }}
{{- end }}

{{/* The claim name of a volume, given (list . "data"). */}}
{{- define "labrats.claim" -}}
{{- $volume := index (index . 0).Values.volumes (index . 1) -}}
{{ $volume.existingClaim | default (printf "%s-%s" (include "labrats.name" (index . 0)) (index . 1)) }}
{{- end }}

{{/* The access mode of a volume, given (list . "data"): from the values, else of the claim in the cluster, else of the profile. */}}
{{- define "labrats.accessMode" -}}
{{- $root := index . 0 }}
{{- $claim := include "labrats.claim" . }}
{{- $mode := (index $root.Values.volumes (index . 1)).accessMode }}
{{- if not $mode }}
{{- with lookup "v1" "PersistentVolumeClaim" $root.Release.Namespace $claim }}
{{- $mode = first .spec.accessModes }}
{{- end }}
{{- end }}
{{- $mode | default (ternary "ReadWriteOnce" "ReadWriteMany" (eq (include "labrats.profile" $root) "small")) }}
{{- end }}

{{/* The affinity of pods that mount volumes which one node at a time can mount: the node of the engine's pods. Empty otherwise. */}}
{{- define "labrats.volumeAffinity" -}}
{{- $modes := list (include "labrats.accessMode" (list . "data")) (include "labrats.accessMode" (list . "uploads")) }}
{{- if has "ReadWriteOnce" $modes }}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          app.kubernetes.io/name: labrats
          app.kubernetes.io/instance: {{ .Release.Name | quote }}
        matchExpressions:
          - {key: app.kubernetes.io/component, operator: In, values: [api, controller, publisher]}
{{- end }}
{{- end }}

{{/* The placement of a component's pods, as fields of a pod's spec, given its values. */}}
{{- define "labrats.placement" -}}
{{- $fields := dict }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" }}
{{- with get $ $name }}{{ $_ := set $fields $name . }}{{ end }}
{{- end }}
{{- toJson $fields }}
{{- end }}

{{/* Fields of the spec of pods that the engine creates, with pull secrets, given (list . "executor"). */}}
{{- define "labrats.podFields" -}}
{{- $values := index (index . 0).Values (index . 1) | default dict }}
{{- $secrets := list }}
{{- range (index . 0).Values.imagePullSecrets }}{{ $secrets = append $secrets (dict "name" .) }}{{ end }}
{{- $pulled := ternary (dict "imagePullSecrets" $secrets) dict (not (empty $secrets)) }}
{{- $node := dict }}
{{- if eq (index . 1) "executor" }}
{{- with fromYaml (include "labrats.volumeAffinity" (index . 0)) }}{{ $node = dict "affinity" . }}{{ end }}
{{- end }}
{{- $placement := fromJson (include "labrats.placement" $values) }}
{{- if not $placement.affinity }}{{ $placement = merge dict $placement $node }}{{ end }}
{{- merge dict ($values.pod | default dict) $placement $pulled | toJson }}
{{- end }}

{{/* The RuntimeClass of jobs with the isolation `vm`; empty if there is no such level. */}}
{{- define "labrats.vmRuntimeClass" -}}
{{ ((.Values.isolation | default dict).vm | default dict).runtimeClass }}
{{- end }}

{{/* Annotations, labels, volumes and mounts of pods that the engine creates, given (list . "executor"). */}}
{{- define "labrats.podExtras" -}}
{{- $values := index (index . 0).Values (index . 1) | default dict }}
{{- $extras := dict }}
{{- range $name, $value := dict "annotations" "podAnnotations" "labels" "podLabels" "volumes" "extraVolumes" "volumeMounts" "extraVolumeMounts" "ingressAnnotations" "ingressAnnotations" }}
{{- with get $values $value }}{{ $_ := set $extras $name . }}{{ end }}
{{- end }}
{{- toJson $extras }}
{{- end }}

{{/* The name of the egress proxy's objects; empty without a proxy, which is no use without NetworkPolicies. */}}
{{- define "labrats.egressProxy" -}}
{{- if and .Values.networkPolicy.enabled (.Values.egressProxy | default dict).enabled }}{{ include "labrats.name" . }}-egress-proxy{{ end }}
{{- end }}

{{/* The PriorityClass that the chart creates for controllers; empty if it creates none. */}}
{{- define "labrats.priorityClass" -}}
{{- $class := .Values.controller.priorityClass | default dict }}
{{- $create := ternary $class.create (ne (include "labrats.fence" .) "") (kindIs "bool" $class.create) }}
{{- if and $create (not .Values.controller.priorityClassName) }}{{ include "labrats.name" . }}-controller-{{ .Release.Namespace }}{{ end }}
{{- end }}

{{/* The Deployment of a component, given (list . "api"). */}}
{{- define "labrats.deployment" -}}
{{- $root := index . 0 }}
{{- $part := index . 1 }}
{{- $values := index $root.Values $part }}
{{- with $root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "labrats.name" . }}-{{ $part }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "labrats.labels" . | nindent 4 }}
    app.kubernetes.io/component: {{ $part }}
    labrats.work/profile: {{ include "labrats.profile" . }}
spec:
  replicas: {{ include "labrats.replicas" (list . $part) }}
  selector:
    matchLabels:
      {{- include "labrats.selector" (list . $part) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- include "labrats.labels" . | nindent 8 }}
        app.kubernetes.io/component: {{ $part }}
      {{- $annotations := merge dict ($values.podAnnotations | default dict) (fromJson (include "labrats.settingsChecksum" .)) }}
      {{- with $annotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "labrats.name" . }}-{{ $part }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: 30
      {{- with .Values.imagePullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      {{- $placement := fromJson (include "labrats.placement" $values) }}
      {{- with omit $placement "affinity" }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      {{- if and (eq $part "controller") (include "labrats.priorityClass" .) }}
      priorityClassName: {{ include "labrats.priorityClass" . }}
      {{- end }}
      affinity:
        {{- with $placement.affinity }}
        {{- toYaml . | nindent 8 }}
        {{- else }}
        {{- with include "labrats.volumeAffinity" $root }}
        {{- . | trim | nindent 8 }}
        {{- else }}
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm:
                topologyKey: kubernetes.io/hostname
                labelSelector:
                  matchLabels:
                    {{- include "labrats.selector" (list $root $part) | nindent 20 }}
        {{- end }}
        {{- end }}
      containers:
        - name: {{ $part }}
          image: {{ include "labrats.image" . }}
          imagePullPolicy: IfNotPresent
          args: [serve, --backend, kubernetes, --role, {{ $part }}]
          env:
            - name: LABRATS_NAMESPACE
              valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
            {{- if eq $part "controller" }}
            - name: LABRATS_POD_IP
              valueFrom: {fieldRef: {fieldPath: status.podIP}}
            {{- end }}
            {{- $own := fromYaml (include "labrats.environment" .) }}
            {{- range $name, $value := $own }}
            - name: {{ $name }}
              value: {{ $value | quote }}
            {{- end }}
            {{- range $name, $value := .Values.settings }}
            {{- if or (hasKey $own $name) (has $name (list "LABRATS_BACKEND" "LABRATS_NAMESPACE" "LABRATS_POD_IP" "LABRATS_ROLE")) }}
            {{- fail (printf "settings.%s: the chart sets this itself" $name) }}
            {{- end }}
            - name: {{ $name }}
              value: {{ if kindIs "float64" $value }}{{ $value | toJson | quote }}{{ else }}{{ $value | quote }}{{ end }}
            {{- end }}
          {{- with .Values.settingsSecret }}
          {{- if eq $part "publisher" }}
            # It runs git on the work of agents, so it gets no further confidential settings.
            {{- range $name := list "LABRATS_GITHUB_API_URL" "HTTPS_PROXY" "NO_PROXY" }}
            {{- if not (hasKey $root.Values.settings $name) }}
            - name: {{ $name }}
              valueFrom: {secretKeyRef: {name: {{ $root.Values.settingsSecret }}, key: {{ $name }}, optional: true}}
            {{- end }}
            {{- end }}
          {{- else }}
          envFrom:
            - secretRef: {name: {{ . }}}
          {{- end }}
          {{- end }}
          ports:
            - name: http
              containerPort: 3001
          startupProbe:
            httpGet: {path: /health, port: http}
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /health, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /ready, port: http}
            periodSeconds: 2
            timeoutSeconds: 5
          {{- if eq $part "api" }}
          lifecycle:
            preStop:
              # Requests still arrive until every node knows that this pod is terminating.
              exec: {command: [sleep, "5"]}
          {{- end }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          volumeMounts:
            - name: data
              mountPath: /var/lib/labrats
              {{- if has $part (list "api" "publisher") }}
              readOnly: true
              {{- end }}
            {{- if ne $part "publisher" }}
            - name: uploads
              mountPath: /var/lib/labrats-uploads
            {{- end }}
            - name: tmp
              mountPath: /tmp
            {{- with $values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: data
          persistentVolumeClaim:
            claimName: {{ include "labrats.claim" (list . "data") }}
        {{- if ne $part "publisher" }}
        - name: uploads
          persistentVolumeClaim:
            claimName: {{ include "labrats.claim" (list . "uploads") }}
        {{- end }}
        - name: tmp
          emptyDir:
            sizeLimit: {{ $values.scratch | default "1Gi" }}
        {{- with $values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}
{{- end }}

{{/* true if jobs may use only labelled Secrets: from the values, else from the current installation, else true. */}}
{{- define "labrats.labelledCredentials" -}}
{{- $set := (.Values.credentials | default dict).requireLabel }}
{{- if kindIs "bool" $set }}
{{- $set }}
{{- else }}
{{- $name := printf "%s-controller" (include "labrats.name" .) }}
{{- $found := "true" }}
{{- with lookup "apps/v1" "Deployment" .Release.Namespace $name }}
{{- $found = "false" }}
{{- range (first .spec.template.spec.containers).env }}
{{- if eq .name "LABRATS_LABELLED_CREDENTIALS" }}{{ $found = .value }}{{ end }}
{{- end }}
{{- end }}
{{- $found }}
{{- end }}
{{- end }}

{{/* An annotation with the checksum of the current settings Secret in the cluster. */}}
{{- define "labrats.settingsChecksum" -}}
{{- $found := dict }}
{{- with .Values.settingsSecret }}
{{- $secret := lookup "v1" "Secret" $.Release.Namespace . | default dict }}
{{- $found = dict "checksum/settings" (sha256sum (toJson ($secret.data | default dict))) }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* The environment variables that the chart sets for the engine. */}}
{{- define "labrats.environment" -}}
LABRATS_BACKEND: kubernetes
LABRATS_HOST: 0.0.0.0
LABRATS_ALLOW_PUBLIC: "true"
PORT: "3001"
LABRATS_DATA_DIR: /var/lib/labrats
UPLOADS_DIR: /var/lib/labrats-uploads
WORKSPACE_DIR: /var/lib/labrats-uploads/workspaces
LABRATS_DATA_CLAIM: {{ include "labrats.claim" (list . "data") }}
LABRATS_UPLOADS_CLAIM: {{ include "labrats.claim" (list . "uploads") }}
{{- if .Values.volumes.models.enabled }}
LABRATS_MODELS_CLAIM: {{ include "labrats.claim" (list . "models") }}
LABRATS_ENGINE_IMAGE: {{ include "labrats.image" . }}
{{- end }}
LABRATS_EXECUTOR_IMAGE: {{ include "labrats.executorImage" . }}
{{- with .Values.executor.images }}
LABRATS_EXECUTOR_IMAGES: {{ append . (include "labrats.executorImage" $) | join "," | quote }}
{{- end }}
LABRATS_LABELLED_CREDENTIALS: {{ include "labrats.labelledCredentials" . | quote }}
{{- if .Values.api.writeSecrets }}
LABRATS_WRITE_SECRETS: "true"
{{- end }}
LABRATS_EXECUTOR_RESOURCES: {{ .Values.executor.resources | toJson | quote }}
LABRATS_EXECUTOR_SCRATCH: {{ .Values.executor.scratch }}
LABRATS_PUBLISHER_SCRATCH: {{ .Values.publisher.scratch | default "1Gi" }}
LABRATS_EXECUTOR_POD: {{ include "labrats.podFields" (list . "executor") | quote }}
{{- with include "labrats.vmRuntimeClass" . }}
LABRATS_VM_RUNTIME_CLASS: {{ . }}
{{- end }}
LABRATS_EXECUTOR_EXTRAS: {{ include "labrats.podExtras" (list . "executor") | quote }}
{{- if .Values.ingress.enabled }}
LABRATS_PUBLIC_URL: {{ ternary "https" "http" (ne .Values.ingress.tlsSecret "") }}://{{ .Values.ingress.host }}
{{- end }}
LABRATS_RECEIVER_IMAGE: {{ include "labrats.image" . }}
LABRATS_RECEIVER_ACCOUNT: {{ include "labrats.name" . }}-webhook-receiver
LABRATS_RECEIVER_POD: {{ include "labrats.podFields" (list . "receiver") | quote }}
LABRATS_RECEIVER_EXTRAS: {{ include "labrats.podExtras" (list . "receiver") | quote }}
{{- with (.Values.receiver | default dict).resources }}
LABRATS_RECEIVER_RESOURCES: {{ toJson . | quote }}
{{- end }}
{{- if .Values.networkPolicy.enabled }}
LABRATS_CANARY_IMAGE: {{ include "labrats.image" . }}
{{- end }}
{{- with include "labrats.egressProxy" . }}
LABRATS_EGRESS_PROXY: {{ . }}
{{- end }}
{{- end }}
