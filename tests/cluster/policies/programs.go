//go:build programs

// Package policies pins the program that enforces the NetworkPolicies of the test cluster.
package policies

import _ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
