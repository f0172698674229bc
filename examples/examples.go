// Package examples holds the applications that come with the binary.
package examples

import "embed"

// Flights is the application that quipu demo runs, with its data.
//
//go:embed flights/quipu.yaml flights/app flights/data/flights-20k.csv.gz
var Flights embed.FS
