// Package quipu is the contract of the platform: the interfaces and plain data that its parts share.
//
// A function is called; what it does through the platform is collected; when it succeeds, all of it
// becomes one record of the namespace's book, in one durable append. Everything else (keys and values,
// deployments, calls) is a view: a deterministic state machine fed by that book.
//
// The parts live in sub-packages which do not import each other; package server wires them. Nothing
// here does any work, and nothing outside the standard library is imported.
// docs/architecture.md follows one call through the code.
package quipu
