// Package xtest holds what any implementation of the contract must pass, and the plain models that
// the suites compare with. Log checks the numbered promises of docs/concepts/log.md; Model is the
// log in its most obvious form: a slice under a mutex, verdicts by looking at everything.
//
// Nothing here is durable, and nothing but tests and simulations should use it.
package xtest
