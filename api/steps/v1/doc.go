// Package stepsv1 is the protocol of journals over gRPC, generated from steps.proto: version 1, to which fields and
// methods may be added, and from which none is taken away.
package stepsv1

//go:generate go -C ../../gen run . steps/v1/steps.proto
