#!/usr/bin/env bash
# Usage: fuzz.sh DURATION. Runs every fuzz test for that long, one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."

grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' gateway server tools | sort |
	while IFS=: read -r file name; do
		name=${name#func }
		echo "== $name (${file%/*})"
		go test -run='^$' -fuzz="^$name\$" -fuzztime="$1" "./${file%/*}" </dev/null
	done
