#!/bin/sh
# Takes the 200,000 flights of the npm package vega-datasets and writes flights-200k.csv.gz beside this
# file, for: quipu demo --flights examples/flights/flights-200k.csv.gz
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent vega-datasets@3.2.1 >/dev/null
tar xzf vega-datasets-3.2.1.tgz package/data/flights-200k.json
node -e '
const flights = JSON.parse(require("fs").readFileSync("package/data/flights-200k.json"));
const two = (n) => String(n).padStart(2, "0");
// This file has the delay, the distance and the hour of day as a fraction, but no places.
console.log("date,delay,distance,origin,destination");
for (const f of flights) {
  const hour = Math.floor(f.time), minute = Math.floor((f.time - hour) * 60);
  console.log(`2001/01/01 ${two(hour)}:${two(minute)},${f.delay},${f.distance},ANY,ANY`);
}' | gzip -9n >"$here/flights-200k.csv.gz"
ls -l "$here/flights-200k.csv.gz"
