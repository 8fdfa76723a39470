//go:build programs

// Package helm pins the program that installs charts, built from its Go module.
package helm

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
