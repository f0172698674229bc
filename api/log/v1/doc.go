// Package logv1 is the protocol of the log over gRPC, generated from log.proto: version 1, to which fields and
// methods may be added, and from which none is taken away.
package logv1

//go:generate go -C ../../gen run . log/v1/log.proto
