// Package tidy holds tests of the source itself: which package may import which, and how long a
// function may be. It has no code of its own.
package tidy
