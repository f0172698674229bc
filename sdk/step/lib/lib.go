// Package lib has the libraries of package step for other languages: one file each, to lie beside the function.
package lib

import _ "embed"

// Python and TypeScript are step.py and step.ts.
var (
	//go:embed step.py
	Python []byte
	//go:embed step.ts
	TypeScript []byte
)
