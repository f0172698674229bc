// Package examples holds the applications that come with the binary.
package examples

import "embed"

// Flights is the application that quipu demo runs, with its data.
//
//go:embed flights/quipu.yaml flights/app flights/data/flights-20k.csv.gz
var Flights embed.FS

// Steps are a durable function in Python and in TypeScript, with the libraries: templates of quipu new.
//
//go:embed steps/python steps/typescript
var Steps embed.FS
