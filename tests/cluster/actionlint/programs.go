//go:build programs

// Package actionlint pins the program that checks the workflows in .github.
package actionlint

import _ "github.com/rhysd/actionlint/cmd/actionlint"
