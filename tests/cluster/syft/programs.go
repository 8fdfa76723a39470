//go:build programs

// Package syft pins the program that lists the packages in an image.
package syft

import _ "github.com/anchore/syft/cmd/syft"
