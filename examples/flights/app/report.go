package main

// table answers the sums as one JSON object: airport -> "hour/band" -> row.
func table([]byte) (any, error) { return readAll() }

// hours answers the newest summary.
func hours([]byte) (any, error) { return readSummary() }
